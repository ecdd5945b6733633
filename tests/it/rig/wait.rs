//! Waiting, always with a bound.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// How long to pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks `probe` again and again until it gives something; panics when that takes longer than `within`.
pub(crate) async fn wait_until<T>(within: Duration, what: impl Display, probe: impl AsyncFnMut() -> Option<T>) -> T {
    match try_until(within, probe).await {
        Some(found) => found,
        None => panic!("did not come within {within:?}: {what}"),
    }
}

/// As [`wait_until`], for callers that have more to say when it does not come.
pub(crate) async fn try_until<T>(within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(found) = probe().await {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
