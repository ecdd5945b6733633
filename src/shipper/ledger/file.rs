//! The ledger's file: its text, and how it is read, replaced and kept beside.
//!
//! A file is replaced by one atomic rename of a temporary one that was flushed before, so that at every moment the old or
//! the new one is there, whole; its mode is 0644 whatever the umask. A crash leaves at most a `.tmp`, which the next write
//! begins anew. Nothing is removed.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::Permissions,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A ledger larger than this (bytes) is not one: ten years of two-hour blocks take 2 MiB.
pub(super) const LARGEST: u64 = 16 << 20;

/// The keys of Thanos, and ours.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct File {
    version: i64,
    #[serde(default)]
    uploaded: Option<Vec<String>>,
    /// Absent where Thanos wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) narthex: Option<Ours>,
}

/// What only we write; unknown keys in it are those of a later version, and no harm.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ours {
    /// Where the bucket is.
    pub(super) bucket: String,
    /// Which of the places at this address it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) incarnation: Option<String>,
    /// The external labels of the last commit.
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    /// Durable blocks that are no longer local and that a local block was compacted of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sources: Vec<String>,
    /// Blocks that are listed and not durable: they are never shipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) skipped: Vec<String>,
    /// Under which external labels blocks were sealed that are not durable yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sealed_under: Vec<SealedUnder>,
    /// The highest end of a durable block (ms since 1970).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) durable_until: Option<i64>,
    /// How old samples may be that Prometheus holds in its head (ms).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) out_of_order_window_ms: Option<i64>,
}

/// Blocks that were sealed under the same labels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SealedUnder {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) blocks: Vec<String>,
}

impl File {
    /// One that lists these blocks.
    pub(super) fn new(uploaded: Vec<String>, narthex: Ours) -> Self {
        Self {
            version: 1,
            uploaded: Some(uploaded),
            narthex: Some(narthex),
        }
    }

    /// Reads a text; else says why it is no ledger.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let file: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match file.version {
            1 => Ok(file),
            other => Err(format!("version {other} instead of 1")),
        }
    }

    /// The blocks that are listed, durable or skipped, as they are written.
    pub(super) fn uploaded(&self) -> &[String] {
        self.uploaded.as_deref().unwrap_or_default()
    }

    /// The text, with tabs and a final newline as Thanos writes it.
    pub(super) fn text(&self) -> io::Result<String> {
        let mut out = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        self.serialize(&mut serde_json::Serializer::with_formatter(&mut out, tabs))?;
        out.push(b'\n');
        String::from_utf8(out).map_err(io::Error::other)
    }
}

/// Tells whether a file is still the one that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    len: u64,
    mtime: (i64, i64),
    mode: u32,
}

/// The stamp of a file that every user can read; `None` if it is hidden from others, or gone.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs_err::metadata(path).ok()?;
    (file.mode() & 0o444 == 0o444).then(|| Stamp {
        inode: file.ino(),
        len: file.len(),
        mtime: (file.mtime(), file.mtime_nsec()),
        mode: file.mode(),
    })
}

/// Reads a file that must not be larger than a ledger gets.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe waits for somebody who writes to it. Of a directory, reading says that it is one.
    let kind = fs_err::metadata(path)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    let read = fs_err::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if read as u64 > LARGEST {
        return Err(io::Error::other(format!("larger than {LARGEST} bytes")));
    }
    Ok(bytes)
}

/// The text at `path`, if it is a ledger as Thanos writes it.
pub(super) fn read_foreign(path: &Path) -> Option<String> {
    let text = String::from_utf8(read(path).ok()?).ok()?;
    let foreign = File::parse(&text).is_ok_and(|file| file.narthex.is_none());
    foreign.then_some(text)
}

/// The path with more behind its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Puts `text` at `path`: temporary file, fsync, rename, fsync of the directory.
pub(super) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = beside(path, ".tmp");
    let mut file = fs_err::File::create(&temporary)?;
    file.write_all(text)?;
    // Prometheus runs under another user: a strict umask must not hide the ledger from it.
    file.file().set_permissions(Permissions::from_mode(0o644))?;
    file.sync_all()?;
    fs_err::rename(&temporary, path)?;
    flush_directory(path)
}

/// Keeps `text` in the file `kept`, unless it says nothing or is there already. One that says something takes the place of
/// an older one: it is what its writer knew last.
pub(super) fn keep_text(kept: &Path, text: &[u8]) -> io::Result<()> {
    if is_blank(text) || read(kept).is_ok_and(|old| old == text) {
        return Ok(());
    }
    write(kept, text)
}

/// Keeps what stands at `path` in the file `kept`, whatever it is; what cannot be copied gets a second name.
pub(super) fn keep_file(path: &Path, kept: &Path) -> io::Result<()> {
    match read(path) {
        Ok(bytes) => return keep_text(kept, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    let temporary = beside(kept, ".tmp");
    match fs_err::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs_err::hard_link(path, &temporary)?;
    fs_err::rename(&temporary, kept)?;
    flush_directory(kept)
}

/// Whether nobody could miss it: no bytes, zeros as they are left by a loss of power, or a ledger that lists nothing.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace())
        || str::from_utf8(bytes).is_ok_and(|text| File::parse(text).is_ok_and(|file| file.uploaded().is_empty()))
}

fn flush_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => fs_err::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
