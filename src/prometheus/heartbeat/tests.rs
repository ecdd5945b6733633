mod beats;

use super::{
    snapshot::{RETRY, SHORT_INTERVAL},
    *,
};
use crate::{
    model::Labels,
    prometheus::{Configuration, ErrorKind, HttpClientConfig},
};

const LIMIT: Duration = Duration::from_secs(30);

fn settings() -> Settings {
    let validation = Validation {
        tsdb_path: "/prometheus".into(),
        ledger_name: "thanos.shipper.json".to_owned(),
        ignore_unequal: false,
    };
    Settings {
        interval: Duration::from_secs(30),
        extra_labels: Labels::default(),
        validation: Some(validation),
    }
}

fn heartbeat(settings: Settings) -> (Heartbeat, Registry) {
    heartbeat_of("http://u:hunter2@127.0.0.1:1/prefix", settings)
}

fn heartbeat_of(url: &str, settings: Settings) -> (Heartbeat, Registry) {
    let client = Client::new(&url.parse().unwrap(), &HttpClientConfig::default(), LIMIT).unwrap();
    let mut registry = Registry::default();
    (Heartbeat::new(client, settings, &mut registry), registry)
}

fn reading(labels: &[(&str, &str)], max: &str) -> Result<Observation, Error> {
    let flags = [
        ("storage.tsdb.min-block-duration", "2h"),
        ("storage.tsdb.max-block-duration", max),
    ];
    Ok(Observation {
        configuration: Configuration {
            labels: Labels::from_pairs(labels.iter().copied()),
            ..Configuration::default()
        },
        version: "2.42.0".to_owned(),
        flags: Some(flags.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        storage: Storage {
            lowest_time_ms: 1_700_000_000_000,
            ..Storage::default()
        },
        storage_asked_at: Some(Instant::now()),
        guarded: None,
    })
}

/// All is well, and this is what it tells of its storage.
fn telling(storage: Storage) -> Result<Observation, Error> {
    reading(&[("cluster", "eu")], "2h").map(|reading| Observation { storage, ..reading })
}

fn refused() -> Result<Observation, Error> {
    let url = "http://x/".to_owned();
    Err(Error {
        method: "GET",
        url,
        kind: ErrorKind::Refused,
    })
}

#[test]
fn keeps_what_was_known_while_prometheus_is_down() {
    let (mut heartbeat, _) = heartbeat(settings());
    let mut snapshots = heartbeat.snapshots();
    let start = snapshots.borrow_and_update().clone();
    assert!(!start.up && !start.seen && start.problem.is_some_and(|problem| !problem.contains("hunter2")));

    heartbeat.apply(reading(&[("cluster", "eu")], "2h"));
    let up = snapshots.borrow_and_update().clone();
    assert!(up.up && up.seen && up.problem.is_none(), "{up:?}");
    assert_eq!((heartbeat.metrics.up.get(), up.lowest_time_ms), (1, 1_700_000_000_000));

    heartbeat.apply(refused());
    let down = snapshots.borrow_and_update().clone();
    assert_eq!(heartbeat.metrics.up.get(), 0);
    assert!(!down.up && down.gone && down.seen && down.problem.is_some());
    assert_eq!(down.lowest_time_ms, up.lowest_time_ms);
    assert_eq!(
        (down.labels, down.version, down.flags),
        (up.labels.clone(), up.version.clone(), up.flags.clone())
    );

    assert_eq!(down.storage_asked_at, up.storage_asked_at);
    heartbeat.apply(refused());
    assert!(!snapshots.has_changed().unwrap(), "nothing has changed");
    heartbeat.apply(reading(&[("cluster", "eu")], "2h"));
    let asked_at = snapshots.borrow_and_update().storage_asked_at;
    assert_eq!(
        *snapshots.borrow(),
        Snapshot {
            storage_asked_at: asked_at,
            ..up
        }
    );
    let again = Observation {
        storage_asked_at: asked_at.map(|at| at + Duration::from_secs(30)),
        ..reading(&[("cluster", "eu")], "2h").unwrap()
    };
    let at = again.storage_asked_at;
    heartbeat.apply(Ok(again));
    assert!(!snapshots.has_changed().unwrap(), "the same again");
    assert_eq!(
        snapshots.borrow().storage_asked_at,
        at,
        "and yet it is known when it was asked"
    );
    let later = Storage {
        lowest_time_ms: i64::MIN,
        ..Storage::default()
    };
    heartbeat.apply(telling(later));
    assert!(snapshots.has_changed().unwrap());
    assert_eq!(snapshots.borrow_and_update().lowest_time_ms, i64::MIN);
    let held = Storage {
        head_max_time_ms: Some(1_795_855_795_524),
        blocks_loaded: Some(13),
        blocks_bytes: Some(1_234_567_891),
        ..later
    };
    heartbeat.apply(telling(held));
    let told = snapshots.borrow_and_update().clone();
    assert_eq!(
        (told.head_max_time_ms, told.blocks_loaded, told.blocks_bytes),
        (held.head_max_time_ms, held.blocks_loaded, held.blocks_bytes)
    );
}

#[test]
fn lays_our_labels_over_those_of_prometheus() {
    let extra_labels = Labels::from_pairs([("replica", "b")]);
    let (mut heartbeat, _) = heartbeat(Settings {
        extra_labels: extra_labels.clone(),
        ..settings()
    });
    heartbeat.apply(reading(&[("cluster", "eu"), ("replica", "a")], "2h"));
    assert_eq!(
        heartbeat.sender.borrow().labels,
        Labels::from_pairs([("cluster", "eu"), ("replica", "b")])
    );
    heartbeat.apply(reading(&[], "2h"));
    let snapshot = heartbeat.sender.borrow().clone();
    assert!(snapshot.labels == extra_labels && snapshot.problem.is_none());
}

#[test]
fn a_variable_that_nobody_has_replaced_makes_not_ready_and_is_counted_until_it_is() {
    let (mut beating, _) = heartbeat(settings());
    beating.apply(reading(&[("cluster", "eu"), ("replica", "$(POD_NAME)")], "2h"));
    let problem = beating.sender.borrow().problem.clone().unwrap();
    assert!(problem.contains("replica=\"$(POD_NAME)\""), "{problem}");
    assert_eq!(beating.metrics.configuration_errors.get(), 1);
    beating.apply(reading(&[("cluster", "eu"), ("replica", "prometheus-0")], "2h"));
    let problem = beating.sender.borrow().problem.clone();
    assert_eq!((problem, beating.metrics.configuration_errors.get()), (None, 0));
    // In our own flag as well.
    let (mut beating, _) = heartbeat(Settings {
        extra_labels: Labels::from_pairs([("replica", "${HOSTNAME}")]),
        ..settings()
    });
    beating.apply(reading(&[("cluster", "eu")], "2h"));
    assert!(
        beating
            .sender
            .borrow()
            .problem
            .as_ref()
            .is_some_and(|problem| problem.contains("${HOSTNAME}"))
    );
}

#[test]
fn a_mistake_in_the_configuration_is_a_problem_until_it_is_gone() {
    let (mut heartbeat, registry) = heartbeat(settings());
    heartbeat.apply(reading(&[], "1d12h"));
    let snapshot = heartbeat.sender.borrow().clone();
    let problem = snapshot.problem.unwrap();
    assert!(snapshot.up && snapshot.seen && snapshot.labels.is_empty());
    for part in [
        "--storage.tsdb.max-block-duration=2h",
        "global.external_labels",
        "--label",
    ] {
        assert!(problem.contains(part), "{problem}");
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        // As in Thanos, it says nothing about mistakes.
        "\nthanos_sidecar_prometheus_up 1\n",
        "\nnarthex_configuration_errors 2\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    heartbeat.apply(reading(&[("a", "b")], "2h"));
    assert_eq!(heartbeat.sender.borrow().problem, None);
    assert_eq!(
        (heartbeat.metrics.up.get(), heartbeat.metrics.configuration_errors.get()),
        (1, 0)
    );
    assert!(heartbeat.metrics.last_heartbeat.get() > 1.7e9);
}

#[test]
fn labels_that_vanish_are_a_problem_until_there_are_some_again() {
    let (mut heartbeat, _) = heartbeat(settings());
    heartbeat.apply(reading(&[("cluster", "eu")], "2h"));
    for _ in 0..2 {
        heartbeat.apply(reading(&[], "2h"));
        let snapshot = heartbeat.sender.borrow().clone();
        let problem = snapshot.problem.expect("without labels there is a problem");
        assert!(snapshot.up && snapshot.labels.is_empty(), "the old ones count no more");
        for part in [
            "has no external labels",
            "queries are refused",
            "global.external_labels",
        ] {
            assert!(problem.contains(part), "{problem}");
        }
        assert_eq!(
            (heartbeat.metrics.up.get(), heartbeat.metrics.configuration_errors.get()),
            (1, 1)
        );
    }
    heartbeat.apply(reading(&[("cluster", "us")], "2h"));
    assert_eq!(heartbeat.sender.borrow().problem, None);
}

#[test]
fn an_agent_is_ready_and_its_flags_about_blocks_are_not_checked() {
    let (mut heartbeat, _) = heartbeat(settings());
    let agent = || {
        // An agent tells these durations.
        let mut reading = reading(&[("cluster", "eu")], "0s").unwrap();
        let flags = reading.flags.as_mut().unwrap();
        flags.insert("agent".to_owned(), "true".to_owned());
        Ok(reading)
    };
    heartbeat.apply(agent());
    let snapshot = heartbeat.sender.borrow().clone();
    assert!(snapshot.is_agent() && snapshot.problem.is_none(), "{snapshot:?}");
    assert!(
        matches!(&*heartbeat.warned, [one] if one.contains("agent mode")),
        "{:?}",
        heartbeat.warned
    );
    assert_eq!(
        (heartbeat.metrics.up.get(), heartbeat.metrics.configuration_errors.get()),
        (1, 0)
    );
    heartbeat.apply(reading(&[("cluster", "eu")], "2h"));
    assert!(!heartbeat.sender.borrow().is_agent() && heartbeat.warned.is_empty());
}

#[test]
fn another_process_is_noticed_where_it_shows() {
    let known = |change: &dyn Fn(&mut Observation), reload_failures| {
        let mut reading = telling(Storage {
            reload_failures,
            ..Storage::default()
        })
        .unwrap();
        change(&mut reading);
        reading
    };
    for (change, failures, forgotten) in [
        (&(|_: &mut Observation| {}) as &dyn Fn(&mut Observation), Some(7), false),
        (&|_| {}, Some(8), false),
        (&|_| {}, None, false),
        (&|_| {}, Some(6), true),
        (&|reading| reading.version.push('x'), Some(7), true),
        (&|reading| reading.flags.as_mut().unwrap().clear(), Some(7), true),
    ] {
        let (mut heartbeat, _) = heartbeat(settings());
        heartbeat.apply(Ok(known(&|_| {}, Some(7))));
        heartbeat.stored_names.looked_up("cluster", false);
        heartbeat.apply(Ok(known(change, failures)));
        assert_eq!(
            heartbeat.stored_names.may_be_stored("cluster"),
            forgotten,
            "{failures:?}"
        );
    }
    let (mut heartbeat, _) = heartbeat(settings());
    heartbeat.apply(Ok(known(&|_| {}, Some(7))));
    heartbeat.stored_names.looked_up("cluster", false);
    heartbeat.apply(refused());
    assert!(heartbeat.stored_names.may_be_stored("cluster"));
}

#[test]
fn checks_no_flags_when_nothing_is_uploaded() {
    let (mut heartbeat, _) = heartbeat(Settings {
        validation: None,
        ..settings()
    });
    heartbeat.apply(reading(&[("a", "b")], "1d12h"));
    assert_eq!(heartbeat.sender.borrow().problem, None);
}

#[tokio::test(start_paused = true)]
async fn a_counter_of_failed_reloads_that_grows_is_a_failure_and_its_first_value_is_not() {
    let (mut heartbeat, _) = heartbeat(settings());
    let mut seen = |reload_failures| {
        heartbeat.apply(telling(Storage {
            reload_failures,
            ..Storage::default()
        }));
        let snapshot = heartbeat.sender.borrow().clone();
        (snapshot.reload_failures, snapshot.reload_failed_at)
    };
    assert_eq!(seen(None), (None, None), "it does not tell");
    assert_eq!(seen(Some(7)), (Some(7), None), "those may be old");
    assert_eq!(seen(Some(7)), (Some(7), None));
    let mut failed = None;
    for (told, kept, grown) in [
        (Some(8), 8, true),
        (Some(8), 8, false),
        (None, 8, false),
        (Some(9), 9, true),
        // It was started anew.
        (Some(0), 0, false),
        (Some(1), 1, true),
        (Some(3), 3, true),
        (Some(2), 2, true),
        (Some(2), 2, false),
    ] {
        tokio::time::advance(Duration::from_secs(1)).await;
        if grown {
            failed = Some(Instant::now());
        }
        assert_eq!(seen(told), (Some(kept), failed), "{told:?}");
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    heartbeat.apply(refused());
    let down = heartbeat.sender.borrow().clone();
    assert_eq!((down.reload_failures, down.reload_failed_at), (Some(2), failed));
}

#[tokio::test(start_paused = true)]
async fn looks_closely_for_three_minutes_after_a_reload_has_failed() {
    let (long, short) = (Duration::from_secs(30), Duration::from_millis(50));
    let fine = Snapshot {
        up: true,
        ..Snapshot::unknown("")
    };
    let failed = Snapshot {
        reload_failed_at: Some(Instant::now()),
        ..fine.clone()
    };
    tokio::time::advance(Duration::from_secs(179)).await;
    assert_eq!((pause(&fine, long), pause(&fine, short)), (long, short));
    assert_eq!((pause(&failed, long), pause(&failed, short)), (SHORT_INTERVAL, short));
    let down = Snapshot {
        up: false,
        ..failed.clone()
    };
    assert_eq!(pause(&down, long), RETRY);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(pause(&failed, long), long);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_gets_one_heartbeat_soon_and_no_more_than_one_a_second() {
    let (trigger, hour) = (Notify::new(), Duration::from_secs(3600));
    let rested = async || {
        let start = Instant::now();
        wait_for_next(&trigger, hour).await;
        start.elapsed()
    };
    trigger.notify_one();
    trigger.notify_one();
    assert_eq!(rested().await, MIN_PAUSE);
    assert_eq!(rested().await, hour, "both were answered by one");
    let later = Duration::from_secs(10);
    let ask = async {
        tokio::time::sleep(later).await;
        trigger.notify_one();
    };
    let (rested, ()) = tokio::join!(rested(), ask);
    assert_eq!(rested, later);
    // An interval below the shortest pause is the operator's own wish.
    let start = Instant::now();
    wait_for_next(&trigger, Duration::from_millis(50)).await;
    assert_eq!(start.elapsed(), Duration::from_millis(50));
}
