//! Waiting, always with a bound.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng};

use super::limit;

/// How long to pause between two looks, at least and at most: a look takes the processor from what is waited for.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];
/// Which part of the time that was waited a pause is.
const PART: u32 = 20;

/// Asks `probe` again and again until it gives something; panics when that takes longer than `within`.
pub(crate) async fn wait_until<T>(within: Duration, what: impl Display, probe: impl AsyncFnMut() -> Option<T>) -> T {
    match try_until(within, probe).await {
        Some(found) => found,
        None => panic!("did not come within {within:?}: {what}"),
    }
}

/// As [`wait_until`], for callers that have more to say when it does not come.
pub(crate) async fn try_until<T>(within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    limit::begin();
    let begun = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return Some(found);
        }
        let waited = begun.elapsed();
        if waited >= within {
            return None;
        }
        tokio::time::sleep((waited / PART).clamp(PAUSES[0], PAUSES[1])).await;
    }
}

/// Waits for a random moment of some work: until `done` of it is up to `most` more than now, or until it has `ended`, and
/// then a little longer. How fast the machine is does not matter.
pub(crate) async fn random_moment(
    random: &mut StdRng,
    most: usize,
    mut done: impl AsyncFnMut() -> usize,
    ended: impl Fn() -> bool,
) {
    let goal = done().await + random.random_range(0..=most);
    let there = async || (done().await >= goal || ended()).then_some(());
    wait_until(Duration::from_secs(120), "the work goes on", there).await;
    tokio::time::sleep(Duration::from_millis(random.random_range(0..100))).await;
}
