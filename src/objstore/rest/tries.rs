//! How often a call is tried: what can heal, after a pause, until the tries are used up; with progress they begin anew.

use std::time::Duration;

use rand::RngExt as _;

use crate::objstore::{Error, ErrorKind};

/// The longest wait before the second try; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How many tries of one call may stall, or arrive damaged.
const STALLS: u32 = 2;

/// How many more requests one call may make.
#[derive(Debug)]
pub(in crate::objstore) struct Tries {
    left: u32,
    most: u32,
    stalls: u32,
    wait: Duration,
    /// Something came since the last failure.
    progressed: bool,
}

impl Tries {
    pub(in crate::objstore) fn new(most: u32) -> Self {
        Self {
            left: most,
            most,
            stalls: 0,
            wait: FIRST_WAIT,
            progressed: false,
        }
    }

    /// Something came: it begins anew, and the next failure does not count.
    pub(in crate::objstore) fn renew(&mut self) {
        *self = Self::new(self.most);
        self.progressed = true;
    }

    /// Waits before another try.
    ///
    /// # Errors
    /// The same error, if there is to be none.
    pub(in crate::objstore) async fn wait_for_another(&mut self, error: Error) -> Result<(), Error> {
        let counts = !std::mem::take(&mut self.progressed);
        if counts {
            self.left = self.left.saturating_sub(1);
        }
        if !error.kind.is_transient() || self.left == 0 {
            return Err(error);
        }
        if counts && matches!(error.kind, ErrorKind::Stalled | ErrorKind::Integrity) {
            self.stalls += 1;
            if self.stalls >= STALLS {
                return Err(error);
            }
        }
        tracing::debug!(%error, "request failed, retrying");
        if error.kind != ErrorKind::Stalled {
            let wait = rand::rng().random_range(0.0..1.0);
            tokio::time::sleep(self.wait.mul_f64(wait)).await;
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
        }
        Ok(())
    }
}
