//! The write-ahead log.

use std::time::Duration;

use clap::Args;

use super::value;

/// The write-ahead log.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Write-ahead log")]
#[group(skip)]
pub struct Wal {
    /// How often what Prometheus appended to its write-ahead log is sent to the bucket as well; 0: never (narthex' own)
    ///
    /// With it, the samples of the last hours that are in no block yet survive the loss of the disk: `narthex restore --wal` brings
    /// them back. At 10s, some 260,000 objects in a month; a lifecycle rule of the bucket has to remove those below narthex-wal/
    /// after three days, for narthex deletes nothing.
    #[arg(long = "wal.interval", value_name = "duration", value_parser = value::wal_interval, default_value = "0s")]
    pub interval: Duration,
}

impl Wal {
    /// The time between two rounds, if the log is to be sent.
    pub fn interval(&self) -> Option<Duration> {
        (!self.interval.is_zero()).then_some(self.interval)
    }
}
