//! The task that keeps the row of blocks as it is on disk and as Prometheus has it: it lists the directory when a call finds it
//! changed and with each heartbeat, and holds what Prometheus tells against it.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    confirmed::{Confirmed, Evidence},
    directory::{Directory, DirectoryListing},
    out_of_order::{OutOfOrder, Wbl},
    reason::Reason,
    row::{Doubt, Row},
    service::{Inner, Sealed, State},
};
use crate::{prometheus::Snapshot, threads::blocking_io, tsdb::FileVersion};

/// A directory that changes is listed again after so long.
const AGAIN: Duration = Duration::from_millis(30);
/// Between two looks at whether the directory has changed when nobody asks.
const IDLE: Duration = Duration::from_secs(5);
/// How soon Prometheus is asked whether it has loaded what has come; twice as long each time until it has.
const NEWS: Duration = Duration::from_secs(1);

/// Looks at the directory and at the heartbeats.
#[derive(Debug)]
pub struct Looker {
    sealed: Sealed,
    snapshots: watch::Receiver<Snapshot>,
    answered: watch::Receiver<Option<Instant>>,
    trigger: Arc<Notify>,
    directory: Option<Directory>,
    confirmed: Confirmed,
    listing: Option<DirectoryListing>,
    /// The last heartbeat that was taken in.
    last: Option<Snapshot>,
    /// A heartbeat has failed since.
    was_down: bool,
    out_of_order: Option<OutOfOrder>,
    /// Why the directory cannot be listed, as it was logged last.
    failure: Option<String>,
    /// Prometheus is asked for news then, and again after that pause, as long as there is something that it has not confirmed.
    next_news: (Instant, Duration),
}

/// What one look at the disk found.
struct Look {
    directory: Directory,
    listing: io::Result<Option<DirectoryListing>>,
    wbl: Option<Wbl>,
    version: Option<FileVersion>,
}

impl Looker {
    /// Keeps `sealed` as the disk and the heartbeats say, of which `answered` tells, and of which `trigger` begins one more.
    pub fn new(
        sealed: Sealed,
        snapshots: watch::Receiver<Snapshot>,
        answered: watch::Receiver<Option<Instant>>,
        trigger: Arc<Notify>,
    ) -> Self {
        let directory = Directory::new(sealed.inner().data_dir.clone());
        Self {
            sealed,
            snapshots,
            answered,
            trigger,
            directory: Some(directory),
            confirmed: Confirmed::default(),
            listing: None,
            last: None,
            was_down: false,
            out_of_order: None,
            failure: None,
            next_news: (Instant::now(), NEWS),
        }
    }

    /// Runs until `token` is cancelled. A disk that hangs makes it wait; meanwhile calls find the directory changed, or as it
    /// was.
    pub async fn run(mut self, token: CancellationToken) {
        let inner = Arc::clone(self.sealed.inner());
        loop {
            let is_settled = tokio::select! {
                () = token.cancelled() => return,
                is_settled = self.look(&inner) => is_settled,
            };
            let pause = match is_settled {
                true => self.ask_for_news(&inner).min(IDLE),
                false => AGAIN,
            };
            let woken = async {
                tokio::select! {
                    () = inner.wake.notified() => {}
                    Ok(()) = self.answered.changed() => {}
                }
            };
            tokio::select! {
                () = token.cancelled() => return,
                // Calls may wake it again and again, and listing takes the disk's time.
                _ = timeout(pause, woken) => sleep(AGAIN).await,
            }
        }
    }

    /// Has Prometheus asked once more if it may confirm what is not confirmed; returns how long to wait until that is looked at
    /// again.
    fn ask_for_news(&mut self, inner: &Inner) -> Duration {
        let state = inner.state.load();
        let is_open = |doubt: &Doubt| matches!(doubt.reason, Reason::Arriving | Reason::Differs | Reason::Unknown);
        if !state
            .as_ref()
            .is_some_and(|state| state.row.doubts().iter().any(is_open))
        {
            return IDLE;
        }
        let (at, pause) = self.next_news;
        let now = Instant::now();
        if now < at {
            return at - now;
        }
        self.trigger.notify_one();
        self.next_news = (now + pause, 2 * pause);
        pause
    }

    /// Looks once; whether the directory had settled.
    pub(super) async fn look(&mut self, inner: &Arc<Inner>) -> bool {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let Some(mut directory) = self.directory.take() else {
            return true;
        };
        let has_changed = inner.has_changed.swap(false, Ordering::Relaxed);
        let known = self.listing.as_ref().map(|listed| listed.version);
        let known = known.filter(|_| !has_changed);
        let looked = blocking_io(move || {
            let wbl = directory.wbl();
            let version = directory.version().ok();
            // What was listed and has not changed since need not be listed anew, and is older, which proves more.
            let listing = match version.is_some() && version == known {
                true => Ok(None),
                false => directory.list(),
            };
            Ok(Look {
                directory,
                listing,
                wbl,
                version,
            })
        })
        .await;
        let Ok(look) = looked else {
            self.directory = Some(Directory::new(inner.data_dir.clone()));
            inner.state.store(None);
            return true;
        };
        self.directory = Some(look.directory);
        let is_same = look.version.is_some() && look.version == known;
        self.log(inner, look.listing.as_ref().err());
        if !is_same {
            let is_first = self.last.is_none();
            self.listing = look.listing.ok().flatten();
            // Prometheus loads a block a moment after it has come.
            let wait = if is_first { Duration::ZERO } else { NEWS };
            self.next_news = (Instant::now() + wait, NEWS);
        }
        self.take_in(&snapshot, look.wbl, is_same);
        let is_settled = self.listing.is_some() || self.failure.is_some();
        inner.state.store(self.state(inner).map(Arc::new));
        is_settled
    }

    /// Takes in a heartbeat that was not seen before. The directory `is_same` if it was listed before this look and has not
    /// changed since.
    fn take_in(&mut self, snapshot: &Snapshot, wbl: Option<Wbl>, is_same: bool) {
        self.was_down |= !snapshot.up;
        let before = self.last.as_ref().and_then(|last| last.storage_asked_at);
        if snapshot.storage_asked_at == before {
            return;
        }
        let is_another = self.last.as_ref().is_some_and(|last| snapshot.is_of_another(last));
        if is_another || std::mem::take(&mut self.was_down) {
            self.confirmed.forget();
        }
        self.last = Some(snapshot.clone());
        let Some(evidence) = Evidence::of(snapshot) else {
            self.confirmed.forget();
            return;
        };
        let out_of_order = OutOfOrder {
            window_ms: snapshot.settings.out_of_order_window_ms,
            wbl,
        };
        let listing = self.listing.as_ref().filter(|_| is_same);
        self.confirmed
            .heartbeat(&evidence, &out_of_order, listing.map(|listed| &listed.listing));
        self.out_of_order = Some(out_of_order);
    }

    /// The state by what is known; `None` if the directory is not listed.
    fn state(&mut self, inner: &Inner) -> Option<State> {
        let mut listed = self.listing.clone()?;
        let mut damaged = inner.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let mut present = HashSet::new();
        for one in &mut listed.listing.blocks {
            one.facts.quarantined = damaged
                .get(&one.block.id)
                .is_some_and(|known| known.holds_for(&one.facts.files));
            present.extend(one.facts.quarantined.then_some(one.block.id));
        }
        damaged.retain(|id, _| present.contains(id));
        let row = Row::new(&listed.listing, &self.confirmed);
        let told = self.out_of_order.as_ref();
        Some(State {
            row,
            version: listed.version,
            listing: listed.listing,
            wbl_stays_empty: told.is_some_and(|told| told.window_ms == Some(0) && told.wbl == Some(Wbl::Empty)),
        })
    }

    /// Logs that the directory cannot be listed, once.
    fn log(&mut self, inner: &Inner, error: Option<&io::Error>) {
        let failure = error.map(ToString::to_string);
        if failure == self.failure {
            return;
        }
        match &failure {
            Some(failure) => tracing::warn!(
                dir = %inner.data_dir.display(),
                "the data directory cannot be listed, so Prometheus is asked for all: {failure}"
            ),
            None => tracing::info!(dir = %inner.data_dir.display(), "the data directory can be listed again"),
        }
        self.failure = failure;
    }
}
