//! When files that a server follows are looked at: not more often than once a second, by one thread at a time.
//!
//! Where the file system that they are on hangs, that one thread hangs with it: whoever waits for the look goes on after
//! [`LONGEST`] with what is in use, and nobody begins another look. Nothing is kept.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{task::spawn_blocking, time::timeout};

/// The shortest time between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// The longest that a look is waited for.
const LONGEST: Duration = Duration::from_secs(2);

/// Says when to look.
#[derive(Debug)]
pub(super) struct FileCheck {
    born: Instant,
    /// When the last look began, in ms since `born`.
    began_ms: AtomicU64,
    running: Arc<AtomicBool>,
}

/// Says that no look is under way, however it ended.
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl FileCheck {
    /// The files were looked at just now.
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            began_ms: AtomicU64::new(0),
            running: Arc::default(),
        }
    }

    /// Looks, on another thread, if it is time and nobody does already.
    pub(super) async fn run(&self, look: impl FnOnce() + Send + 'static) {
        let age = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        let began = self.began_ms.load(Ordering::Relaxed);
        if u128::from(age.saturating_sub(began)) < EVERY.as_millis() || self.running.swap(true, Ordering::Acquire) {
            return;
        }
        self.began_ms.store(age, Ordering::Relaxed);
        let ended = Ended(Arc::clone(&self.running));
        let looking = spawn_blocking(move || {
            let _ended = ended;
            look();
        });
        // An error means that the look panicked, which is logged, or that the process is about to end.
        let _ = timeout(LONGEST, looking).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{atomic::AtomicUsize, mpsc};

    use super::*;

    #[tokio::test]
    async fn one_look_at_a_time_and_one_that_hangs_holds_nobody() {
        let (looks, (release, hung)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel::<()>());
        let mut check = FileCheck::new();
        let look = |looks: &Arc<AtomicUsize>| {
            let looks = Arc::clone(looks);
            move || {
                looks.fetch_add(1, Ordering::SeqCst);
            }
        };
        check.run(look(&looks)).await;
        assert_eq!(looks.load(Ordering::SeqCst), 0, "it is too soon");
        let due = |check: &mut FileCheck| {
            check.born = Instant::now()
                .checked_sub(Duration::from_secs(10))
                .expect("it runs for longer");
            check.began_ms.store(0, Ordering::Relaxed);
        };
        due(&mut check);
        check.run(look(&looks)).await;
        check.run(look(&looks)).await;
        assert_eq!(looks.load(Ordering::SeqCst), 1, "not twice in a second");
        due(&mut check);
        let hanging = move || {
            let _ = hung.recv();
        };
        check.run(hanging).await;
        due(&mut check);
        check.run(look(&looks)).await;
        assert_eq!(looks.load(Ordering::SeqCst), 1, "one is under way");
        drop(release);
        while check.running.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        check.run(look(&looks)).await;
        assert_eq!(looks.load(Ordering::SeqCst), 2);
    }
}
