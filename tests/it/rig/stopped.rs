//! A client that sends a request and then is stopped: a process whose kernel goes on answering for it.

use std::{net::SocketAddr, process::Command};

use tempfile::TempDir;

use super::{process::Process, tools::temp_dir};

/// Connects to `$1`, port `$2`, sends the file `$3`, reads the beginning of what comes, and stops as if by SIGSTOP.
const SCRIPT: &str = r#"exec 3<>"/dev/tcp/$1/$2" && cat "$3" >&3 && head -c 9 <&3 >/dev/null && kill -STOP $$"#;

/// Ends with the value.
#[derive(Debug)]
pub(crate) struct StoppedClient {
    process: Process,
    _dir: TempDir,
}

impl StoppedClient {
    /// Sends `bytes` to `address`. It has not come that far yet.
    pub(crate) fn start(address: SocketAddr, bytes: &[u8]) -> Self {
        let dir = temp_dir("client");
        let (request, log) = (dir.path().join("request"), dir.path().join("log"));
        fs_err::write(&request, bytes).expect("a file can be written");
        let mut bash = Command::new("bash");
        bash.args(["-c", SCRIPT, "client"])
            .args([address.ip().to_string(), address.port().to_string()])
            .arg(&request);
        Self {
            process: Process::spawn("client", &mut bash, &log, None),
            _dir: dir,
        }
    }

    /// Whether the system says that it is stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = fs_err::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap_or_default();
        // The state stands behind the name, which is in brackets.
        stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"))
    }
}
