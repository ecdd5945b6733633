//! Commands of narthex that do one job and end.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use fs_err as fs;
use serde_json::Value;

use super::{process::Process, sidecar::Sidecar, tools::temp_dir};

/// How long a command may take; it is killed and the test fails then.
const LONGEST: Duration = Duration::from_secs(180);

/// How a command ended.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// What it printed, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON: {error}; {self:?}"))
    }

    /// This, if it ended with this code.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Ran {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Panics unless it ended with `code` and has printed all of `said`.
    #[track_caller]
    pub(crate) fn assert(&self, code: i32, said: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for said in said {
            assert!(
                self.stdout.contains(said) || self.stderr.contains(said),
                "not said: {said}\n{}\n{}",
                self.stdout,
                self.stderr
            );
        }
    }
}

/// Runs `narthex` with these words and waits for its end.
#[track_caller]
pub(crate) fn narthex(words: &[&str]) -> Ran {
    run(Command::new(Sidecar::program()).args(words))
}

/// Runs a command and waits for its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Ran {
    let dir = temp_dir("one-shot");
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let file = |path: &Path| {
        fs::File::create(path)
            .expect("a new directory can be written")
            .into_parts()
            .0
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn()
        .expect("the program can be started");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break Some(status);
        }
        if begun.elapsed() > LONGEST {
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let Some(status) = status else {
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
        panic!("{command:?} did not end within {LONGEST:?}; stderr:\n{}", text(&err));
    };
    Ran {
        code: status.code(),
        stdout: text(&out),
        stderr: text(&err),
    }
}

/// Starts `narthex` with these words; what it prints goes to the file `log`.
pub(crate) fn start(words: &[&str], log: &Path) -> Process {
    Process::spawn("narthex", Command::new(Sidecar::program()).args(words), log, None)
}
