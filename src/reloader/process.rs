//! Finds the process of Prometheus by its name, and sends it SIGHUP.
//!
//! SIGHUP ends a process that does not catch it: such a one is left alone, whatever its name. A program in Go shows every
//! signal as caught, so that this spares no other program of that kind: the name must be Prometheus'. Containers of a pod see
//! each other's processes with `shareProcessNamespace: true` only.

use std::{io, path::Path};

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};

/// The kernel cuts names of processes to this many bytes.
const NAME: usize = 15;

/// The bit of SIGHUP, signal 1, in a set of signals.
const HANGUP: u64 = 1;

/// Why there was no process to tell.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessError {
    /// There is none of that name.
    #[error(
        "no process with the name {0:?} (--reloader.process-name) is seen from here: in a pod, set \
         shareProcessNamespace: true; or use --reloader.method=http"
    )]
    NotFound(String),
    /// It would be ended by the signal.
    #[error(
        "process {pid} has the name {name:?} (--reloader.process-name) and does not catch SIGHUP, which would end it: it \
         is no Prometheus"
    )]
    WouldEnd {
        /// The process.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// It belongs to another user.
    #[error("process {pid} belongs to another user, who may not be sent SIGHUP: run narthex as the user of Prometheus")]
    NotOurs {
        /// The process.
        pid: u32,
    },
    /// The system refuses.
    #[error("process {pid} cannot be sent SIGHUP: {cause}")]
    Signal {
        /// The process.
        pid: u32,
        /// Why.
        cause: io::Error,
    },
    /// The processes cannot be listed; the source names the directory.
    #[error("processes cannot be listed: {0}")]
    List(io::Error),
}

/// Sends SIGHUP to the first process of this name that catches it; its number.
///
/// # Errors
/// There is none, or it cannot be sent signals.
pub(super) fn hang_up(name: &str) -> Result<u32, ProcessError> {
    let pid = find(Path::new("/proc"), name)?;
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(process) = process else {
        return Err(ProcessError::NotFound(name.to_owned()));
    };
    match kill_process(process, Signal::HUP) {
        Ok(()) => Ok(pid),
        Err(Errno::SRCH) => Err(ProcessError::NotFound(name.to_owned())),
        Err(Errno::PERM) => Err(ProcessError::NotOurs { pid }),
        Err(cause) => Err(ProcessError::Signal {
            pid,
            cause: cause.into(),
        }),
    }
}

/// The process with the lowest number of those with this name that catch SIGHUP.
fn find(proc: &Path, name: &str) -> Result<u32, ProcessError> {
    let mut pids = Vec::new();
    for entry in fs_err::read_dir(proc).map_err(ProcessError::List)? {
        let entry = entry.map_err(ProcessError::List)?;
        pids.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    let shortened = &name.as_bytes()[..name.len().min(NAME)];
    let mut would_end = None;
    for pid in pids.into_iter().filter(|pid| *pid != std::process::id()) {
        let dir = proc.join(pid.to_string());
        // One that has ended meanwhile is none.
        let Ok(comm) = fs_err::read(dir.join("comm")) else {
            continue;
        };
        if comm.strip_suffix(b"\n").unwrap_or(&comm) != shortened {
            continue;
        }
        let status = fs_err::read_to_string(dir.join("status")).unwrap_or_default();
        if catches_hang_up(&status) {
            return Ok(pid);
        }
        would_end.get_or_insert(pid);
    }
    let name = name.to_owned();
    Err(match would_end {
        Some(pid) => ProcessError::WouldEnd { pid, name },
        None => ProcessError::NotFound(name),
    })
}

/// Whether `/proc/<pid>/status` says that SIGHUP is caught.
fn catches_hang_up(status: &str) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set & HANGUP != 0)
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;

    fn process(proc: &Path, pid: u32, comm: &str, caught: &str) {
        let dir = proc.join(pid.to_string());
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
        fs::write(
            dir.join("status"),
            format!("Name:\t{comm}\nSigIgn:\t0000000000000001\nSigCgt:\t{caught}\n"),
        )
        .unwrap();
    }

    #[test]
    fn the_first_that_catches_the_signal_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path();
        fs::create_dir(proc.join("self")).unwrap();
        process(proc, 7, "prometheus2", "fffffffffffffeff");
        let find = |name| find(proc, name).map_err(|error| error.to_string());
        assert!(find("prometheus").unwrap_err().contains("shareProcessNamespace: true"));
        process(proc, 8, "prometheus", "0000000000010000");
        let error = find("prometheus").unwrap_err();
        assert!(error.starts_with("process 8 has the name \"prometheus\""), "{error}");
        process(proc, 30, "prometheus", "fffffffdffc1feff");
        process(proc, 100, "prometheus", "fffffffdffc1feff");
        assert_eq!(find("prometheus"), Ok(30));
        process(proc, 9, "prometheus-with", "fffffffdffc1feff");
        assert_eq!(find("prometheus-with-a-long-name"), Ok(9));
    }
}
