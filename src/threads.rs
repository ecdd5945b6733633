//! Work that blocks: off the threads of the runtime, and told to stop when nobody waits for it any more.
//!
//! **Panics** come out as an error value, whoever asks: one block on which a check panics must stop no other block, and
//! never the process. What the work held is dropped as the panic passes through.
//!
//! **Cancel.** Dropping the future does not stop the work, which a thread cannot be made to: whoever gives it a flag of
//! [`StopOnDrop`] has it stop at its next look at the flag. Nothing is kept; a crash leaves nothing behind.

use std::{
    any::Any,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Semaphore;

/// Work that did not come to its end, and why.
#[derive(Debug, thiserror::Error)]
#[error("the work ended without a result, which is a bug in narthex: {0}")]
pub struct Lost(String);

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
    done.map_err(|error| {
        Lost(match error.try_into_panic() {
            Ok(panic) => format!("it panicked: {}", panic_message(&*panic)),
            Err(error) => error.to_string(),
        })
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
#[derive(Clone, Debug)]
pub struct BlockingPool(Arc<Semaphore>);

impl BlockingPool {
    /// At most `slots` pieces of work at once; others wait, first come, first served.
    pub fn new(slots: usize) -> Self {
        Self(Arc::new(Semaphore::new(slots)))
    }

    /// As [`blocking`], when a slot is free. A future that is dropped leaves the queue; work that runs keeps its slot.
    ///
    /// # Errors
    /// As [`blocking`].
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
        // It is never closed, so that an error cannot be.
        let slot = Arc::clone(&self.0).acquire_owned().await.ok();
        blocking(move || {
            let _slot = slot;
            work()
        })
        .await
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

    #[test]
    fn the_flag_is_set_when_nobody_waits_any_more() {
        let stop = StopOnDrop::default();
        let flag = stop.flag();
        assert!(!flag.load(Ordering::Relaxed));
        drop(stop);
        assert!(flag.load(Ordering::Relaxed));
    }
}
