//! How far one request has come, and until when it must have come further.
//!
//! Whatever moves the body tells [`Progress`]; whoever runs the request (`stall_timeout`) asks it for the next deadline. A
//! stalled request ends with [`Stall`].

use std::{error::Error as StdError, fmt, sync::Mutex, time::Duration};

use tokio::time::Instant;

/// What the kernel and proxies on the way may still hold when the transport has taken the last byte.
const IN_FLIGHT: u64 = 4 << 20;

/// The slowest connection, in bytes per second, for which that is taken into account when its real speed is unknown.
const ASSUMED_RATE: u64 = 128 << 10;

/// How long each stage of a request may take without progress.
#[derive(Clone, Copy, Debug)]
pub(in crate::objstore) struct Timeouts {
    /// Anything that moves bytes.
    pub(in crate::objstore) stall: Duration,
    /// Until the first byte of the body is taken: dialling, and the TLS handshake.
    pub(in crate::objstore) connecting: Duration,
    /// The head of the answer.
    pub(in crate::objstore) answer: Duration,
    /// The head of the answer to what puts parts together.
    pub(in crate::objstore) completion: Duration,
}

/// Nothing moved for too long.
#[derive(Debug)]
pub(in crate::objstore) struct Stall {
    pub(in crate::objstore) doing: &'static str,
    pub(in crate::objstore) waited: Duration,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no progress for {:?} while {}", self.waited, self.doing)
    }
}

impl StdError for Stall {}

/// How far one request has come.
#[derive(Debug)]
pub(in crate::objstore) struct Progress(Mutex<Taken>);

#[derive(Clone, Copy, Debug)]
struct Taken {
    bytes: u64,
    start: Instant,
    last: Instant,
}

impl Progress {
    pub(in crate::objstore) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(Taken {
            bytes: 0,
            start: now,
            last: now,
        }))
    }

    pub(in crate::objstore) fn took(&self, bytes: u64) {
        let mut taken = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        taken.bytes += bytes;
        taken.last = Instant::now();
    }

    /// The body itself lets nothing pass until then: no stall of the transport.
    pub(in crate::objstore) fn wait_until(&self, then: Instant) {
        let mut taken = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        taken.last = taken.last.max(then);
    }

    /// When the request is taken for stalled if nothing moves until then, how long that is, and what it is waiting for.
    pub(in crate::objstore) fn deadline(&self, total: u64, timeouts: Timeouts) -> (Instant, Duration, &'static str) {
        let taken = *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if total > 0 && taken.bytes < total {
            let (limit, doing) = if taken.bytes == 0 {
                (timeouts.connecting, "connecting")
            } else {
                (timeouts.stall, "sending the body")
            };
            return (taken.last + limit, limit, doing);
        }
        let (limit, doing) = if total == 0 {
            let limit = timeouts.connecting.max(timeouts.answer);
            (limit, "connecting or waiting for the answer")
        } else {
            let drained = drain_time(total, taken.last.duration_since(taken.start));
            (timeouts.answer + drained, "waiting for the answer")
        };
        (taken.last + limit, limit, doing)
    }
}

/// How long bytes that the transport has taken may still be on their way, when `total` bytes were taken within
/// `elapsed`: a slow connection behind a large buffer must not be cut for its silence.
fn drain_time(total: u64, elapsed: Duration) -> Duration {
    let buffered = total.min(IN_FLIGHT);
    let assumed = Duration::from_millis(buffered * 1000 / ASSUMED_RATE);
    if total < 2 * IN_FLIGHT {
        return assumed;
    }
    // The first bytes vanish into the buffer at once; what came after them shows the real speed.
    let measured = elapsed.mul_f64(buffered as f64 / (total - IN_FLIGHT) as f64);
    assumed.max(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_buffered_gets_time_to_drain() {
        const MIB: u64 = 1 << 20;
        let secs = Duration::from_secs;
        for (total, elapsed, expected, why) in [
            (0, secs(0), secs(0), "nothing was sent"),
            (128 << 10, secs(0), secs(1), "a small body, at the assumed rate"),
            (4 * MIB, secs(0), secs(32), "all of it may sit in buffers"),
            (64 * MIB, secs(1), secs(32), "fast: the assumed rate is the longer"),
            (
                16 * MIB,
                secs(1200),
                secs(400),
                "12 MiB took 20 minutes, so 4 MiB take a third of that",
            ),
        ] {
            assert_eq!(drain_time(total, elapsed), expected, "{why}");
        }
    }
}
