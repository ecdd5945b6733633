//! A call's deadline: read from its headers, and enforced even while the client does not read the answer.
//!
//! hyper polls the body of a call only while the client accepts data. So the deadline is enforced by the task of the
//! call: when it has passed, the call is polled once more to end with its status, and is then dropped, which resets the
//! stream of a client that does not read.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::HeaderMap;
use tokio::time::{Instant, sleep_until};

/// Longer than this is no deadline at all: timers do not reach further.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// When a call must have ended, and whether it is too late; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Deadline {
    at: Instant,
    passed: Arc<AtomicBool>,
}

/// The header `grpc-timeout` is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed grpc-timeout: expected 1 to 8 digits and one of H, M, S, m, u, n")]
pub(super) struct Malformed;

impl Deadline {
    /// The deadline that the headers of a request ask for.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Malformed> {
        let Some(value) = headers.get("grpc-timeout") else {
            return Ok(None);
        };
        let timeout = parse(value.as_bytes()).ok_or(Malformed)?;
        Ok((timeout <= LONGEST).then(|| Self {
            at: Instant::now() + timeout,
            passed: Arc::default(),
        }))
    }

    /// Whether it has passed; set by the task of the call, so that reading it costs nothing.
    pub(super) fn has_passed(&self) -> bool {
        self.passed.load(Ordering::Relaxed)
    }

    /// Whether it has passed by the clock: the client gives up at the same moment, and its reset may come first.
    pub(super) fn is_over(&self) -> bool {
        self.has_passed() || Instant::now() >= self.at
    }

    /// The moment at which it passes.
    pub(super) fn at(&self) -> Instant {
        self.at
    }
}

fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Spawns the calls of one connection. hyper spawns a call right after the service was asked for it, on the same thread:
/// in between, the deadline is kept here.
#[derive(Clone, Debug, Default)]
pub(super) struct Spawner(Arc<Mutex<Option<Deadline>>>);

impl Spawner {
    /// The deadline of the call that is spawned next.
    pub(super) fn next(&self, deadline: Option<Deadline>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }
}

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let deadline = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match deadline {
            None => tokio::spawn(call),
            Some(deadline) => tokio::spawn(until(deadline, call)),
        };
    }
}

async fn until(deadline: Deadline, call: impl Future<Output = ()>) {
    let timer = sleep_until(deadline.at);
    tokio::pin!(call, timer);
    poll_fn(|cx| {
        if timer.as_mut().poll(cx).is_pending() {
            return call.as_mut().poll(cx);
        }
        deadline.passed.store(true, Ordering::Relaxed);
        // The last poll: a client that reads gets the status.
        let _ = call.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use hyper::rt::Executor as _;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_timeout_has_digits_and_a_unit() {
        for (text, wanted) in [
            ("0m", Some(Duration::ZERO)),
            ("5S", Some(Duration::from_secs(5))),
            ("4999877u", Some(Duration::from_micros(4_999_877))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("+5S", None),
            ("123456789S", None),
        ] {
            assert_eq!(parse(text.as_bytes()), wanted, "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_timeout_of_centuries_is_none() {
        let mut headers = HeaderMap::new();
        assert!(Deadline::of(&headers).unwrap().is_none());
        headers.insert("grpc-timeout", "99999999H".parse().unwrap());
        assert!(Deadline::of(&headers).unwrap().is_none());
        headers.insert("grpc-timeout", "1x".parse().unwrap());
        assert_eq!(Deadline::of(&headers).unwrap_err(), Malformed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_is_dropped_at_its_deadline_and_the_next_one_is_not() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", "5S".parse().unwrap());
        let deadline = Deadline::of(&headers).unwrap().unwrap();
        let spawner = Spawner::default();
        spawner.next(Some(deadline.clone()));
        let (held, dropped) = oneshot::channel::<()>();
        spawner.execute(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        let (next, mut still) = oneshot::channel::<()>();
        spawner.execute(async move {
            std::future::pending::<()>().await;
            drop(next);
        });
        dropped.await.unwrap_err();
        assert!(deadline.has_passed() && Instant::now() >= deadline.at());
        assert_eq!(still.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    }
}
