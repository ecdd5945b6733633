//! The ledger `thanos.shipper.json`: which local blocks are durable in the bucket.
//!
//! Prometheus reads it (`--storage.tsdb.delay-compact-file.path`) and compacts without asking when it is missing or
//! unreadable. So: it is created before anything else, replaced by one atomic rename, never removed, always readable
//! by other users (mode 0644), and written only when it changes. A block is listed only after it was proven complete in
//! the bucket that the ledger names.
//!
//! On a crash the old or the new file is there, whole; a leftover `.tmp` is overwritten by the next write. A ledger that
//! cannot be read, that another program wrote, or that belongs to another bucket proves nothing: it is replaced by an
//! empty one at once, and each block is looked up in the bucket before anything is sent (see [`crate::lineage`]).

use std::{
    collections::BTreeSet,
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{model::Labels, tsdb::BlockId};

/// A ledger larger than this (bytes) is not one: ten years of two-hour blocks take 2 MiB.
const LARGEST: u64 = 16 << 20;

/// What the file said when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Ours, for this bucket.
    Ours,
    /// No file.
    Missing,
    /// A valid file without a bucket's identity, as Thanos writes it: its entries are looked up before they count.
    Unidentified,
    /// Written for another bucket, named here.
    OtherBucket(String),
    /// Not readable or not a ledger; why.
    Bad(String),
}

/// The durable blocks among the local ones, in memory and on disk.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    bucket: String,
    labels: Labels,
    shipped: BTreeSet<BlockId>,
    order: Vec<BlockId>,
    written: Option<String>,
    seen: Option<(u64, u64, i64, u32)>,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: i64,
    #[serde(default)]
    uploaded: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    narthex: Option<Ours>,
}

#[derive(Serialize, Deserialize)]
struct Ours {
    bucket: String,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
}

impl Ledger {
    /// Reads the ledger at `path`; never fails, what was found is told beside it. Nothing is written.
    pub fn open(path: PathBuf, bucket: &str) -> (Self, Found) {
        let mut ledger = Self {
            path,
            bucket: bucket.to_owned(),
            labels: Labels::default(),
            shipped: BTreeSet::new(),
            order: Vec::new(),
            written: None,
            seen: None,
        };
        let found = ledger.load();
        (ledger, found)
    }

    fn load(&mut self) -> Found {
        let text = match read_bounded(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Missing,
            Err(error) => return Found::Bad(error.to_string()),
        };
        let file: File = match serde_json::from_str(&text) {
            Ok(file) => file,
            Err(error) => return Found::Bad(error.to_string()),
        };
        if file.version != 1 {
            return Found::Bad(format!("version {} instead of 1", file.version));
        }
        let Some(ours) = file.narthex else {
            return Found::Unidentified;
        };
        if ours.bucket != self.bucket {
            return Found::OtherBucket(ours.bucket);
        }
        let mut order = Vec::new();
        for name in file.uploaded.unwrap_or_default() {
            let Some(id) = BlockId::parse(&name) else {
                return Found::Bad(format!("{name:?} is not a block"));
            };
            order.push(id);
        }
        self.labels = Labels::from_pairs(ours.labels);
        self.shipped = order.iter().copied().collect();
        self.order = order;
        self.written = Some(text);
        self.seen = self.stamp().filter(|(_, _, _, mode)| mode & 0o444 == 0o444);
        Found::Ours
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The external labels of the last commit; empty when there was none.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Whether `id` is durable in the bucket.
    pub fn contains(&self, id: BlockId) -> bool {
        self.shipped.contains(&id)
    }

    /// Notes that `id` is durable in the bucket; call [`Ledger::save`] at once. An empty set of labels is not noted: it
    /// could not be shipped under.
    pub fn record(&mut self, id: BlockId, labels: &Labels) {
        if self.shipped.insert(id) {
            self.order.push(id);
        }
        if !labels.is_empty() {
            self.labels = labels.clone();
        }
    }

    /// Forgets the blocks that are no longer there; `local` holds those that are, in the order to list them in.
    pub fn retain(&mut self, local: &[BlockId]) {
        self.order = local.iter().copied().filter(|id| self.shipped.contains(id)).collect();
        self.shipped = self.order.iter().copied().collect();
    }

    /// Writes the file if it would differ from what is there: temporary file, fsync, rename, fsync of the directory.
    ///
    /// # Errors
    /// When the directory is missing, full or read-only; the old file then stays as it was, and the next save tries
    /// again.
    pub fn save(&mut self) -> io::Result<()> {
        let text = self.text()?;
        if self.written.as_ref() == Some(&text) && self.stands() {
            return Ok(());
        }
        let mut name = self.path.clone().into_os_string();
        name.push(".tmp");
        let temporary = PathBuf::from(name);
        let mut file = fs_err::File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        // Prometheus runs under another user: a strict umask must not hide the ledger from it.
        file.file().set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs_err::rename(&temporary, &self.path)?;
        if let Some(dir) = self.path.parent() {
            fs_err::File::open(dir)?.sync_all()?;
        }
        self.written = Some(text);
        self.seen = self.stamp();
        Ok(())
    }

    /// Whether the file is still the one that was read or written: one that somebody removed, replaced or hid from other
    /// users is written again.
    fn stands(&self) -> bool {
        self.seen.is_some() && self.stamp() == self.seen
    }

    fn stamp(&self) -> Option<(u64, u64, i64, u32)> {
        let file = fs_err::metadata(&self.path).ok()?;
        Some((file.ino(), file.len(), file.mtime_nsec(), file.mode()))
    }

    fn text(&self) -> io::Result<String> {
        let file = File {
            version: 1,
            uploaded: Some(self.order.iter().map(BlockId::to_string).collect()),
            narthex: Some(Ours {
                bucket: self.bucket.clone(),
                labels: self
                    .labels
                    .iter()
                    .map(|l| (l.name.to_string(), l.value.to_string()))
                    .collect(),
            }),
        };
        let mut out = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        file.serialize(&mut serde_json::Serializer::with_formatter(&mut out, tabs))?;
        out.push(b'\n');
        String::from_utf8(out).map_err(io::Error::other)
    }
}

/// Says what was found in the place of the ledger.
pub(super) fn tell(path: &Path, found: &Found) {
    let ledger = path.display();
    let then = "starting with an empty one; every local block is looked up in the bucket before anything is sent";
    match found {
        Found::Ours => tracing::debug!(%ledger, "read the ledger"),
        Found::Missing => tracing::info!(%ledger, "there is no ledger yet; {then}"),
        Found::Unidentified => {
            tracing::info!(%ledger, "the ledger does not say which bucket it speaks of (Thanos wrote it); {then}");
        }
        Found::OtherBucket(other) => {
            tracing::warn!(%ledger, other, "the ledger speaks of another bucket; {then}");
        }
        Found::Bad(why) => tracing::error!(%ledger, why, "the ledger cannot be used; {then}"),
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use io::Read;
    let mut text = String::new();
    let read = fs_err::File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if read as u64 > LARGEST {
        return Err(io::Error::other(format!("larger than {LARGEST} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};

    use super::*;

    const A: &str = "01K4ABCDEFGHJKMNPQRSTVWXYZ";
    const B: &str = "01K4ABCDEFGHJKMNPQRSTVWXZ0";

    fn id(name: &str) -> BlockId {
        BlockId::parse(name).unwrap()
    }

    fn opened(dir: &Path) -> (Ledger, Found) {
        Ledger::open(dir.join("thanos.shipper.json"), "file:///bucket")
    }

    #[test]
    fn written_as_thanos_and_prometheus_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ledger, found) = opened(dir.path());
        assert_eq!(found, Found::Missing);
        ledger.save().unwrap();
        ledger.record(id(B), &Labels::from_pairs([("replica", "a")]));
        ledger.record(id(A), &Labels::from_pairs([("replica", "a")]));
        ledger.retain(&[id(A), id(B)]);
        ledger.save().unwrap();
        let expected = format!(
            "{{\n\t\"version\": 1,\n\t\"uploaded\": [\n\t\t\"{A}\",\n\t\t\"{B}\"\n\t],\n\t\"narthex\": {{\n\t\t\"bucket\": \
             \"file:///bucket\",\n\t\t\"labels\": {{\n\t\t\t\"replica\": \"a\"\n\t\t}}\n\t}}\n}}\n"
        );
        assert_eq!(fs_err::read_to_string(ledger.path()).unwrap(), expected);
        let mode = fs_err::metadata(ledger.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);

        let (again, found) = opened(dir.path());
        assert_eq!(found, Found::Ours);
        assert!(again.contains(id(A)) && again.contains(id(B)));
        assert_eq!(again.labels().get("replica"), Some("a"));
    }

    #[test]
    fn an_unchanged_ledger_is_not_written_again() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let (mut ledger, _) = opened(dir.path());
        ledger.record(id(A), &Labels::default());
        ledger.save().unwrap();
        let inode = fs_err::metadata(ledger.path()).unwrap().ino();
        let (mut again, _) = opened(dir.path());
        again.retain(&[id(A)]);
        again.save().unwrap();
        assert_eq!(fs_err::metadata(again.path()).unwrap().ino(), inode);
    }

    #[test]
    fn forgets_blocks_that_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ledger, _) = opened(dir.path());
        ledger.record(id(A), &Labels::default());
        ledger.record(id(B), &Labels::default());
        ledger.retain(&[id(B)]);
        assert!(!ledger.contains(id(A)) && ledger.contains(id(B)));
    }

    #[test]
    fn what_proves_nothing_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("thanos.shipper.json");
        let found = |text: &str| {
            fs_err::write(&path, text).unwrap();
            let (ledger, found) = opened(dir.path());
            assert!(!ledger.contains(id(A)), "{text}");
            found
        };
        assert_eq!(found("{\"version\":1,\"uploaded\":null}"), Found::Unidentified);
        assert_eq!(
            found(&format!("{{\"version\":1,\"uploaded\":[\"{A}\"]}}")),
            Found::Unidentified
        );
        let other = format!("{{\"version\":1,\"uploaded\":[\"{A}\"],\"narthex\":{{\"bucket\":\"s3://h/b\"}}}}");
        assert_eq!(found(&other), Found::OtherBucket("s3://h/b".into()));
        for bad in [
            "",
            "{\"version\":1,\"uplo",
            "[]",
            "{\"version\":2,\"uploaded\":[]}",
            "\0\0\0",
        ] {
            assert!(matches!(found(bad), Found::Bad(_)), "{bad}");
        }
        let odd = "{\"version\":1,\"uploaded\":[\"x\"],\"narthex\":{\"bucket\":\"file:///bucket\"}}";
        assert!(matches!(found(odd), Found::Bad(_)));
    }

    #[test]
    fn a_failed_save_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ledger, _) = opened(dir.path());
        ledger.record(id(A), &Labels::default());
        ledger.save().unwrap();
        // A directory in the place of the temporary file stops the write, also for root.
        fs_err::create_dir(dir.path().join("thanos.shipper.json.tmp")).unwrap();
        ledger.record(id(B), &Labels::default());
        ledger.save().unwrap_err();
        let (again, found) = opened(dir.path());
        assert_eq!(found, Found::Ours);
        assert!(again.contains(id(A)) && !again.contains(id(B)));
    }

    /// Bytes, and ledgers with a piece of them replaced.
    fn anything() -> impl Strategy<Value = Vec<u8>> {
        let good = format!(
            "{{\"version\":1,\"uploaded\":[\"{A}\",\"{B}\"],\"narthex\":{{\"bucket\":\"file:///bucket\",\"labels\":{{\"a\":\"b\"}}}}}}"
        );
        let piece = prop_oneof![
            any::<Vec<u8>>(),
            "(null|-?[0-9]{1,30}|\"[a-z]{0,3}\"|\\{\\}|\\[|\\]|,|:){0,3}".prop_map(String::into_bytes),
        ];
        let mended = (any::<Index>(), any::<Index>(), piece).prop_map(move |(from, to, piece)| {
            let (from, to) = (from.index(good.len() + 1), to.index(good.len() + 1));
            let (from, to) = (from.min(to), from.max(to));
            [&good.as_bytes()[..from], &piece, &good.as_bytes()[to..]].concat()
        });
        prop_oneof![any::<Vec<u8>>(), mended]
    }

    proptest! {
        #[test]
        fn whatever_stands_there_the_next_ledger_is_a_good_one(bytes in anything()) {
            let dir = tempfile::tempdir().unwrap();
            fs_err::write(dir.path().join("thanos.shipper.json"), &bytes).unwrap();
            let (mut ledger, found) = opened(dir.path());
            let ours = found == Found::Ours;
            // Nothing but what the file says, and only if it is ours.
            let text = String::from_utf8_lossy(&bytes).into_owned();
            for block in [A, B] {
                prop_assert!(!ledger.contains(id(block)) || ours && text.contains(block));
            }
            ledger.save().unwrap();
            let (again, found) = opened(dir.path());
            prop_assert_eq!(found, Found::Ours);
            prop_assert_eq!(again.contains(id(A)), ledger.contains(id(A)));
        }
    }
}
