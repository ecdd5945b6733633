//! Work that blocks: off the threads of the runtime, and told to stop when nobody waits for it any more.
//!
//! **Panics** come out as an error value, whoever asks: one block on which a check panics must stop no other block, and
//! never the process. What the work held is dropped as the panic passes through.
//!
//! **Cancel.** Dropping the future does not stop the work, which a thread cannot be made to: whoever gives it a flag of
//! [`StopOnDrop`] has it stop at its next look at the flag. Nothing is kept; a crash leaves nothing behind.

use std::{
    any::Any,
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::oneshot;

/// Work that did not come to its end, and why.
#[derive(Debug, thiserror::Error)]
#[error("the work ended without a result, which is a bug in narthex: {0}")]
pub struct Lost(String);

impl Lost {
    fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self(format!("it panicked: {}", panic_message(panic)))
    }
}

impl From<Lost> for io::Error {
    fn from(lost: Lost) -> Self {
        Self::other(lost)
    }
}

/// Runs `work` on a thread that may block.
///
/// # Errors
/// It panicked, or the runtime ends.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| match error.try_into_panic() {
        Ok(panic) => Lost::panicked(&*panic),
        Err(error) => Lost(error.to_string()),
    })
}

/// As [`blocking`], for work that can fail by itself.
///
/// # Errors
/// Those of the work, and as for [`blocking`].
pub async fn blocking_io<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    blocking(work).await?
}

/// A few threads for work that blocks or uses the CPU: more would only take it from Prometheus. Clones share them.
///
/// A thread that is done goes on with the next piece by itself: handing each to a thread of its own would cost more than a small
/// piece.
#[derive(Clone, Debug)]
pub struct BlockingPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    slots: usize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Each with its number, which grows.
    jobs: VecDeque<(u64, Job)>,
    next: u64,
    /// Threads that run, or are about to.
    threads: usize,
}

type Job = Box<dyn FnOnce() + Send>;

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl BlockingPool {
    /// At most `slots` pieces of work at once; others wait, first come, first served.
    pub fn new(slots: usize) -> Self {
        let queue = Mutex::default();
        Self(Arc::new(Pool { slots, queue }))
    }

    /// As [`blocking`], when a slot is free. A future that is dropped leaves the queue; work that has a slot is done all the same.
    ///
    /// # Errors
    /// As [`blocking`].
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
        let (to, done) = oneshot::channel();
        let job = Box::new(move || {
            let done = catch_unwind(AssertUnwindSafe(work));
            // Nobody waits any more, otherwise.
            let _ = to.send(done.map_err(|panic| Lost::panicked(&*panic)));
        });
        let (number, thread) = self.0.push(job);
        let pool = &self.0;
        let _leave = Leave { pool, number };
        // Only now: where the system has no thread to give this panics.
        if let Some(thread) = thread {
            tokio::task::spawn_blocking(move || thread.run());
        }
        match done.await {
            Ok(done) => done,
            Err(_) => Err(Lost("the runtime ends".to_owned())),
        }
    }
}

/// Takes a job that does not run yet out of the queue.
struct Leave<'a> {
    pool: &'a Pool,
    number: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut queue = self.pool.lock();
        let at = queue.jobs.binary_search_by_key(&self.number, |(number, _)| *number);
        let job = at.ok().and_then(|at| queue.jobs.remove(at));
        drop(queue);
        drop(job);
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job in the queue. Returns its number, and the thread that there has to be for the first one in there.
    fn push(self: &Arc<Self>, job: Job) -> (u64, Option<Thread>) {
        let mut queue = self.lock();
        let number = queue.next;
        queue.next += 1;
        queue.jobs.push_back((number, job));
        if queue.threads == self.slots {
            return (number, None);
        }
        let Some((_, first)) = queue.jobs.pop_front() else {
            return (number, None);
        };
        queue.threads += 1;
        let thread = Thread {
            pool: Arc::clone(self),
            first: Some(first),
            is_over: false,
        };
        (number, Some(thread))
    }
}

/// A thread that works for the pool, or would if the runtime did not end.
struct Thread {
    pool: Arc<Pool>,
    /// It has its slot, so that nobody takes it back.
    first: Option<Job>,
    is_over: bool,
}

impl Thread {
    fn run(mut self) {
        if let Some(first) = self.first.take() {
            first();
        }
        loop {
            let mut queue = self.pool.lock();
            let Some((_, job)) = queue.jobs.pop_front() else {
                // Before anybody puts one in the queue who would rely on this thread.
                queue.threads -= 1;
                self.is_over = true;
                return;
            };
            drop(queue);
            job();
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut queue = self.pool.lock();
        queue.threads -= 1;
        // Nobody would do these.
        let left = match queue.threads {
            0 => std::mem::take(&mut queue.jobs),
            _ => VecDeque::new(),
        };
        drop(queue);
        drop(left);
    }
}

/// What a panic said.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

/// Sets a flag when it is dropped.
#[derive(Debug, Default)]
pub struct StopOnDrop(Arc<AtomicBool>);

impl StopOnDrop {
    /// The flag, for the work.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_comes_out_as_an_error_with_its_text() {
        assert_eq!(blocking(|| 7).await.unwrap(), 7);
        let error = blocking(|| -> u8 { panic!("of the {}", "block") }).await.unwrap_err();
        assert!(error.to_string().ends_with("it panicked: of the block"), "{error}");
        let error = blocking_io(|| -> io::Result<u8> { panic!("plain") }).await.unwrap_err();
        assert!(error.to_string().ends_with("it panicked: plain"), "{error}");
        let error = blocking_io(|| -> io::Result<u8> { Err(io::ErrorKind::StorageFull.into()) }).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[tokio::test]
    async fn a_pool_does_one_after_another_in_order_and_what_nobody_waits_for_not_at_all() {
        let pool = BlockingPool::new(1);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let done = Arc::new(Mutex::new(Vec::new()));
        let note = |number: i32| {
            let done = Arc::clone(&done);
            move || done.lock().unwrap().push(number)
        };
        let first = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || wait.recv().unwrap()).await }
        });
        let mut runs: Vec<_> = (0..5).map(|number| Box::pin(pool.run(note(number)))).collect();
        for run in &mut runs {
            assert!(futures_util::poll!(run).is_pending());
        }
        drop(runs.remove(3));
        let panics = pool.run(|| panic!("of the {}", "piece"));
        tokio::pin!(panics);
        assert!(futures_util::poll!(&mut panics).is_pending());
        let after = pool.run(note(9));
        tokio::pin!(after);
        assert!(futures_util::poll!(&mut after).is_pending());
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        after.await.unwrap();
        for run in runs {
            run.await.unwrap();
        }
        let error: Result<(), Lost> = panics.await;
        assert!(error.unwrap_err().to_string().ends_with("it panicked: of the piece"));
        assert_eq!(*done.lock().unwrap(), [0, 1, 2, 4, 9]);
    }

    #[test]
    fn what_is_left_when_its_runtime_ends_is_lost_and_the_pool_goes_on_elsewhere() {
        let pool = BlockingPool::new(1);
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ended = runtime();
        let handle = ended.handle().clone();
        ended.shutdown_background();
        let _inside = handle.enter();
        let lost = futures_util::FutureExt::now_or_never(pool.run(|| 7));
        assert!(lost.is_some_and(|lost| lost.is_err()));
        drop(_inside);
        assert_eq!(runtime().block_on(pool.run(|| 8)).unwrap(), 8);
    }

    #[test]
    fn the_flag_is_set_when_nobody_waits_any_more() {
        let stop = StopOnDrop::default();
        let flag = stop.flag();
        assert!(!flag.load(Ordering::Relaxed));
        drop(stop);
        assert!(flag.load(Ordering::Relaxed));
    }
}
