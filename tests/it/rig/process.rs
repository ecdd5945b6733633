//! A child process that cannot outlive us.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fs_err as fs;

use super::{limit, log, wait::try_until};

/// Kills the child and removes its files when the pipe on its standard input closes, which also happens when the process
/// that holds the other end is killed. Signals of the terminal go to the whole group and must not end it before its work.
/// The child may still write while it dies, hence the second try.
const WATCHDOG: &str = r#"trap '' INT TERM HUP; read -r _; kill -9 "$1" 2>/dev/null
[ -z "$2" ] || rm -rf "$2" 2>/dev/null || { sleep 1; rm -rf "$2"; }"#;

/// A running program, with everything that it prints kept in a log file.
///
/// It is killed when this value is dropped, and by a watchdog (a shell that waits on a pipe) when the process that
/// started it ends in whatever way. The end of its log is shown when a test panics.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    id: u32,
    child: Mutex<Child>,
    watchdog: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, adding what it prints to the file `log`. `sweep` is a directory that the watchdog removes when
    /// this process ends without having dropped the value.
    pub(crate) fn spawn(name: &str, command: &mut Command, log: &Path, sweep: Option<&Path>) -> Process {
        limit::started(name, log);
        let out = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("the log file can be opened");
        let err = out.try_clone().expect("a descriptor can be duplicated");
        let child = command
            .stdin(Stdio::null())
            .stdout(out.into_parts().0)
            .stderr(err.into_parts().0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog", &child.id().to_string()])
            .arg(sweep.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh can be started");
        Process {
            name: name.to_owned(),
            id: child.id(),
            child: Mutex::new(child),
            watchdog,
            log: log.to_owned(),
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Sends a signal by name, e.g. `TERM`; nothing happens when it has ended already.
    pub(crate) fn signal(&self, signal: &str) {
        if self.exited().is_none() {
            // Not reaped yet, so that the number cannot be somebody else's.
            let script = format!("kill -{signal} {} 2>/dev/null", self.id);
            Command::new("sh")
                .args(["-c", &script])
                .status()
                .expect("sh can be started");
        }
    }

    /// How it ended, if it did.
    pub(crate) fn exited(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("a child can be waited for")
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its end; panics with the end of the log when it takes longer than `within`.
    pub(crate) async fn wait(&self, within: Duration) -> ExitStatus {
        match try_until(within, async || self.exited()).await {
            Some(status) => status,
            None => panic!(
                "{} did not end within {within:?}; its log:\n{}",
                self.name,
                self.log_tail()
            ),
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) async fn stop(&self, within: Duration) -> ExitStatus {
        self.signal("TERM");
        self.wait(within).await
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(&self) -> ExitStatus {
        let mut child = self.child();
        if child.try_wait().expect("a child can be waited for").is_none() {
            child.kill().expect("a child can be killed");
        }
        child.wait().expect("a child can be waited for")
    }

    /// The most memory of its own that it has held at once so far, in bytes: `VmHWM` without what is mapped from files, which is
    /// the program itself: of a build without optimization tens of MiB, the more the more of it has run.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id)).expect("the process runs");
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line
                .and_then(|line| line.trim().strip_suffix(" kB"))
                .map(str::parse::<u64>);
            let kib = kib.unwrap_or_else(|| panic!("the kernel tells {name}"));
            kib.expect("it is a number of kB") * 1024
        };
        bytes("VmHWM:").saturating_sub(bytes("RssFile:"))
    }

    /// How many descriptors it has open.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id))
            .expect("the process runs")
            .count()
    }

    /// All that it has printed.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines that it has printed.
    pub(crate) fn log_tail(&self) -> String {
        log::tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // Before its pipe closes, or it would kill whoever has got the number by then.
        self.watchdog.kill().expect("a child can be killed");
        self.watchdog.wait().expect("a child can be waited for");
        if std::thread::panicking() {
            eprintln!("---- end of the log of {}:\n{}\n----", self.name, self.log_tail());
        }
    }
}

/// A port of 127.0.0.1 that is free now, never given out before by this process. Somebody else may be faster, so whoever
/// starts a program on it tries again with another one.
pub(crate) fn free_port() -> u16 {
    free_ports(&[0])
}

/// A free port for which the port 10000 above is free too, and is never given out either.
pub(crate) fn free_port_pair() -> u16 {
    free_ports(&[0, 10_000])
}

/// A port such that it is free, and what lies so far above it.
fn free_ports(above: &[u16]) -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..1000 {
        // Below the range that the kernel takes the ports of outgoing connections from.
        let port = rand::random_range(15000..32000);
        let mut ports = above.iter().map(|above| port + above);
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if ports.all(|port| !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            given.extend(above.iter().map(|above| port + above));
            return port;
        }
    }
    panic!("no free port found");
}
