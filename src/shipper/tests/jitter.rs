//! `--shipper.jitter`: what was just sealed waits by chance.

use super::*;

const JITTER: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn a_block_that_was_just_sealed_waits_by_chance_and_older_ones_do_not() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    shipper.settings.jitter = JITTER;
    let (found, sealed, later) = (Made::new(&name(1), 0), Made::new(&name(2), 10), Made::new(&name(3), 20));
    world.copy_in(&found);
    sleep(Duration::from_secs(30)).await;
    world.seal(&mut shipper, &sealed);
    world.seal(&mut shipper, &later);
    let until = shipper.jitter_until(id(&sealed.name)).expect("it waits");
    assert!(until <= Instant::now() + JITTER);
    let outcome = shipper.pass().await;
    assert!(matches!(outcome, Outcome::Waiting(_)), "{outcome:?}");
    assert_eq!(world.listed(), std::slice::from_ref(&found.name), "it was there before");
    assert_eq!(world.object(&format!("{}/index", sealed.name)), None);
    sleep(JITTER + SETTLE).await;
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [found.name, sealed.name, later.name]);
}

#[tokio::test(start_paused = true)]
async fn no_two_processes_choose_the_same_and_chance_is_spread() {
    let mut waits = Vec::new();
    for _ in 0..40 {
        let world = World::new().await;
        let mut shipper = world.shipper();
        shipper.settings.jitter = JITTER;
        let made = Made::new(&name(1), 0);
        world.seal(&mut shipper, &made);
        let until = shipper.jitter_until(id(&made.name));
        assert_eq!(until, shipper.jitter_until(id(&made.name)), "it is chosen once");
        waits.push(until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now())));
    }
    waits.sort();
    let early = waits.iter().filter(|wait| **wait < JITTER / 2).count();
    // By chance, fewer than 5 of 40 come once in 10 million times.
    assert!((5..=35).contains(&early), "{waits:?}");
    waits.dedup();
    assert!(waits.len() > 30, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stops_waits_for_no_chance() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    shipper.settings.jitter = Duration::from_secs(24 * 3600);
    let made = Made::new(&name(1), 0);
    world.seal(&mut shipper, &made);
    assert!(matches!(shipper.pass().await, Outcome::Waiting(_)));
    world
        .prometheus
        .send_modify(|prometheus| prometheus.liveness = Liveness::Gone);
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    let report = shipper.run(stop, Duration::from_secs(60)).await;
    assert_eq!((report.in_time, report.not_durable.len()), (true, 0));
    assert_eq!(world.listed(), [made.name]);
}
