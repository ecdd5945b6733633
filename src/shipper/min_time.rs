//! From which time on queries have to be answered here (`--min-time=auto`): the bucket has what is older, by proof.
//!
//! **The time.** Let T be the time before which every sample of the local blocks is in the bucket: the end of the newest
//! durable block, but not after the start of a block that is open (not durable, set aside, held back), nor after the start of
//! the head, nor after the start of a block that the bucket does not prove to have. What is served begins a margin before T,
//! and by Prometheus' `out_of_order_time_window` earlier: so old a sample may still come, and stays in the head until it is
//! sealed. It does not begin after the start of a block that the bucket has for less than the margin either: after an
//! outage T leaps over a day within minutes, and a Store Gateway has yet to find these blocks. Blocks of out-of-order or stale
//! series do not move T: the head may hold other samples of their times.
//!
//! **Where anything is not known there is no limit**, and everything is served: a block whose times cannot be read, no
//! durable block, a Prometheus that was not asked, a bucket that was not looked at for [`EXPIRES`]. The time that is
//! published ends by itself, so that a pass that takes hours, or a shipper that has ended, leaves none behind.
//!
//! **Looking costs** one listing of the bucket's names in [`LOOK_EVERY`] (a request for each thousand blocks that are younger
//! than the oldest local one) and, for each local block before T, its `meta.json` and its objects once in
//! [`proofs::CHECK_EVERY`]; see `proofs` for those that a compactor has merged. At the first block that is not proven it
//! ends: younger ones make no difference. It happens between passes, one request after another, and ends at once when a
//! block is sealed, when Prometheus has news, and when commits wait or a failed pass is to be tried again. What was proven
//! until then is kept.
//!
//! **Crash, retry, cancel.** On disk is only how old samples of the head may be ([`super::out_of_order`]): a new process
//! serves everything until it has looked. A look that failed is
//! tried again after [`LOOK_AGAIN`].

mod proofs;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use self::proofs::Proofs;
use super::{Shipper, Skip, Verdict, changed, durability::Report, durability_metrics::View, ledger::now_ms};
use crate::{model::ServedFrom, tsdb::Block};

/// The time between two looks at the bucket. Who deletes by marks gives readers hours; what is removed without one is
/// missed for this long at most.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// The time after a look that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(120);
/// How long one look may take when nothing else is to be done.
const LOOK_TIME: Duration = Duration::from_secs(120);
/// How long what was found counts: three looks. A short outage changes nothing; after a longer one nobody knows, and a Store
/// Gateway may not reach the bucket either.
const EXPIRES: Duration = Duration::from_secs(1800);

/// What `--min-time=auto` asks for.
#[derive(Clone, Debug)]
pub struct AutoMinTime {
    /// How far what is served goes back beyond what the bucket is proven to have, and for how long it must have had a block.
    pub margin: Duration,
    /// From when on queries have to be answered; `None` while everything has to be served.
    pub served_from: watch::Sender<Option<ServedFrom>>,
}

/// A local block with samples.
#[derive(Clone, Debug)]
struct Known {
    /// Start and end of its samples (ms since 1970), half-open.
    range: (i64, i64),
    standing: Standing,
}

/// What is known of a local block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is not durable.
    Open,
    /// It was once.
    Durable {
        /// All samples of its time that were in the head are in it.
        has_all: bool,
        /// Since when (ms since 1970) the bucket has it; `None` if it is not proven to have it now.
        in_bucket_since: Option<i64>,
    },
}

/// What else the time depends on.
#[derive(Clone, Copy, Debug, Default)]
struct Circumstances {
    /// The time (ms since 1970).
    now: i64,
    /// How far what is served overlaps with what is proven (ms).
    margin: i64,
    /// How old a sample may be when it comes (ms).
    out_of_order_window: i64,
    /// The oldest time of the head (ms since 1970), if Prometheus tells.
    head_from: Option<i64>,
}

impl Circumstances {
    /// What is served when all before `time` is in the bucket.
    fn before(&self, time: i64) -> i64 {
        time.saturating_sub(self.margin)
            .saturating_sub(self.out_of_order_window)
    }

    /// The latest time from which on samples may be served, if the bucket has all blocks that were ever durable; `None` if
    /// there are none.
    fn latest(&self, blocks: &[Known]) -> Option<i64> {
        let (mut until, mut open) = (None, self.head_from.unwrap_or(i64::MAX).min(self.now));
        for block in blocks {
            match block.standing {
                Standing::Open => open = open.min(block.range.0),
                Standing::Durable { has_all: true, .. } if block.range.1 <= self.now => {
                    until = until.max(Some(block.range.1));
                }
                Standing::Durable { .. } => {}
            }
        }
        until.map(|until: i64| self.before(until.min(open)))
    }

    /// The first time that has to be served (ms since 1970); `None` if that is everything.
    fn served_from(&self, blocks: &[Known]) -> Option<i64> {
        let latest = self.latest(blocks)?;
        let settled = self.now.saturating_sub(self.margin);
        let mut from = latest;
        for Known {
            range: (start, _),
            standing,
        } in blocks
        {
            let Standing::Durable { in_bucket_since, .. } = standing else {
                continue;
            };
            if *start >= latest {
                continue;
            }
            from = from.min(match in_bucket_since {
                None => self.before(*start),
                Some(since) if *since > settled => *start,
                Some(_) => latest,
            });
        }
        Some(from)
    }
}

/// Why everything is served.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unknown {
    /// The data directory cannot be read, or a block in it.
    Unreadable,
    /// Prometheus has not told its configuration.
    Unasked,
    /// No block is durable.
    NothingDurable,
    /// The bucket was not looked at, or too long ago; the last failure.
    NotLooked(Option<String>),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str(
                "the data directory or a block in it cannot be read, so that nobody knows which times it holds",
            ),
            Self::Unasked => f.write_str("out_of_order_time_window of Prometheus' configuration is not known"),
            Self::NothingDurable => f.write_str("no local block is in the bucket"),
            Self::NotLooked(None) => write!(f, "the bucket was not looked at for {EXPIRES:?}"),
            Self::NotLooked(Some(why)) => write!(f, "the bucket could not be looked at for {EXPIRES:?}: {why}"),
        }
    }
}

/// What the last pass has shown.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// The local blocks with samples, by the start of their times, and whether they are durable.
    blocks: Vec<(Block, bool)>,
    unreadable: bool,
    head_from: Option<i64>,
}

/// Finds out from which time on queries have to be answered.
#[derive(Debug)]
pub(super) struct MinTime {
    settings: AutoMinTime,
    seen: Seen,
    /// How old samples of the head may be (ms); `None` until Prometheus has told.
    out_of_order_window: Option<i64>,
    proofs: Proofs,
    /// No look before this moment.
    next_look: Option<Instant>,
    last_failure: Option<String>,
    /// Why everything is served, as it was logged; `None` while that is not so.
    logged: Option<Unknown>,
}

impl MinTime {
    pub(super) fn new(settings: AutoMinTime) -> Self {
        Self {
            settings,
            seen: Seen::default(),
            out_of_order_window: None,
            proofs: Proofs::default(),
            next_look: None,
            last_failure: None,
            // Nobody expects a limit before the first look.
            logged: Some(Unknown::NotLooked(None)),
        }
    }

    fn circumstances(&self) -> Result<Circumstances, Unknown> {
        if self.seen.unreadable {
            return Err(Unknown::Unreadable);
        }
        Ok(Circumstances {
            now: now_ms(),
            margin: i64::try_from(self.settings.margin.as_millis()).unwrap_or(i64::MAX),
            out_of_order_window: self.out_of_order_window.ok_or(Unknown::Unasked)?,
            head_from: self.seen.head_from,
        })
    }

    fn known(&self) -> Vec<Known> {
        let blocks = self.seen.blocks.iter().map(|(block, durable)| Known {
            range: (block.meta.min_time, block.meta.max_time),
            standing: match durable {
                true => Standing::Durable {
                    has_all: block.meta.hints.is_empty(),
                    in_bucket_since: self.proofs.since(block.id),
                },
                false => Standing::Open,
            },
        });
        blocks.collect()
    }

    /// The durable blocks that must be proven to be in the bucket now, the oldest first; `None` if everything is served
    /// whatever the bucket has.
    fn to_prove(&self) -> Option<Vec<Block>> {
        let latest = self.circumstances().ok()?.latest(&self.known())?;
        let blocks = self.seen.blocks.iter();
        let blocks = blocks.filter(|(block, durable)| *durable && block.meta.min_time < latest);
        Some(blocks.map(|(block, _)| block.clone()).collect())
    }

    fn served_from(&self) -> Result<ServedFrom, Unknown> {
        let circumstances = self.circumstances()?;
        let time_ms = circumstances
            .served_from(&self.known())
            .ok_or(Unknown::NothingDurable)?;
        let looked = self.proofs.listed_at().map(|at| at + EXPIRES);
        match looked.filter(|until| Instant::now() < *until) {
            Some(known_until) => Ok(ServedFrom { time_ms, known_until }),
            None => Err(Unknown::NotLooked(self.last_failure.clone())),
        }
    }

    /// Tells what is known now to those who answer queries; the log, when it is something else than before.
    fn publish(&mut self) {
        match self.served_from() {
            Ok(served_from) => {
                self.settings.served_from.send_replace(Some(served_from));
                if self.logged.take().is_some() {
                    tracing::info!(
                        from = jiff::Timestamp::from_millisecond(served_from.time_ms).ok().map(tracing::field::display),
                        margin = ?self.settings.margin,
                        "--min-time=auto: queries are answered from this time on; the bucket is proven to have what is older"
                    );
                }
            }
            Err(unknown) => {
                self.settings.served_from.send_replace(None);
                if self.logged.is_none() {
                    tracing::info!(why = %unknown, "--min-time=auto: everything that Prometheus holds is served again");
                    self.logged = Some(unknown);
                }
            }
        }
    }

    fn is_time_to_look(&self) -> bool {
        self.next_look.is_none_or(|next| next <= Instant::now())
    }

    /// Takes in how a look ended that had begun at that moment.
    fn looked(&mut self, begun: Instant, failure: Option<String>) {
        if let Some(error) = &failure {
            tracing::debug!(
                error,
                "cannot find out whether the bucket still has the local blocks; retrying"
            );
        }
        self.next_look = Some(begun + if failure.is_none() { LOOK_EVERY } else { LOOK_AGAIN });
        self.last_failure = failure;
        self.publish();
    }
}

impl Shipper {
    /// Takes in what a pass has shown, and tells from which time on queries have to be answered.
    pub(super) fn update_min_time(&mut self, view: View<'_>, report: &Report, unreadable: bool) {
        self.keep_out_of_order_window(view, report);
        let Some(min_time) = &mut self.min_time else { return };
        let blocks = view.decisions.iter();
        let blocks = blocks.filter(|found| found.verdict != Verdict::Skip(Skip::Empty));
        let blocks = blocks.map(|found| (found.block.clone(), report.durable.contains(&found.block.id)));
        let prometheus = self.prometheus.borrow();
        min_time.seen = Seen {
            blocks: blocks.collect(),
            unreadable,
            head_from: prometheus.head_min_time_ms,
        };
        min_time.out_of_order_window = self.out_of_order.ms();
        drop(prometheus);
        min_time.publish();
    }

    /// Keeps how old samples of the head may be, whether or not anybody asks for it now.
    fn keep_out_of_order_window(&mut self, view: View<'_>, report: &Report) {
        let told = self.prometheus.borrow().out_of_order_window_ms;
        let blocks = view.scan.blocks.iter();
        let durable = blocks.filter(|block| report.durable.contains(&block.id));
        self.out_of_order.update(told, durable.map(|block| &*block.meta));
        if let Some(window) = self.out_of_order.ms() {
            self.ledger.out_of_order_window = Some(window);
        }
    }

    /// Says that the data directory cannot be read: nobody knows which blocks there are.
    pub(super) fn lose_sight_of_blocks(&mut self) {
        if let Some(min_time) = &mut self.min_time {
            min_time.seen = Seen {
                unreadable: true,
                ..Seen::default()
            };
            min_time.publish();
        }
    }

    /// Looks whether the bucket still has what it had, if `--min-time=auto` asks for it and it is time, between two passes
    /// of which the next is due after `wait`. Whether it is due at once, since there are news.
    pub(super) async fn look_at_bucket(&mut self, stop: &CancellationToken, wait: Duration) -> bool {
        let labels = self.labels().filter(|labels| !labels.is_empty());
        let min_time = self.min_time.as_mut().filter(|min_time| min_time.is_time_to_look());
        let (Some(min_time), Some(labels)) = (min_time, labels) else {
            return false;
        };
        let Some(blocks) = min_time.to_prove() else {
            return false;
        };
        let begun = Instant::now();
        let is_urgent = wait < self.settings.scan_interval;
        let look = min_time.proofs.look(self.uploader.bucket.as_ref(), &blocks, &labels);
        let looked = tokio::select! {
            () = stop.cancelled() => return true,
            hint = self.hints.recv() => {
                self.record_hints(hint);
                return true;
            }
            () = changed(&mut self.prometheus) => return true,
            looked = tokio::time::timeout(if is_urgent { wait } else { LOOK_TIME }, look) => looked,
        };
        let failure = match looked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            // It goes on after the next pass.
            Err(_) if is_urgent => return true,
            Err(_) => Some(format!("it took longer than {LOOK_TIME:?}")),
        };
        min_time.looked(begun, failure);
        false
    }
}
