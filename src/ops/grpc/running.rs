//! The running calls: what the server knows of each, for the service that answers it and for `/debug/calls`.
//!
//! A call is listed from its start until it has ended, however it ends, so that the list is as large as what runs: some
//! 200 bytes a call, and no more than [`PATH_MAX`] bytes of an unknown path. A call pays for it with two short locks;
//! what it sends, with a few atomic stores.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::time::Instant;
use tracing::info;

use super::metrics::Counted;

/// What is kept of a path that is not one of the methods that are counted, in bytes.
const PATH_MAX: usize = 100;
/// The stage of a call whose service has not reported another.
const BEGUN: &str = "begun";

/// A call, as its service may know it: among the extensions of its request. Clones are of the same call.
#[derive(Clone, Debug)]
pub struct Caller(Arc<CallState>);

#[derive(Debug)]
struct CallState {
    method: Name,
    peer: Option<SocketAddr>,
    begun: Instant,
    deadline: Option<Instant>,
    stage: Mutex<&'static str>,
    sent_bytes: AtomicU64,
    sent_messages: AtomicU64,
    /// When the client last took a part of the answer, in ms since `begun`.
    taken_ms: AtomicU64,
}

/// What is called.
#[derive(Debug)]
enum Name {
    Counted(Arc<Counted>),
    Path(Box<str>),
}

impl Name {
    fn new(path: &str, counted: Option<&Arc<Counted>>) -> Self {
        match counted {
            Some(counted) => Self::Counted(Arc::clone(counted)),
            // It comes from the client and is shown in a line.
            None => {
                let printable = path.chars().filter(|char| matches!(char, '!'..='~'));
                Self::Path(printable.take(PATH_MAX).collect::<String>().into())
            }
        }
    }
}

impl Caller {
    /// A call of an unknown client, without a deadline.
    pub fn unknown() -> Self {
        Self::of(Name::Path(Box::from("")), None, None)
    }

    fn of(method: Name, peer: Option<SocketAddr>, deadline: Option<Instant>) -> Self {
        Self(Arc::new(CallState {
            method,
            peer,
            begun: Instant::now(),
            deadline,
            stage: Mutex::new(BEGUN),
            sent_bytes: AtomicU64::new(0),
            sent_messages: AtomicU64::new(0),
            taken_ms: AtomicU64::new(0),
        }))
    }

    /// Who calls.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer
    }

    /// When the client gives up.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Where the call is from now on, in a few words: `waiting for a slot at Prometheus`.
    pub fn set_stage(&self, stage: &'static str) {
        *self.stage() = stage;
    }

    /// The answer has begun; its service may know better where it is.
    pub(super) fn answer_began(&self) {
        let mut stage = self.stage();
        if *stage == BEGUN {
            *stage = "answering";
        }
    }

    /// The client took `bytes` of the answer, in which `messages` begin.
    pub(super) fn sent(&self, bytes: usize, messages: u64) {
        self.0.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.0.sent_messages.fetch_add(messages, Ordering::Relaxed);
        let age = u64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.taken_ms.store(age, Ordering::Relaxed);
    }

    fn stage(&self) -> MutexGuard<'_, &'static str> {
        self.0.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of it at this moment.
    fn view(&self, now: Instant) -> CallView {
        let call = &*self.0;
        let age = now.saturating_duration_since(call.begun);
        CallView {
            method: match &call.method {
                Name::Counted(counted) => format!("{}/{}", counted.method.service, counted.method.method),
                Name::Path(path) => path.trim_start_matches('/').to_owned(),
            },
            peer: call.peer,
            age,
            deadline_in: call.deadline.map(|at| at.saturating_duration_since(now)),
            sent_bytes: call.sent_bytes.load(Ordering::Relaxed),
            sent_messages: call.sent_messages.load(Ordering::Relaxed),
            client_idle_for: age.saturating_sub(Duration::from_millis(call.taken_ms.load(Ordering::Relaxed))),
            stage: *self.stage(),
        }
    }
}

/// What is known of a running call at a moment.
#[derive(Clone, Debug)]
pub struct CallView {
    /// `package.Service/Method`.
    pub method: String,
    /// Who calls.
    pub peer: Option<SocketAddr>,
    /// For how long it has been running.
    pub age: Duration,
    /// What is left until the client gives up; `None` if it never does.
    pub deadline_in: Option<Duration>,
    /// What the client has taken of the answer, in bytes.
    pub sent_bytes: u64,
    /// How many messages begin in that.
    pub sent_messages: u64,
    /// For how long the client has taken nothing.
    pub client_idle_for: Duration,
    /// Where it is, in a few words.
    pub stage: &'static str,
}

/// One line of `key=value`; times in seconds.
impl fmt::Display for CallView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "age={:.3} method={}", self.age.as_secs_f64(), self.method)?;
        match self.peer {
            Some(peer) => write!(f, " peer={peer}")?,
            None => write!(f, " peer=unknown")?,
        }
        match self.deadline_in {
            Some(left) => write!(f, " deadline_in={:.3}", left.as_secs_f64())?,
            None => write!(f, " deadline_in=never")?,
        }
        write!(
            f,
            " sent_bytes={} sent_messages={} client_idle_for={:.3} at=\"{}\"",
            self.sent_bytes,
            self.sent_messages,
            self.client_idle_for.as_secs_f64(),
            self.stage,
        )
    }
}

/// All calls that run; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Running(Arc<Calls>);

#[derive(Debug, Default)]
struct Calls {
    all: Mutex<Numbered>,
    number: Gauge,
}

/// By a number that grows: the oldest come first.
#[derive(Debug, Default)]
struct Numbered {
    next: u64,
    calls: BTreeMap<u64, Caller>,
}

/// The entry of a call: gone when it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) caller: Caller,
    number: u64,
    running: Running,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.running.all().calls.remove(&self.number);
        self.running.0.number.dec();
    }
}

impl Running {
    /// No calls yet; registers how many there are.
    pub fn register(registry: &mut Registry) -> Self {
        let running = Self::default();
        registry.register(
            "narthex_grpc_calls_running",
            "Running gRPC calls, including those of health and reflection",
            running.0.number.clone(),
        );
        running
    }

    /// A call has begun.
    pub(super) fn begin(
        &self,
        path: &str,
        counted: Option<&Arc<Counted>>,
        peer: SocketAddr,
        deadline: Option<Instant>,
    ) -> Entry {
        let caller = Caller::of(Name::new(path, counted), Some(peer), deadline);
        let mut all = self.all();
        let number = all.next;
        all.next += 1;
        all.calls.insert(number, caller.clone());
        drop(all);
        self.0.number.inc();
        Entry {
            caller,
            number,
            running: self.clone(),
        }
    }

    /// How many calls run, and a line for each of the oldest `limit`.
    pub fn lines(&self, limit: usize) -> (usize, Vec<String>) {
        let (number, calls) = self.calls(limit);
        (number, calls.iter().map(CallView::to_string).collect())
    }

    /// How many calls run, and what is known of each of the oldest `limit`.
    pub fn calls(&self, limit: usize) -> (usize, Vec<CallView>) {
        let all = self.all();
        let number = all.calls.len();
        let oldest: Vec<Caller> = all.calls.values().take(limit).cloned().collect();
        // The lock is not held while more is done with them.
        drop(all);
        let now = Instant::now();
        (number, oldest.iter().map(|caller| caller.view(now)).collect())
    }

    /// A page: how many calls run, and a line for each of the oldest `limit`.
    pub fn dump(&self, limit: usize) -> String {
        let (number, lines) = self.lines(limit);
        let mut page = format!("{number} running gRPC calls, oldest first, times in seconds\n");
        for line in &lines {
            page.push_str(line);
            page.push('\n');
        }
        if lines.len() < number {
            let _ = writeln!(page, "... and {} more", number - lines.len());
        }
        page
    }

    /// Writes to the log how many calls run, and a line for each of the oldest `limit`.
    pub fn log(&self, limit: usize) {
        let (number, lines) = self.lines(limit);
        info!(
            running = number,
            shown = lines.len(),
            "running gRPC calls, oldest first"
        );
        for line in lines {
            info!(call = line, "running gRPC call");
        }
    }

    fn all(&self) -> MutexGuard<'_, Numbered> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    fn peer() -> SocketAddr {
        "10.0.0.7:41234".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_tells_who_asks_what_and_where_it_is() {
        let mut registry = Registry::default();
        let methods = super::super::methods(crate::pb::FILE_DESCRIPTOR_SET).unwrap();
        let metrics = super::super::Metrics::register(&mut registry, methods);
        let running = Running::register(&mut registry);
        let path = "/thanos.Store/Series";
        let deadline = Instant::now() + Duration::from_secs(120);
        let entry = running.begin(path, metrics.find(path), peer(), Some(deadline));
        assert_eq!(entry.caller.deadline(), Some(deadline));
        sleep(Duration::from_millis(2500)).await;
        entry.caller.answer_began();
        entry.caller.sent(1000, 3);
        sleep(Duration::from_secs(10)).await;
        let line = |stage: &str| {
            format!(
                "age=12.500 method=thanos.Store/Series peer=10.0.0.7:41234 deadline_in=107.500 sent_bytes=1000 \
                 sent_messages=3 client_idle_for=10.000 at=\"{stage}\""
            )
        };
        assert_eq!(running.lines(10), (1, vec![line("answering")]));
        entry.caller.set_stage("waiting for a slot at Prometheus");
        entry.caller.answer_began();
        assert_eq!(running.lines(10).1, [line("waiting for a slot at Prometheus")]);
        drop(entry);
        assert_eq!(running.lines(10), (0, Vec::new()));
    }

    #[test]
    fn the_oldest_come_first_and_a_page_has_an_end() {
        let running = Running::default();
        let long = format!("/x\n\u{7f}y{}", "z".repeat(1 << 20));
        let entries: Vec<Entry> = ["/a/A", "/b/B", "/c/C", &long]
            .map(|path| running.begin(path, None, peer(), None))
            .into();
        let (number, lines) = running.lines(usize::MAX);
        assert_eq!(number, 4);
        for (line, wanted) in lines.iter().zip(["=a/A ", "=b/B ", "=c/C ", "=xyzzz"]) {
            assert!(line.contains(&format!("method{wanted}")), "{line}");
        }
        assert!(
            lines[3].len() < 300 && lines[3].contains("deadline_in=never"),
            "{}",
            lines[3]
        );
        let page = running.dump(2);
        assert!(
            page.starts_with("4 running gRPC calls") && page.lines().count() == 4,
            "{page}"
        );
        assert!(page.ends_with("\n... and 2 more\n"), "{page}");
        drop(entries);
        assert_eq!(running.dump(2).lines().count(), 1);
        assert_eq!(running.0.number.get(), 0);
    }
}
