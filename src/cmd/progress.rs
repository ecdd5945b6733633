//! How far a transfer is: one line that is redrawn when a person watches, a line of the log now and then otherwise.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};

use super::output;

/// How often a person sees something new.
const REDRAW: Duration = Duration::from_millis(500);
/// How often the log gets a line.
const LOG: Duration = Duration::from_secs(10);

/// Tells of a transfer until it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    task: JoinHandle<()>,
    /// Whether the line may still be drawn.
    drawn: Arc<Mutex<bool>>,
    terminal: bool,
}

impl Progress {
    /// Begins to tell: of `total` bytes, which may become known later, `counter` says how many have moved since it was
    /// given. `what` is done with them, such as `restoring`.
    pub(super) fn start(
        total: impl Fn() -> u64 + Send + 'static,
        counter: impl Fn() -> u64 + Send + 'static,
        what: &'static str,
    ) -> Self {
        let terminal = io::stderr().is_terminal();
        let drawn = Arc::new(Mutex::new(true));
        let may_draw = Arc::clone(&drawn);
        let task = tokio::spawn(async move {
            let begun = Instant::now();
            let mut ticks = tokio::time::interval(if terminal { REDRAW } else { LOG });
            ticks.tick().await;
            loop {
                ticks.tick().await;
                let text = line(counter(), total(), begun.elapsed());
                let drawing = may_draw.lock().unwrap_or_else(PoisonError::into_inner);
                if !*drawing {
                    return;
                }
                if terminal {
                    // The cursor goes back, so that a line of the log takes the place. Nobody can be told of an error.
                    let _ = write!(io::stderr(), "\r\x1b[K{what}: {text}\r");
                } else {
                    tracing::info!(progress = text, "{what}");
                }
            }
        });
        Self { task, drawn, terminal }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        *self.drawn.lock().unwrap_or_else(PoisonError::into_inner) = false;
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// What moved, how fast, and how long the rest takes at that pace. A second attempt moves bytes again, so that there may
/// be more of them than there are to move.
fn line(moved: u64, total: u64, elapsed: Duration) -> String {
    let moved = moved.min(total);
    let rate = moved as f64 / elapsed.as_secs_f64().max(0.001);
    let percent = moved * 100 / total.max(1);
    let (there, all, pace) = (
        output::byte_size(moved),
        output::byte_size(total),
        output::byte_size(rate as u64),
    );
    let rest = match rate as u64 {
        0 => "?".to_owned(),
        _ => duration((total - moved) as f64 / rate),
    };
    format!("{there} of {all} ({percent} %), {pace}/s, {rest} left")
}

fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {} s", seconds % 60),
        _ => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_rate_and_rest() {
        let table = [
            (0, 0, "0 B of 1.0 GiB (0 %), 0 B/s, ? left"),
            (512 << 20, 8, "512.0 MiB of 1.0 GiB (50 %), 64.0 MiB/s, 8 s left"),
            (1 << 20, 1, "1.0 MiB of 1.0 GiB (0 %), 1.0 MiB/s, 17 min 3 s left"),
            (1 << 20, 60, "1.0 MiB of 1.0 GiB (0 %), 17.1 KiB/s, 17 h 3 min left"),
            (2 << 30, 10, "1.0 GiB of 1.0 GiB (100 %), 102.4 MiB/s, 0 s left"),
        ];
        for (moved, seconds, text) in table {
            assert_eq!(line(moved, 1 << 30, Duration::from_secs(seconds)), text);
        }
        assert_eq!(line(0, 0, Duration::ZERO), "0 B of 0 B (0 %), 0 B/s, ? left");
    }
}
