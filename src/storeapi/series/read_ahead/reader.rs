//! The task that reads ahead for one call. It checks every 100 ms whether the client lags, and reads ahead until the
//! client has caught up or Prometheus has sent all: what is made of that then waits where it is.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Weak,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use super::{
    Core, PIECE, ReadAhead, SENDING,
    spill::{self, SpillDir, SpillError},
};
use crate::{ops::supervisor::panic_text, storeapi::context::CLIENT_STALL};

/// How often it is checked whether a client lags; one that reads nothing for so long does.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// A client lags, too, when Prometheus has waited for it for so long in all, a little at a time.
const A_LITTLE_AT_A_TIME: Duration = Duration::from_secs(1);
/// How often it is checked whether memory was released.
const TICK: Duration = Duration::from_millis(50);
/// How long one operation in the directory of `--store.spill-dir` may take. Prometheus may wait for its disk for as long in
/// all, also where it may wait less for the client.
pub(super) const DISK_LIMIT: Duration = Duration::from_secs(10);
/// What a directory that refuses means.
const MEMORY_ONLY: &str = "there is only memory for slow clients, so that Prometheus waits for them once that is full";
/// As long as fewer bytes than this wait in memory, more are read from the file.
const LOW: usize = 256 << 10;

/// Whether a client keeps up.
enum ClientState {
    KeepsUp,
    Lags,
    /// It has taken nothing for too long.
    Stalled,
    /// Nothing of the answer is left to be read or held.
    Over,
}

/// The result of polling Prometheus' answer.
enum Step {
    Piece(Bytes),
    /// There is no memory for a piece.
    Full,
    /// The client waits, so that it reads by itself.
    CaughtUp,
    /// Prometheus has no more.
    Over,
}

/// Reads ahead while the client of `ahead` lags, until the call has ended.
pub(in crate::storeapi::series) async fn run(ahead: Weak<ReadAhead>, spill_dir: Option<SpillDir>) {
    let mut reader = Reader { spill_dir, file: None };
    loop {
        sleep(CHECK_EVERY).await;
        let Some(ahead) = ahead.upgrade() else { return };
        match ahead.client_state() {
            ClientState::KeepsUp => {}
            ClientState::Lags => reader.read_ahead(&ahead).await,
            ClientState::Stalled => return ahead.lock().end_stalled(),
            ClientState::Over => return,
        }
    }
}

struct Reader {
    /// Where files may be; `None` also once that has failed.
    spill_dir: Option<SpillDir>,
    /// A file that the client was too fast for: nothing was written to it.
    file: Option<spill::File>,
}

impl Reader {
    /// Until the client has caught up or Prometheus has no more.
    async fn read_ahead(&mut self, ahead: &ReadAhead) {
        {
            let mut core = ahead.lock();
            if !core.delivery.share.mark_lagging() {
                return core.end_crowded_out();
            }
            if !core.holds_prometheus() {
                return;
            }
            core.set_stage("reading ahead for a slow client");
        }
        loop {
            if ahead.is_stalled() {
                return ahead.lock().end_stalled();
            }
            let step = tokio::select! {
                biased;
                step = std::future::poll_fn(|cx| ahead.poll_ahead(cx)) => step,
                // The client's own poll of Prometheus replaces the one from here, whose waker is lost.
                () = ahead.taken.notified() => continue,
                () = sleep(ahead.until_stalled()) => continue,
            };
            let goes_on = match step {
                Step::Piece(piece) => {
                    ahead.lock().push(piece);
                    // One piece at a time: others live on this thread.
                    tokio::task::yield_now().await;
                    true
                }
                Step::Full => match self.spill_dir.take() {
                    Some(spill_dir) => self.spill(ahead, spill_dir).await,
                    None => ahead.wait(None).await,
                },
                Step::CaughtUp | Step::Over => false,
            };
            if !goes_on {
                self.file = None;
                let mut core = ahead.lock();
                if core.end.as_ref().is_none_or(|end| end.code() == Code::Ok) {
                    core.set_stage(SENDING);
                }
                return;
            }
        }
    }

    /// Reads ahead into a file, until the client has caught up with that; whether to go on after it.
    async fn spill(&mut self, ahead: &ReadAhead, spill_dir: SpillDir) -> bool {
        let file = match self.file.take() {
            Some(file) => file,
            None => match ahead.on_disk(&spill_dir, spill_dir.create_file()).await {
                Some(Ok(file)) => file,
                Some(Err(error)) => {
                    spill_dir.log_failure(&error, MEMORY_ONLY);
                    return true;
                }
                None => return false,
            },
        };
        self.spill_dir = Some(spill_dir.clone());
        ahead.lock().is_spilled = true;
        let mut spilling = Spilling {
            ahead,
            file,
            spill_dir,
            gathered: Vec::new(),
            bytes: 0,
            may_write: true,
        };
        let goes_on = spilling.run().await;
        let file = spilling.file;
        self.file = file.is_unused().then_some(file);
        goes_on
    }
}

/// A call part of whose answer is in a file.
struct Spilling<'a> {
    ahead: &'a ReadAhead,
    file: spill::File,
    spill_dir: SpillDir,
    /// What comes after the bytes in the file, and is not there yet.
    gathered: Vec<Bytes>,
    bytes: usize,
    /// The file system has not refused a write.
    may_write: bool,
}

impl Spilling<'_> {
    async fn run(&mut self) -> bool {
        loop {
            if self.ahead.is_stalled() {
                self.ahead.lock().end_stalled();
                return false;
            }
            let has_more = self.gather().await;
            let enough = self.bytes >= spill::BLOCK || (!has_more && self.bytes > 0);
            let mut written = false;
            if enough && self.may_write {
                match self.write().await {
                    Some(is_written) => written = is_written,
                    None => return false,
                }
            }
            if !self.refill().await {
                return false;
            }
            if self.file.unread() == 0 && self.ahead.lock().queue.is_empty() {
                return self.finish(has_more);
            }
            // With `--store.spill-limit` reached, another call may make room.
            let stuck = has_more && self.bytes >= spill::BLOCK && !written;
            if stuck && !self.ahead.wait(Some(&self.spill_dir)).await {
                return false;
            }
            if !has_more {
                let _ = timeout(self.ahead.until_stalled(), self.ahead.taken.notified()).await;
            }
        }
    }

    /// Takes one piece, if Prometheus has one before the client takes one; whether it may have more.
    async fn gather(&mut self) -> bool {
        let has_more = self.ahead.lock().holds_prometheus();
        if !has_more || self.bytes >= spill::BLOCK {
            return has_more;
        }
        tokio::select! {
            biased;
            () = self.ahead.taken.notified() => true,
            () = sleep(self.ahead.until_stalled()) => true,
            step = std::future::poll_fn(|cx| self.ahead.poll_gather(cx)) => match step {
                Step::Piece(piece) => {
                    self.bytes += piece.len();
                    self.ahead.lock().delivery.share.reserve_anyway(piece.len());
                    self.gathered.push(piece);
                    true
                }
                _ => false,
            },
        }
    }

    /// Moves what is gathered into the file, and gathers what comes meanwhile; whether it is there now, and `None` once that
    /// has ended the call. After a failure nothing more is written to the file; without room it may be tried again.
    async fn write(&mut self) -> Option<bool> {
        let (block, bytes) = (std::mem::take(&mut self.gathered), std::mem::take(&mut self.bytes));
        let ahead = self.ahead;
        // Clones share the bytes: if the file has no room they stay.
        let writing = self.file.write(block.clone());
        let mut writing = std::pin::pin!(ahead.on_disk(&self.spill_dir, writing));
        let (mut next, mut next_bytes) = (Vec::new(), 0);
        let written = loop {
            // Beyond a block Prometheus waits for the disk.
            let may_gather = next_bytes < spill::BLOCK && ahead.lock().holds_prometheus();
            tokio::select! {
                biased;
                written = writing.as_mut() => break written,
                step = std::future::poll_fn(|cx| ahead.poll_gather(cx)), if may_gather => if let Step::Piece(piece) = step {
                    next_bytes += piece.len();
                    ahead.lock().delivery.share.reserve_anyway(piece.len());
                    next.push(piece);
                },
            }
        };
        let written = written?;
        let is_written = written.is_ok();
        if is_written {
            ahead.lock().delivery.share.release(bytes);
        } else {
            self.gathered = block;
            self.bytes = bytes;
        }
        if let Err(SpillError::Io(error)) = written {
            self.spill_dir.log_failure(&error, MEMORY_ONLY);
            self.may_write = false;
        }
        self.gathered.append(&mut next);
        self.bytes += next_bytes;
        Some(is_written)
    }

    /// Reads bytes back from the file while few wait in memory; whether the call goes on.
    async fn refill(&mut self) -> bool {
        while let Some(bytes) = self.wanted() {
            match self.ahead.on_disk(&self.spill_dir, self.file.read(bytes)).await {
                Some(Ok(piece)) => self.ahead.lock().push(piece),
                Some(Err(error)) => {
                    let ended = "an answer that was in it has ended with an error (Internal)";
                    self.spill_dir.log_failure(&error, ended);
                    let text = format!(
                        "the answer that was spilled for this client cannot be read back: {error}; \
                                        retry"
                    );
                    self.ahead.lock().stop(Status::internal(text));
                    return false;
                }
                None => return false,
            }
        }
        true
    }

    /// How many bytes to bring back now, for which memory is taken. Without memory a client that has nothing gets one piece:
    /// as many clients as there are files would take far more than there may be.
    fn wanted(&self) -> Option<usize> {
        let unread = usize::try_from(self.file.unread()).unwrap_or(usize::MAX);
        let mut core = self.ahead.lock();
        if unread == 0 || core.queued >= LOW {
            return None;
        }
        let block = unread.min(spill::BLOCK);
        if core.delivery.share.reserve(block) {
            return Some(block);
        }
        let piece = unread.min(PIECE);
        core.queue
            .is_empty()
            .then(|| core.delivery.share.reserve_anyway(piece))?;
        Some(piece)
    }

    /// The file is empty: what was gathered goes straight to the queue.
    fn finish(&mut self, has_more: bool) -> bool {
        let mut core = self.ahead.lock();
        for piece in self.gathered.drain(..) {
            core.push(piece);
        }
        core.is_spilled = false;
        core.wake();
        has_more
    }
}

impl ReadAhead {
    fn client_state(&self) -> ClientState {
        let core = self.lock();
        if !core.is_open() && core.out.is_empty() && core.queue.is_empty() && !core.is_spilled {
            return ClientState::Over;
        }
        let Some(idle_since) = core.idle_since else {
            return ClientState::KeepsUp;
        };
        let idle = idle_since.elapsed();
        if idle >= CLIENT_STALL {
            return ClientState::Stalled;
        }
        let lags = idle >= CHECK_EVERY || core.waited >= A_LITTLE_AT_A_TIME;
        match core.is_open() && lags {
            true => ClientState::Lags,
            false => ClientState::KeepsUp,
        }
    }

    /// A piece for the queue, whose memory is taken.
    fn poll_ahead(&self, cx: &mut Context<'_>) -> Poll<Step> {
        let mut core = self.lock();
        if core.client.is_some() && core.queue.is_empty() {
            // It has to poll by itself: its last poll may have been replaced by one from here.
            core.wake();
            return Poll::Ready(Step::CaughtUp);
        }
        // What is left in `out`, or to be made, the client takes after the queue.
        if !core.holds_prometheus() {
            return Poll::Ready(Step::Over);
        }
        if !core.delivery.share.reserve(PIECE) {
            return Poll::Ready(Step::Full);
        }
        let step = core.poll_piece(cx);
        match &step {
            Poll::Ready(Step::Piece(piece)) if piece.len() > PIECE => {
                core.delivery.share.reserve_anyway(piece.len() - PIECE)
            }
            Poll::Ready(Step::Piece(piece)) => core.delivery.share.release(PIECE - piece.len()),
            _ => core.delivery.share.release(PIECE),
        }
        step
    }

    /// A piece for the file.
    fn poll_gather(&self, cx: &mut Context<'_>) -> Poll<Step> {
        self.lock().poll_piece(cx)
    }

    /// Lets Prometheus wait for the client, or for memory; whether the call goes on.
    async fn wait(&self, spill_dir: Option<&SpillDir>) -> bool {
        let patience = {
            let mut core = self.lock();
            core.start_waiting();
            let patience = core.patience_left();
            if patience.is_zero() {
                core.end_overdue(spill_dir);
                return false;
            }
            patience
        };
        // Another call may have given memory back.
        let _ = timeout(patience.min(TICK), self.taken.notified()).await;
        true
    }

    /// Waits for an operation in the directory of `--store.spill-dir`; `None` once that has ended the call.
    async fn on_disk<T>(&self, spill_dir: &SpillDir, operation: impl Future<Output = T>) -> Option<T> {
        let waited = self.lock().waited();
        let done = timeout(DISK_LIMIT, operation).await;
        let mut core = self.lock();
        let Ok(done) = done else {
            core.end_without_disk(spill_dir);
            return None;
        };
        let waited = core.waited().saturating_sub(waited);
        core.waited_for_disk += waited;
        if core.may_wait_for_disk() {
            return Some(done);
        }
        core.end_overdue(Some(spill_dir));
        None
    }

    /// For how long the client may still read nothing.
    fn until_stalled(&self) -> Duration {
        let idle = self.lock().idle_since.map_or(Duration::ZERO, |since| since.elapsed());
        CLIENT_STALL.saturating_sub(idle)
    }

    fn is_stalled(&self) -> bool {
        matches!(self.client_state(), ClientState::Stalled)
    }
}

impl Core {
    /// Whether Prometheus does not wait, or may wait for the disk, too.
    fn may_wait_for_disk(&self) -> bool {
        let patience = self.delivery.patience.max(DISK_LIMIT);
        self.waiting_since.is_none() || self.waited() < patience
    }

    /// The next piece of Prometheus' answer. A panic ends it: the result of the task that reads ahead is ignored, and what is
    /// read after a panic would be an answer with a hole.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.is_open() {
            match catch_unwind(AssertUnwindSafe(|| self.fill(cx))) {
                Ok(filled) => std::task::ready!(filled),
                Err(panic) => {
                    self.out.clear();
                    self.finish(Status::internal(panic_text(&*panic)));
                    self.wake();
                }
            }
        }
        if self.out.is_empty() {
            return Poll::Ready(Step::Over);
        }
        let step = Step::Piece(self.take_piece());
        self.start_waiting();
        Poll::Ready(step)
    }

    /// A piece waits for the client.
    fn push(&mut self, piece: Bytes) {
        self.queued += piece.len();
        self.queue.push_back(piece);
        self.wake();
    }
}
