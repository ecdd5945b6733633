//! The data directory: whether it can be read and written, and whether it is that of the Prometheus that answers.
//!
//! [`look`] reads, and writes one empty file which it removes at once; on a crash in between that file stays, and nobody looks
//! at it. [`is_that_of`] is a rule over values.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::Access;

use super::{
    Finding,
    table::{DATA_BLOCKS, DATA_DIRECTORY, DATA_LEDGER, DATA_PROMETHEUS, DATA_WAL},
};
use crate::{
    model::few,
    prometheus::Snapshot,
    shipper::{Found, Ledger},
    tsdb::{self, Scan},
};

/// The ledger of a sidecar that ships.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The ledger's name.
    pub ledger_name: String,
    /// The identity of the bucket that it is about.
    pub bucket: String,
    /// Whether a file may be written to see that it can.
    pub write: bool,
}

/// What was seen in a data directory.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Its blocks.
    pub scan: Scan,
    /// What a sidecar has recorded, if one is to ship from here.
    pub ledger: Option<Ledger>,
    /// There is the file by which a running Prometheus holds the directory.
    has_lock: bool,
}

/// Looks at the directory `path`; `None` if it cannot be read. Blocks the thread.
pub fn look(path: &Path, expected: Option<&Expected>) -> (Vec<Finding>, Option<DataDir>) {
    let scan = match tsdb::scan(path) {
        Ok(scan) => scan,
        Err(error) => {
            return (
                vec![Finding::fail(&DATA_DIRECTORY, format!("--tsdb.path: {error}"))],
                None,
            );
        }
    };
    let text = format!("{} has {} blocks", path.display(), scan.blocks.len());
    let mut findings = vec![Finding::ok(&DATA_DIRECTORY, text)];
    findings.extend(unreadable(&scan));
    let ledger = expected.map(|expected| {
        let (finding, ledger) = ledger(path, expected);
        findings.push(finding);
        ledger
    });
    let dir = DataDir {
        path: path.to_owned(),
        scan,
        ledger,
        has_lock: fs_err::symlink_metadata(path.join("lock")).is_ok(),
    };
    (findings, Some(dir))
}

/// Whether the segments of the log in the data directory `path` can be read. Blocks the thread.
pub fn look_at_log(path: &Path) -> Finding {
    let dir = path.join("wal");
    let shown = dir.display();
    let segments = || -> io::Result<usize> {
        let mut segments = 0;
        for entry in fs_err::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs_err::File::open(entry.path())?;
                segments += 1;
            }
        }
        Ok(segments)
    };
    match segments() {
        Ok(0) => Finding::warn(
            &DATA_WAL,
            format!("{shown} has no segment: there is nothing to send yet"),
        ),
        Ok(segments) => Finding::ok(&DATA_WAL, format!("{shown} has {segments} segments")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("{error}: Prometheus has written no log yet, or this is not its directory");
            Finding::warn(&DATA_WAL, text)
        }
        Err(error) => Finding::fail(&DATA_WAL, format!("the write-ahead log cannot be sent: {error}")),
    }
}

fn unreadable(scan: &Scan) -> Option<Finding> {
    let corrupt = scan.corrupt.iter().filter(|corrupt| corrupt.is_block());
    let named: Vec<String> = corrupt
        .map(|corrupt| format!("{} ({})", corrupt.id, corrupt.detail))
        .collect();
    let text = format!("blocks that cannot be read: {}", few(named.iter()));
    (!named.is_empty()).then(|| Finding::warn(&DATA_BLOCKS, text))
}

/// Looks at the ledger's place.
fn ledger(dir: &Path, expected: &Expected) -> (Finding, Ledger) {
    let path = dir.join(&expected.ledger_name);
    let (ledger, found) = Ledger::open(path.clone(), &expected.bucket, None);
    let shown = path.display();
    let there = fs_err::symlink_metadata(&path).ok();
    let finding = if there.as_ref().is_some_and(|there| there.is_dir()) {
        Finding::fail(
            &DATA_LEDGER,
            format!("{shown} is a directory, so that no ledger can be written there"),
        )
    } else if let Err(error) = writable(dir, expected.write) {
        Finding::fail(
            &DATA_LEDGER,
            format!("{shown} cannot be written: {error}; Prometheus would not learn what is uploaded"),
        )
    } else if let Some(problem) = unfit(&found) {
        Finding::warn(&DATA_LEDGER, format!("{shown} {problem}"))
    } else if let Some(mode) = there.and_then(|there| hidden(there.permissions().mode())) {
        Finding::warn(
            &DATA_LEDGER,
            format!(
                "{shown} has mode {mode:04o}, so that other users cannot read it: until narthex writes it again, Prometheus \
                 may compact blocks that are not uploaded"
            ),
        )
    } else {
        Finding::ok(&DATA_LEDGER, format!("{shown} can be written"))
    };
    (finding, ledger)
}

/// What a sidecar would put aside at its start.
fn unfit(found: &Found) -> Option<String> {
    match found {
        Found::Ours | Found::Missing | Found::Unidentified => None,
        Found::OtherBucket(bucket) | Found::OtherPlace(bucket) => Some(format!(
            "is about another bucket, {bucket}: narthex begins a new one, and looks all local blocks up in the bucket"
        )),
        Found::Bad(why) => Some(format!(
            "is no ledger ({why}): narthex begins a new one, and looks all local blocks up in the bucket"
        )),
    }
}

/// The mode of a file that some user cannot read.
fn hidden(mode: u32) -> Option<u32> {
    (mode & 0o444 != 0o444).then_some(mode & 0o7777)
}

/// Whether a file can be made in `dir`.
fn writable(dir: &Path, write: bool) -> io::Result<()> {
    if !write {
        return Ok(rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK)?);
    }
    let path = dir.join(format!(".narthex-check-{:016x}.tmp", rand::random::<u64>()));
    let file = fs_err::OpenOptions::new().write(true).create_new(true).open(&path)?;
    drop(file);
    fs_err::remove_file(&path)
}

/// Whether a directory is that of the Prometheus which answers. Its path may be spelled in another way here, where another
/// container has another mount; the lock that Prometheus holds, and the oldest time that it knows of, tell more.
pub fn is_that_of(dir: &DataDir, prometheus: &Snapshot) -> Finding {
    let (flags, shown) = (&prometheus.flags, dir.path.display());
    // Builds of Debian have none unless told so, and call the flag otherwise.
    let has_lock_file = flags
        .get("storage.tsdb.no-lockfile")
        .is_some_and(|value| value == "false");
    if has_lock_file && !dir.has_lock {
        return Finding::fail(
            &DATA_PROMETHEUS,
            format!(
                "{shown} is not the directory of the Prometheus that answers: that holds a file named lock in its own{}, and \
                 there is none here",
                flags
                    .get("storage.tsdb.path")
                    .map_or_else(String::new, |path| format!(" ({path})"))
            ),
        );
    }
    // In whole seconds, as Prometheus reports it.
    let seconds = |ms: i64| ms.div_euclid(1000);
    let oldest = dir.scan.blocks.first().map(|block| seconds(block.meta.min_time));
    let lowest = prometheus.known_lowest_time_ms().map(seconds);
    let head = prometheus.head_min_time_ms.map(seconds);
    let is_of_block = lowest.zip(head).is_some_and(|(lowest, head)| lowest < head);
    let all_read = dir.scan.corrupt.iter().all(|corrupt| !corrupt.is_block());
    match lowest {
        Some(lowest) if oldest == Some(lowest) => {
            let text = format!("{shown} begins where Prometheus' data begins");
            Finding::ok(&DATA_PROMETHEUS, text)
        }
        Some(lowest) if is_of_block && all_read && oldest.is_none_or(|oldest| lowest < oldest) => Finding::fail(
            &DATA_PROMETHEUS,
            format!("Prometheus holds blocks that are older than all in {shown}: that is not its directory"),
        ),
        _ => by_path(dir, prometheus),
    }
}

fn by_path(dir: &DataDir, prometheus: &Snapshot) -> Finding {
    let shown = dir.path.display();
    match prometheus.flags.get("storage.tsdb.path") {
        Some(path) if Path::new(path).is_absolute() && dir.path.is_absolute() && Path::new(path) != dir.path => {
            Finding::warn(
                &DATA_PROMETHEUS,
                format!(
                    "--tsdb.path={shown}, and Prometheus runs with --storage.tsdb.path={path}: nothing shows that both are the \
                     same directory"
                ),
            )
        }
        _ => Finding::ok(&DATA_PROMETHEUS, format!("{shown} is held by a Prometheus")),
    }
}

#[cfg(test)]
mod tests;
