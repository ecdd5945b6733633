//! Events of the files that Prometheus loads, from the kernel's file watch.
//!
//! An event only makes the next look come at once; the look at an interval is the truth. So nothing is lost where a
//! watch cannot be set (network file systems, too many watches) or overflows. Watches are set anew before each look:
//! what was replaced under its name is watched under it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{inputs::Interest, metrics::Metrics};

/// A change is over once so long nothing more was seen: who writes a file in place does so in several steps.
const QUIET: Duration = Duration::from_millis(250);

/// Where changes do not end, they are waited for no longer than this.
const LONGEST: Duration = Duration::from_secs(5);

/// Not more watches than this.
const MOST_WATCHES: usize = 4096;

/// The watches of one reloader.
#[derive(Debug)]
pub(super) struct Watcher {
    kernel: Option<RecommendedWatcher>,
    /// What is watched under each path.
    set: BTreeMap<PathBuf, Identity>,
    shared: Arc<Shared>,
    metrics: Metrics,
    /// What was complained of last.
    complaint: Option<String>,
}

/// A file or directory, whatever its name.
type Identity = (u64, u64, Option<SystemTime>);

#[derive(Debug)]
struct Shared {
    interest: Mutex<Interest>,
    /// How many events were seen that matter.
    seen: watch::Sender<u64>,
    events: Counter,
    errors: Counter,
}

/// Where the events of a [`Watcher`] come out.
#[derive(Debug)]
pub(super) struct Events(watch::Receiver<u64>);

impl Watcher {
    /// No watches yet, and where their events come out.
    pub(super) fn new(metrics: &Metrics) -> (Self, Events) {
        let (seen, events) = watch::channel(0);
        let shared = Arc::new(Shared {
            interest: Mutex::default(),
            seen,
            events: metrics.watch_events.clone(),
            errors: metrics.watch_errors.clone(),
        });
        let watcher = Self {
            kernel: None,
            set: BTreeMap::new(),
            shared,
            metrics: metrics.clone(),
            complaint: None,
        };
        (watcher, Events(events))
    }

    /// Watches what `interest` names, and nothing else. Whether all of it was watched already.
    pub(super) fn watch(&mut self, interest: &Interest) -> bool {
        let same = {
            let mut now = self.shared.interest.lock().unwrap_or_else(PoisonError::into_inner);
            let same = *now == *interest;
            *now = interest.clone();
            same
        };
        let wanted = wanted(interest);
        let changed = self.drop_others(&wanted);
        let mut complaint = None;
        let mut added = false;
        for path in wanted {
            if self.set.len() >= MOST_WATCHES {
                complaint = Some(format!("more than {MOST_WATCHES} directories and files"));
                break;
            }
            // What is not there is waited for in the directory above.
            let Some(identity) = identity(&path).filter(|_| !self.set.contains_key(&path)) else {
                continue;
            };
            match self.add(&path) {
                Ok(()) => {
                    self.set.insert(path, identity);
                    added = true;
                }
                Err(error) => {
                    self.shared.errors.inc();
                    complaint = Some(explain(&path, &error));
                }
            }
        }
        self.metrics
            .watches
            .set(i64::try_from(self.set.len()).unwrap_or(i64::MAX));
        self.complain(complaint);
        same && !changed && !added
    }

    /// Drops the watches on what is not wanted or has been replaced; whether there were any.
    fn drop_others(&mut self, wanted: &BTreeSet<PathBuf>) -> bool {
        let stale: Vec<PathBuf> = self
            .set
            .iter()
            .filter(|(path, watched)| !wanted.contains(*path) || identity(path).as_ref() != Some(*watched))
            .map(|(path, _)| path.clone())
            .collect();
        for path in &stale {
            self.set.remove(path);
            // The kernel has dropped it already where the file is gone.
            let _ = self.kernel.as_mut().map(|kernel| kernel.unwatch(path));
        }
        !stale.is_empty()
    }

    fn add(&mut self, path: &Path) -> notify::Result<()> {
        let kernel = match &mut self.kernel {
            Some(kernel) => kernel,
            none => {
                let shared = Arc::clone(&self.shared);
                none.insert(notify::recommended_watcher(move |event: notify::Result<Event>| {
                    shared.take(event);
                })?)
            }
        };
        kernel.watch(path, RecursiveMode::NonRecursive)
    }

    fn complain(&mut self, complaint: Option<String>) {
        if let Some(problem) = complaint.as_ref().filter(|_| complaint != self.complaint) {
            tracing::warn!(
                problem,
                "cannot watch all files of --reloader.config-file and --reloader.rule-dir; changes of the others are found every --reloader.watch-interval"
            );
        }
        self.complaint = complaint;
    }
}

impl Shared {
    fn take(&self, event: notify::Result<Event>) {
        let matters = match &event {
            Ok(event) if event.need_rescan() => true,
            Ok(event) => {
                let interest = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
                is_change(event.kind) && event.paths.iter().any(|path| interest.covers(path))
            }
            Err(_) => {
                self.errors.inc();
                true
            }
        };
        if matters {
            self.events.inc();
            self.seen.send_modify(|seen| *seen += 1);
        }
    }
}

impl Interest {
    fn covers(&self, path: &Path) -> bool {
        if self.ours.contains(path) {
            return false;
        }
        self.names.contains(path)
            || self.files.contains(path)
            || self.dirs.contains(path)
            || path.parent().is_some_and(|parent| self.dirs.contains(parent))
    }
}

impl Events {
    /// Forgets the events so far: what they told of is looked at from now on.
    pub(super) fn mark(&mut self) {
        self.0.mark_unchanged();
    }

    /// Whether there was an event since the last mark.
    pub(super) fn is_any(&self) -> bool {
        self.0.has_changed().unwrap_or(false)
    }

    /// Waits for an event since the last mark and then for the end of the change, in all for at most `limit` and a little
    /// more.
    pub(super) async fn settled(&mut self, limit: Duration) {
        if timeout(limit, self.next()).await.is_err() {
            return;
        }
        let end = Instant::now() + LONGEST;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || timeout(QUIET.min(left), self.next()).await.is_err() {
                return;
            }
        }
    }

    async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The directories and files to watch.
fn wanted(interest: &Interest) -> BTreeSet<PathBuf> {
    let above = interest.names.iter().filter_map(|name| name.parent());
    let others = interest.dirs.iter().chain(&interest.files);
    above.map(Path::to_owned).chain(others.cloned()).collect()
}

fn identity(path: &Path) -> Option<Identity> {
    let found = fs_err::metadata(path).ok()?;
    // A number of an inode is given anew once its file is gone.
    Some((found.dev(), found.ino(), found.created().ok()))
}

/// Whether an event is more than that a file was opened or read, as we do ourselves.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
}

fn explain(path: &Path, error: &notify::Error) -> String {
    let hint = match error.kind {
        notify::ErrorKind::MaxFilesWatch => ": raise the kernel's fs.inotify.max_user_watches",
        notify::ErrorKind::Io(ref io) if io.raw_os_error() == Some(libc::EMFILE) => {
            ": raise the kernel's fs.inotify.max_user_instances, or the limit of open files"
        }
        _ => "",
    };
    format!("{}: {}{hint}", path.display(), error)
}

#[cfg(test)]
mod tests {
    use fs_err as fs;
    use prometheus_client::registry::Registry;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    fn watcher() -> (Watcher, Events) {
        Watcher::new(&Metrics::register(&mut Registry::default()))
    }

    /// Without the millisecond by which timers are late.
    fn rounded(time: Duration) -> Duration {
        Duration::from_millis(u64::try_from(time.as_millis() / 10 * 10).unwrap())
    }

    async fn event(events: &mut Events) {
        timeout(SOON, events.next()).await.expect("an event comes");
    }

    #[tokio::test]
    async fn a_name_is_watched_also_while_nothing_bears_it_and_others_beside_it_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let (mut watcher, mut events) = watcher();
        let name = root.join("a.yml");
        let interest = Interest {
            names: [name.clone()].into(),
            ..Interest::default()
        };
        assert!(!watcher.watch(&interest));
        assert!(watcher.watch(&interest), "all is watched");
        fs::write(root.join("b.yml"), "x").unwrap();
        fs::rename(root.join("b.yml"), root.join("c.yml")).unwrap();
        fs::write(&name, "x").unwrap();
        event(&mut events).await;
        // Only those of the one name: it is created, written and closed.
        assert!(watcher.shared.events.get() <= 4, "{:?}", watcher.shared.events);
        events.settled(QUIET).await;
        fs::read(&name).unwrap();
        fs::rename(&name, root.join("d.yml")).unwrap();
        event(&mut events).await;
    }

    #[tokio::test]
    async fn what_is_replaced_is_watched_under_its_name_and_what_is_not_wanted_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let rules = root.join("rules");
        fs::create_dir(&rules).unwrap();
        let (mut watcher, mut events) = watcher();
        let interest = Interest {
            names: [rules.clone()].into(),
            dirs: [rules.clone()].into(),
            ..Interest::default()
        };
        watcher.watch(&interest);
        assert_eq!(watcher.metrics.watches.get(), 2);
        for round in 0..3 {
            fs::rename(&rules, root.join(format!("old-{round}"))).unwrap();
            fs::create_dir(&rules).unwrap();
            event(&mut events).await;
            assert!(!watcher.watch(&interest), "there is something new to watch");
            events.settled(QUIET).await;
            fs::write(rules.join("a.yml"), "x").unwrap();
            event(&mut events).await;
        }
        watcher.watch(&Interest::default());
        assert_eq!(watcher.metrics.watches.get(), 0);
    }

    #[tokio::test]
    async fn a_change_is_over_once_it_is_quiet_or_has_lasted_long() {
        tokio::time::pause();
        let (watcher, mut events) = watcher();
        let began = Instant::now();
        events.settled(SOON).await;
        assert_eq!(rounded(began.elapsed()), SOON, "nothing happened");
        let seen = &watcher.shared.seen;
        seen.send_modify(|seen| *seen += 1);
        let began = Instant::now();
        events.settled(SOON).await;
        assert_eq!(rounded(began.elapsed()), QUIET);
        let often = async {
            loop {
                seen.send_modify(|seen| *seen += 1);
                tokio::time::sleep(QUIET / 2).await;
            }
        };
        let began = Instant::now();
        tokio::select! {
            () = events.settled(SOON) => {}
            () = often => {}
        }
        assert_eq!(rounded(began.elapsed()), LONGEST);
        seen.send_modify(|seen| *seen += 1);
        assert!(events.is_any());
        events.mark();
        assert!(!events.is_any());
    }
}
