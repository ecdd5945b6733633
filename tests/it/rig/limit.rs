//! A limit of time for each test: when one takes longer, the whole run ends, and says which test it was.
//!
//! Whatever of the rig a test uses first counts as its beginning, so that no test has to ask for its limit; the end of its
//! thread is its end. A test that hangs can be neither unwound nor left behind, hence the end of the process: its children
//! end with it, see [`super::process::Process`].
//!
//! The few tests that keep a core busy for a minute take turns, see [`turn`]: all at once, beside others, each of them would
//! need as long as all together.

use std::{
    collections::HashMap,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use tokio::sync;

use super::log::tail;

/// How long a test may take, without its wait for its turn. The longest take one minute when nothing else runs.
const LIMIT: Duration = Duration::from_secs(300);

/// The variable that names another limit, in seconds.
pub(crate) const VARIABLE: &str = "NARTHEX_TEST_LIMIT";

/// A test that runs.
#[derive(Debug)]
struct Running {
    name: String,
    /// `None` while it waits for its turn.
    since: Option<Instant>,
    /// The programs that it has started, and where they log.
    logs: Vec<(String, PathBuf)>,
}

static RUNNING: Mutex<Option<HashMap<ThreadId, Running>>> = Mutex::new(None);

thread_local! {
    static TEST: Option<Test> = Test::begin();
}

/// The test of this thread; dropped when that ends.
#[derive(Debug)]
struct Test;

impl Test {
    /// `None` on threads that are no test's: only those are named by a path.
    fn begin() -> Option<Test> {
        static WATCH: Once = Once::new();
        let thread = thread::current();
        let name = thread.name().filter(|name| name.contains("::"))?.to_owned();
        let running = Running {
            name,
            since: Some(Instant::now()),
            logs: Vec::new(),
        };
        running_tests().get_or_insert_default().insert(thread.id(), running);
        WATCH.call_once(|| {
            let watch = thread::Builder::new().name("test limit".to_owned()).spawn(watch);
            watch.expect("a thread can be started");
        });
        Some(Test)
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        running_tests().get_or_insert_default().remove(&thread::current().id());
    }
}

fn running_tests() -> MutexGuard<'static, Option<HashMap<ThreadId, Running>>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The test of this thread has begun, if it has not before. To be called by all that a test may use first.
pub(crate) fn begin() {
    // An error means that the thread ends.
    let _ = TEST.try_with(|_| ());
}

/// As [`begin`]; the end of this log is shown when the test takes too long.
pub(crate) fn started(program: &str, log: &Path) {
    begin();
    if let Some(test) = running_tests().get_or_insert_default().get_mut(&thread::current().id()) {
        // A program that is started again goes on in its log.
        if !test.logs.iter().any(|(_, known)| known == log) {
            test.logs.push((program.to_owned(), log.to_owned()));
        }
    }
}

/// Who holds this is the one test of those that keep a core busy for long.
pub(crate) type Turn = sync::MutexGuard<'static, ()>;

/// Waits until no other test holds the turn. The wait does not count: it ends, as each that holds the turn has its limit.
pub(crate) async fn turn() -> Turn {
    static TURN: sync::Mutex<()> = sync::Mutex::const_new(());
    begin();
    count_from(None);
    let turn = TURN.lock().await;
    count_from(Some(Instant::now()));
    turn
}

/// Sets the beginning of the test of this thread.
fn count_from(since: Option<Instant>) {
    if let Some(test) = running_tests().get_or_insert_default().get_mut(&thread::current().id()) {
        test.since = since;
    }
}

fn watch() {
    let limit = std::env::var(VARIABLE).map_or(LIMIT, |seconds| {
        let seconds = seconds.parse();
        Duration::from_secs(seconds.unwrap_or_else(|error| panic!("{VARIABLE}: {error}")))
    });
    loop {
        thread::sleep(Duration::from_millis(500));
        let running = running_tests();
        let tests = running.iter().flat_map(HashMap::values);
        let late: Vec<&Running> = tests
            .filter(|test| test.since.is_some_and(|since| since.elapsed() > limit))
            .collect();
        if late.is_empty() {
            continue;
        }
        // Not by a macro: what those print is shown of failed tests only.
        let mut out = std::io::stderr().lock();
        for test in late {
            for (program, log) in &test.logs {
                let _ = writeln!(out, "---- end of the log of {program}:\n{}\n----", tail(log));
            }
            let _ = writeln!(
                out,
                "the test {} has run for more than {limit:?}: the whole run ends here ({VARIABLE}=SECONDS for another limit)",
                test.name
            );
        }
        std::process::abort();
    }
}
