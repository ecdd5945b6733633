//! What a connection of HTTP/2 is held to: its first request within the time for a head, each answer taken within the
//! time for a stall, and not longer without a request than any other connection. With HTTP/1 the connection itself shows all
//! of that; here a client may take nothing of an answer while the connection lives.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::time::{Duration, Instant, sleep_until};

/// How much of an answer is handed on at once, in bytes: no more than that is out of sight.
const SLICE: usize = 8 * 1024;

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Until the first request.
    pub(super) head: Duration,
    /// From a request to the last of its answer.
    pub(super) stall: Duration,
    /// Without a request.
    pub(super) idle: Duration,
}

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Progress {
    limits: Times,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When each request that is open began, by its number.
    open: BTreeMap<u64, Instant>,
    begun: u64,
    /// When there was none open any more.
    quiet_since: Instant,
}

impl Progress {
    /// A connection that begins now.
    pub(super) fn new(limits: Times) -> Self {
        Self {
            limits,
            state: Mutex::new(State {
                open: BTreeMap::new(),
                begun: 0,
                quiet_since: Instant::now(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come; it is open until what this gives is dropped.
    pub(super) fn begin(progress: &Arc<Self>) -> Open {
        let mut state = progress.state();
        let number = state.begun;
        state.begun += 1;
        state.open.insert(number, Instant::now());
        Open {
            progress: Arc::clone(progress),
            number,
        }
    }

    fn deadline(&self) -> Instant {
        let state = self.state();
        match (state.open.values().next(), state.begun) {
            (Some(oldest), _) => *oldest + self.limits.stall,
            (None, 0) => state.quiet_since + self.limits.head,
            (None, _) => state.quiet_since + self.limits.idle,
        }
    }

    /// Waits until the connection is to be closed.
    pub(super) async fn none(&self) {
        loop {
            let deadline = self.deadline();
            sleep_until(deadline).await;
            if self.deadline() <= deadline {
                return;
            }
        }
    }
}

/// A request that is open.
#[derive(Debug)]
pub(super) struct Open {
    progress: Arc<Progress>,
    number: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.progress.state();
        state.open.remove(&self.number);
        state.quiet_since = Instant::now();
    }
}

/// A body that is handed on in slices, and keeps its request open until the last.
#[derive(Debug)]
pub(super) struct Sliced {
    left: Bytes,
    _open: Open,
}

impl Sliced {
    pub(super) fn new(body: Full<Bytes>, open: Open) -> Self {
        Self {
            left: whole(body),
            _open: open,
        }
    }
}

/// What is in a body that has it all.
fn whole(body: Full<Bytes>) -> Bytes {
    let mut body = body;
    let context = &mut Context::from_waker(std::task::Waker::noop());
    match Pin::new(&mut body).poll_frame(context) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        _ => Bytes::new(),
    }
}

impl Body for Sliced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = &mut self.get_mut().left;
        let slice = left.split_to(left.len().min(SLICE));
        Poll::Ready((!slice.is_empty()).then_some(Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::time::timeout;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Times {
        Times {
            head: 2 * SECOND,
            stall: 5 * SECOND,
            idle: 20 * SECOND,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_without_a_request_with_an_answer_that_is_not_taken_and_after_rest() {
        let progress = Arc::new(Progress::new(limits()));
        let began = Instant::now();
        progress.none().await;
        assert_eq!(began.elapsed().as_secs(), 2, "no request came");

        let progress = Arc::new(Progress::new(limits()));
        let open = Progress::begin(&progress);
        let other = Progress::begin(&progress);
        assert!(timeout(4 * SECOND, progress.none()).await.is_err());
        drop(open);
        let began = Instant::now();
        progress.none().await;
        assert_eq!(began.elapsed().as_secs(), 1, "the other one is not taken");
        drop(other);
        let began = Instant::now();
        progress.none().await;
        assert_eq!(began.elapsed().as_secs(), 20, "nothing more came");
    }

    #[tokio::test]
    async fn an_answer_is_whole_and_keeps_its_request_open_until_the_last_slice() {
        let progress = Arc::new(Progress::new(limits()));
        let content: Bytes = (0..=255).cycle().take(3 * SLICE + 1).collect();
        let mut body = Sliced::new(Full::new(content.clone()), Progress::begin(&progress));
        assert_eq!(body.size_hint().exact(), Some(content.len() as u64));
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((first.len(), progress.state().open.len()), (SLICE, 1));
        assert_eq!(body.collect().await.unwrap().to_bytes(), content.slice(SLICE..));
        assert!(progress.state().open.is_empty());
        let empty = Sliced::new(Full::default(), Progress::begin(&progress));
        assert!(empty.is_end_stream());
    }
}
