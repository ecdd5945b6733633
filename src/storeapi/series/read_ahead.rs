//! Delivers an answer to a client that may be slow, and reads Prometheus at its own speed meanwhile.
//!
//! While the client keeps up, its own polls read Prometheus and nothing is held but a piece. Once it lags, a task reads
//! ahead ([`reader`]): into memory ([`memory`]), then into a file ([`spill`]). Where neither has room, Prometheus
//! waits, and that time is added up: beyond the call's patience the answer ends with Aborted, so that an open remote
//! read never keeps Prometheus from sealing blocks for long. An answer whose remote read is over, as one that was collected,
//! is read at the client's pace: nobody waits for it. A directory of files that does not respond, or for which Prometheus
//! mostly waits, ends the answer with Unavailable. A client that reads nothing at all for [`CLIENT_STALL`] loses its answer, too, which releases what is
//! held for it.
//!
//! Pieces are delivered in the order in which they were made: those in memory first, then those of the file, then new
//! ones. Dropping the answer drops the request to Prometheus, the memory and the file at once.

mod ended;
pub mod memory;
pub(super) mod reader;
pub mod spill;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    sync::Notify,
    time::{Instant, Sleep, sleep},
};
use tonic::Status;

use self::memory::Share;
use super::{
    answer::{Answer, Failed},
    encode::Batcher,
    metrics::Metrics,
};
use crate::ops::grpc::Caller;
#[cfg(doc)]
use crate::storeapi::context::CLIENT_STALL;

/// Bytes of a piece, at least, unless the answer pauses or ends.
pub(super) const PIECE: usize = 128 << 10;
/// How long a message may wait for others.
const LINGER: Duration = Duration::from_millis(3);
/// The stage of a call whose client keeps up.
pub(super) const SENDING: &str = "sending";

/// An answer that is made anew.
pub type Retry = Pin<Box<dyn Future<Output = Result<Answer, Status>> + Send>>;

/// How an answer is delivered.
pub struct Delivery {
    /// Series in one message.
    pub batch: usize,
    /// How long Prometheus may wait for the client in all.
    pub patience: Duration,
    /// The call's share of the memory.
    pub share: Share,
    /// Where the call is counted.
    pub metrics: Metrics,
    /// Whose call it is.
    pub caller: Caller,
    /// Sends the request again, with another strategy, when series come out of order and nothing was delivered yet.
    pub retry: Box<dyn FnMut() -> Option<Retry> + Send>,
}

/// An answer that is shared by the client's body and the task that reads ahead.
pub(super) struct ReadAhead {
    core: Mutex<Core>,
    /// The client has taken a piece.
    taken: Notify,
}

/// Where series come from.
enum Source {
    Requesting(Retry),
    Answering(Box<Answer>),
    Ended,
}

struct Core {
    source: Source,
    delivery: Delivery,
    batcher: Batcher,
    out: BytesMut,
    linger: Option<Pin<Box<Sleep>>>,
    /// Pieces that wait for the client, and their bytes.
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Pieces that come after those of the queue are in a file, or on the way to it or from it.
    is_spilled: bool,
    /// A piece was taken from `out`: it is delivered, or on its way to the client.
    begun: bool,
    /// Series in `out`; those of a batch that is not full yet are in no message.
    series: u64,
    /// Series in the pieces that were taken from `out` and not delivered.
    unsent: Unsent,
    /// The status to end with.
    end: Option<Status>,
    /// The client waits for a piece, or was woken and has not polled since.
    client: Option<Waker>,
    /// Where the call is while it is not asking Prometheus.
    stage: &'static str,
    /// Since when the client has taken nothing, though it could.
    idle_since: Option<Instant>,
    /// Since when Prometheus waits, and for how long it did before.
    waiting_since: Option<Instant>,
    waited: Duration,
    /// For how much of it because of an operation in the directory of files.
    waited_for_disk: Duration,
}

/// How many series are whole with which byte of an answer, from the first one on that was not delivered. Pieces are
/// delivered in the order in which they were made, whatever becomes of their borders on the way. Bounded: a mark stands
/// for a [`PIECE`] at least.
#[derive(Debug, Default)]
struct Unsent {
    marks: VecDeque<Mark>,
    made: u64,
    delivered: u64,
}

#[derive(Debug)]
struct Mark {
    begin: u64,
    end: u64,
    series: u64,
}

impl Unsent {
    /// A piece was made, in which so many series are.
    fn made(&mut self, bytes: usize, series: u64) {
        let begin = self.made;
        self.made += bytes as u64;
        match self.marks.back_mut() {
            Some(last) if last.end - last.begin < PIECE as u64 => {
                last.end = self.made;
                last.series += series;
            }
            _ => self.marks.push_back(Mark {
                begin,
                end: self.made,
                series,
            }),
        }
    }

    /// So many bytes were delivered; with how many series of which nothing is left.
    fn delivered(&mut self, bytes: usize) -> u64 {
        self.delivered += bytes as u64;
        let mut series = 0;
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.end <= self.delivered) {
            series += mark.series;
        }
        series
    }
}

/// What is delivered to the client.
pub(super) enum Delivered {
    Piece(Bytes),
    End(Status),
}

impl std::fmt::Debug for ReadAhead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadAhead").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").finish_non_exhaustive()
    }
}

impl ReadAhead {
    /// An answer that nothing was read of.
    pub(super) fn new(answer: Answer, delivery: Delivery) -> Self {
        let now = Instant::now();
        let holds_prometheus = answer.holds_prometheus();
        let core = Core {
            source: Source::Answering(Box::new(answer)),
            batcher: Batcher::new(delivery.batch),
            delivery,
            out: BytesMut::new(),
            linger: None,
            queue: VecDeque::new(),
            queued: 0,
            is_spilled: false,
            begun: false,
            series: 0,
            unsent: Unsent::default(),
            end: None,
            client: None,
            stage: SENDING,
            // A client may let not even the first piece through.
            idle_since: Some(now),
            waiting_since: holds_prometheus.then_some(now),
            waited: Duration::ZERO,
            waited_for_disk: Duration::ZERO,
        };
        Self {
            core: Mutex::new(core),
            taken: Notify::new(),
        }
    }

    /// What comes next for the client.
    pub(super) fn poll_delivered(&self, cx: &mut Context<'_>) -> Poll<Delivered> {
        let mut core = self.lock();
        let delivered = core.poll_delivered(cx);
        let waits = delivered.is_pending().then(|| cx.waker().clone());
        core.idle_since = waits.is_none().then(Instant::now);
        core.client = waits;
        drop(core);
        self.taken.notify_one();
        delivered
    }

    /// The client is gone.
    pub(super) fn client_left(&self) {
        let mut core = self.lock();
        core.stop(Status::cancelled("the client left"));
        core.delivery.share.end();
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    fn poll_delivered(&mut self, cx: &mut Context<'_>) -> Poll<Delivered> {
        if let Some(piece) = self.queue.pop_front() {
            self.queued -= piece.len();
            self.delivery.share.release(piece.len());
            return Poll::Ready(self.deliver(piece));
        }
        if self.is_spilled {
            return Poll::Pending;
        }
        if self.end.is_none() && self.out.len() < PIECE {
            ready!(self.fill(cx));
        }
        if self.out.is_empty() {
            return Poll::Ready(Delivered::End(self.end.clone().unwrap_or_else(|| Status::ok(""))));
        }
        let piece = self.take_piece();
        let delivered = self.deliver(piece);
        // From here on Prometheus waits until the client comes again, or somebody reads ahead.
        self.start_waiting();
        Poll::Ready(delivered)
    }

    /// A message may have many MiB: each piece of it counts as progress of the client.
    fn deliver(&mut self, mut piece: Bytes) -> Delivered {
        if piece.len() > 2 * PIECE {
            let rest = piece.split_off(2 * PIECE);
            self.queued += rest.len();
            self.delivery.share.reserve_anyway(rest.len());
            self.queue.push_front(rest);
        }
        let series = self.unsent.delivered(piece.len());
        self.delivery.metrics.sent(series, piece.len());
        Delivered::Piece(piece)
    }

    /// All that is ready, as a piece.
    fn take_piece(&mut self) -> Bytes {
        // What is left of an allocation must not be used on: a piece that waits would keep twice its size.
        let next = match self.is_open() {
            true => BytesMut::with_capacity(PIECE + PIECE / 8),
            false => BytesMut::new(),
        };
        self.begun = true;
        let piece = std::mem::replace(&mut self.out, next).freeze();
        self.unsent.made(piece.len(), std::mem::take(&mut self.series));
        piece
    }

    /// Fills `out` up to a piece; pending when it is empty and nothing is there.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stop_waiting();
        while self.out.len() < PIECE {
            let next = match &mut self.source {
                Source::Ended => break,
                Source::Requesting(retry) => retry.as_mut().poll(cx).map(|answer| {
                    // The request has set stages of its own.
                    self.delivery.caller.set_stage(self.stage);
                    let answer = answer.map_err(Failed::Status)?;
                    self.source = Source::Answering(Box::new(answer));
                    Ok(true)
                }),
                Source::Answering(answer) => answer.poll_next(cx).map(|next| match next {
                    Some(Ok(series)) => {
                        self.series += self.batcher.add(series, &mut self.out);
                        Ok(true)
                    }
                    Some(Err(failed)) => Err(failed),
                    None => {
                        answer.complete();
                        Ok(false)
                    }
                }),
            };
            match next {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => {
                    self.series += self.batcher.flush(&mut self.out);
                    self.finish(Status::ok(""));
                }
                Poll::Ready(Err(failed)) => self.fail(failed),
                Poll::Pending if self.out.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    let linger = self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
                    if linger.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    break;
                }
            }
        }
        self.linger = None;
        Poll::Ready(())
    }

    /// The answer fails, unless it can still be requested with another strategy.
    fn fail(&mut self, failed: Failed) {
        if let Failed::OutOfOrder(_) = failed {
            let retry = (self.delivery.retry)();
            if let Some(retry) = retry.filter(|_| !self.begun) {
                self.source = Source::Requesting(retry);
                self.out.clear();
                self.series = 0;
                self.batcher = Batcher::new(self.delivery.batch);
                return;
            }
        }
        self.finish(failed.into());
    }

    /// Nothing more comes of Prometheus.
    fn finish(&mut self, status: Status) {
        self.source = Source::Ended;
        self.end = Some(status);
        self.stop_waiting();
    }

    /// Ends the answer for the client, too: what was made and not given is dropped.
    fn stop(&mut self, status: Status) {
        self.finish(status);
        self.out = BytesMut::new();
        self.queue.clear();
        self.queued = 0;
        self.delivery.share.release_all();
        self.is_spilled = false;
        self.wake();
    }

    /// Where the call is from now on.
    fn set_stage(&mut self, stage: &'static str) {
        self.stage = stage;
        self.delivery.caller.set_stage(stage);
    }

    /// Wakes the client if it waits; it counts as waiting until it polls.
    fn wake(&self) {
        if let Some(client) = &self.client {
            client.wake_by_ref();
        }
    }

    /// Whether there may be more of the answer to be made.
    fn is_open(&self) -> bool {
        !matches!(self.source, Source::Ended)
    }

    /// Whether there is a remote read, or a request for one, that is not over.
    fn holds_prometheus(&self) -> bool {
        match &self.source {
            Source::Requesting(_) => true,
            Source::Answering(answer) => answer.holds_prometheus(),
            Source::Ended => false,
        }
    }

    /// Prometheus waits from now on, if it has more to send.
    fn start_waiting(&mut self) {
        if self.holds_prometheus() {
            self.waiting_since.get_or_insert_with(Instant::now);
        }
    }

    /// Prometheus waits no longer.
    fn stop_waiting(&mut self) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
    }

    /// How long Prometheus has waited until now.
    fn waited(&self) -> Duration {
        self.waited + self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// How long Prometheus may still wait.
    fn patience_left(&self) -> Duration {
        self.delivery.patience.saturating_sub(self.waited())
    }
}
