//! Where the log is in the bucket, and what its objects are called. Version 1 of the layout, described in `docs/wal.md`.
//!
//! ```text
//! narthex-wal/v1/manifests/<identity>/<generation>-<written at>.json
//! narthex-wal/v1/<identity>/<generation>/wal/<segment>/<position>-<segment>-<offset>-<length>-<read at>-<crc32c>
//! narthex-wal/v1/<identity>/<generation>/wbl/...
//! narthex-wal/v1/<identity>/<generation>/checkpoint.<number>/<file>
//! ```
//!
//! None of these names has the form of a block's, so that readers of blocks pass over them. The identity stands for the external
//! labels, and a generation for one log from where it was first read. The names of the pieces say which bytes of the log are
//! there, up to where, and when they were read: the position counts all bytes of the log that were sent in this generation, so
//! that a piece that is missing shows, also at the end of a segment. What changes rarely (labels, checkpoints, the first
//! segment that counts) is in the manifest. A new one is written when something of it changes and twice a day, so that no
//! lifecycle rule of some days removes the last one. The newest that can be read counts; no object is ever written over.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::Labels;

/// The directory of all that is sent of logs.
pub const DIR: &str = "narthex-wal";
/// The version of the layout, which is also the directory below [`DIR`].
const VERSION: u32 = 1;
/// How many checkpoints a manifest names: a day of them.
const CHECKPOINTS: usize = 12;
/// No manifest is larger than this (bytes).
pub const LARGEST_MANIFEST: u64 = 1 << 20;

/// Where all manifests are.
pub fn manifests() -> String {
    format!("{DIR}/v{VERSION}/manifests")
}

/// Which label set a log belongs to: the first 16 digits of a SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity(String);

impl Identity {
    /// That of these external labels.
    pub fn of(labels: &Labels) -> Self {
        let mut hash = Sha256::new();
        for label in labels.iter() {
            // No text of UTF-8 holds this byte.
            for part in [&label.name, &label.value] {
                hash.update(part.as_bytes());
                hash.update([0xff]);
            }
        }
        let digits = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        Self(digits[..16].to_owned())
    }

    /// Where the manifests of its generations are.
    pub fn manifests(&self) -> String {
        format!("{}/{}", manifests(), self.0)
    }
}

/// One log from where it was first read, of one label set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation {
    /// Whose it is.
    pub identity: Identity,
    /// Its own name: when it began (ms since 1970), and something by chance. A later one sorts later.
    pub name: String,
}

impl Generation {
    /// A new one, after the newest that there is: that one may have been begun under a clock that ran ahead.
    pub fn begin(identity: Identity, newest: Option<&Generation>, now_ms: i64, chance: u32) -> Self {
        let begun_ms = newest
            .and_then(Self::begun_ms)
            .map_or(now_ms, |newest| now_ms.max(newest.saturating_add(1)));
        let name = format!("{begun_ms:013}-{chance:08x}");
        Self { identity, name }
    }

    fn begun_ms(&self) -> Option<i64> {
        self.name.split_once('-')?.0.parse().ok()
    }

    /// The one whose manifest has this key, and when that was written (ms since 1970); `None` if it is not the key of one.
    pub fn of_manifest(key: &str) -> Option<(Self, i64)> {
        let rest = key.strip_prefix(&manifests())?.strip_prefix('/')?;
        let (identity, name) = rest.strip_suffix(".json")?.split_once('/')?;
        let (name, written_ms) = name.rsplit_once('-')?;
        let is_plain = |text: &str| !text.is_empty() && !text.contains('/');
        if !is_plain(identity) || !is_plain(name) {
            return None;
        }
        let identity = Identity(identity.to_owned());
        let name = name.to_owned();
        Some((Self { identity, name }, written_ms.parse().ok()?))
    }

    /// The key of the manifest that is written at this time (ms since 1970).
    pub fn manifest(&self, written_ms: i64) -> String {
        format!("{}/{}-{written_ms:013}.json", self.identity.manifests(), self.name)
    }

    /// The directory of all its other objects.
    pub fn dir(&self) -> String {
        format!("{DIR}/v{VERSION}/{}/{}", self.identity.0, self.name)
    }

    /// The directory of the pieces of a segment: so that what is needed can be listed, however much there is of the log.
    pub fn segment(&self, log: Log, segment: u64) -> String {
        format!("{}/{}/{}", self.dir(), log.dir(), segment_name(segment))
    }

    /// The key of a file of a checkpoint.
    pub fn checkpoint_file(&self, checkpoint: u64, file: &str) -> String {
        format!("{}/{}/{file}", self.dir(), checkpoint_name(checkpoint))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A log of Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    /// What comes in order.
    Wal,
    /// Samples that came out of order.
    Wbl,
}

impl Log {
    /// The name of its directory.
    pub fn dir(self) -> &'static str {
        match self {
            Self::Wal => "wal",
            Self::Wbl => "wbl",
        }
    }
}

/// The name of a segment's file.
pub fn segment_name(segment: u64) -> String {
    format!("{segment:08}")
}

/// The name of a checkpoint's directory.
pub fn checkpoint_name(number: u64) -> String {
    format!("checkpoint.{number:08}")
}

/// Some bytes of a segment that are one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// How many bytes of this log there are before it in its generation.
    pub position: u64,
    /// The segment that they are of.
    pub segment: u64,
    /// Where they begin in the segment (bytes).
    pub offset: u64,
    /// How many they are.
    pub len: u64,
    /// When the log was looked at (ms since 1970): everything that Prometheus had written by then is in the log up to the end of
    /// the last piece of this time.
    pub read_ms: i64,
    /// Their CRC32C.
    pub crc: u32,
}

impl Piece {
    /// The position behind its last byte.
    pub fn end(&self) -> u64 {
        self.position.saturating_add(self.len)
    }

    /// Its key.
    pub fn key(&self, generation: &Generation, log: Log) -> String {
        format!("{}/{self}", generation.segment(log, self.segment))
    }

    /// The piece of this name; `None` if it is none.
    pub fn parse(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('-').collect();
        let [position, segment, offset, len, read_ms, crc] = parts[..] else {
            return None;
        };
        let piece = Self {
            position: position.parse().ok()?,
            segment: segment.parse().ok()?,
            offset: offset.parse().ok()?,
            len: len.parse().ok()?,
            read_ms: read_ms.parse().ok()?,
            crc: u32::from_str_radix(crc, 16).ok()?,
        };
        // Only what is written so: two names never mean the same.
        (piece.to_string() == name).then_some(piece)
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:016}-{:08}-{:010}-{}-{}-{:08x}",
            self.position, self.segment, self.offset, self.len, self.read_ms, self.crc
        )
    }
}

/// What is known of a generation beside its pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the layout.
    pub version: u32,
    /// The external labels.
    pub labels: BTreeMap<String, String>,
    /// When the generation began (ms since 1970).
    pub begun_ms: i64,
    /// When this was written (ms since 1970).
    pub written_ms: i64,
    /// The time between two rounds (ms).
    pub interval_ms: u64,
    /// The first segment of `wal/` that was sent; 0 if the log had no checkpoint.
    pub first_segment: u64,
    /// The first segment of `wbl/` that there was; those before it are in blocks. `None` without a `wbl/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_wbl_segment: Option<u64>,
    /// The newest checkpoints that are there, oldest first.
    #[serde(default)]
    pub checkpoints: Vec<Checkpoint>,
    /// When the end of the log was reached for the first time (ms since 1970): from then on this generation has whatever an
    /// older one has. `None` while it is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caught_up_ms: Option<i64>,
    /// All samples before this time (ms since 1970) were in blocks of the bucket when this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable_until_ms: Option<i64>,
}

/// A checkpoint that is whole in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// It holds what of the segments up to this one is still needed.
    pub number: u64,
    /// When it was first seen (ms since 1970).
    pub seen_ms: i64,
    /// It lacks samples before this time (ms since 1970), which are in blocks that Prometheus had sealed; `None` if there was no
    /// block from which this could be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples_from_ms: Option<i64>,
    /// Its files, in order.
    pub files: Vec<CheckpointFile>,
}

impl Checkpoint {
    /// Whether all that it lacks is older than `end_ms`, where the blocks of the bucket end.
    pub fn lacks_only_what_is_before(&self, end_ms: Option<i64>) -> bool {
        self.samples_from_ms.is_some_and(|from_ms| Some(from_ms) <= end_ms)
    }
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointFile {
    /// Its name.
    pub name: String,
    /// Its length (bytes).
    pub len: u64,
    /// Its CRC32C.
    pub crc32c: u32,
}

impl Manifest {
    /// That of a generation that begins.
    pub fn begin(labels: &Labels, now_ms: i64, interval_ms: u64) -> Self {
        let labels = labels
            .iter()
            .map(|label| (label.name.to_string(), label.value.to_string()));
        Self {
            version: VERSION,
            labels: labels.collect(),
            begun_ms: now_ms,
            written_ms: now_ms,
            interval_ms,
            first_segment: 0,
            first_wbl_segment: None,
            checkpoints: Vec::new(),
            caught_up_ms: None,
            durable_until_ms: None,
        }
    }

    /// The first segment that is needed beside the newest checkpoint; `None` if the log is not whole without one.
    pub fn first(&self) -> Option<u64> {
        match self.checkpoints.last() {
            Some(checkpoint) => Some(checkpoint.number.saturating_add(1)),
            None => (self.first_segment == 0).then_some(0),
        }
    }

    /// The segments that follow upon the beginnings which it names, in order.
    pub fn beginnings(&self) -> Vec<u64> {
        let has_first = self.first_segment == 0 && self.checkpoints.len() < CHECKPOINTS || self.checkpoints.is_empty();
        let first = has_first.then_some(self.first_segment);
        let after = |checkpoint: &Checkpoint| checkpoint.number.saturating_add(1);
        first.into_iter().chain(self.checkpoints.iter().map(after)).collect()
    }

    /// Adds a checkpoint; of many the newest remain.
    pub fn add(&mut self, checkpoint: Checkpoint) {
        self.checkpoints.push(checkpoint);
        let surplus = self.checkpoints.len().saturating_sub(CHECKPOINTS);
        self.checkpoints.drain(..surplus);
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| format!("it is no manifest: {error}"))?;
        if manifest.version != VERSION {
            return Err(format!(
                "it has version {} and this narthex reads version {VERSION}: use a newer one",
                manifest.version
            ));
        }
        // They become names of files.
        let is_number = |name: &str| !name.is_empty() && name.len() <= 20 && name.bytes().all(|c| c.is_ascii_digit());
        let files = || manifest.checkpoints.iter().flat_map(|checkpoint| &checkpoint.files);
        match files().find(|file| !is_number(&file.name)) {
            Some(file) => Err(format!("it names {:?} as a file of a checkpoint", file.name)),
            None => Ok(manifest),
        }
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Keys are strings and numbers are whole: nothing here can fail.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// The external labels.
    pub fn label_set(&self) -> Labels {
        Labels::from_pairs(&self.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_told_by_its_name_and_no_other_name_means_it() {
        let piece = Piece {
            position: 1_234_567,
            segment: 12,
            offset: 98_304,
            len: 77,
            read_ms: 1_796_000_000_123,
            crc: 0xdead_beef,
        };
        let name = "0000000001234567-00000012-0000098304-77-1796000000123-deadbeef";
        assert_eq!(piece.to_string(), name);
        assert_eq!(Piece::parse(name), Some(piece));
        for wrong in [
            "",
            "meta.json",
            "1234567-00000012-0000098304-77-1796000000123-deadbeef",
            "0000000001234567-00000012-0000098304-77-1796000000123-DEADBEEF",
            "0000000001234567-00000012-0000098304-+77-1796000000123-deadbeef",
            "0000000001234567-00000012-0000098304-77-1796000000123-deadbeef-1",
        ] {
            assert_eq!(Piece::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn generations_sort_by_their_beginning_and_no_name_is_that_of_a_block() {
        let labels = Labels::from_pairs([("cluster", "eu"), ("replica", "a")]);
        let identity = Identity::of(&labels);
        let begin = |newest: Option<&Generation>, ms| Generation::begin(identity.clone(), newest, ms, 0xab);
        let older = begin(None, 1_796_000_000_999);
        assert_eq!(older.name, "1796000000999-000000ab");
        // The clock was set back.
        let newer = begin(Some(&older), 5);
        assert_eq!(newer.name, "1796000001000-000000ab");
        assert_eq!(Generation::of_manifest(&older.manifest(77)), Some((older.clone(), 77)));
        for wrong in ["x", "x/y.json", "x/-1.json", "x/y-z.json", "/y-1.json", "x/y/z-1.json"] {
            assert_eq!(
                Generation::of_manifest(&format!("{}/{wrong}", manifests())),
                None,
                "{wrong}"
            );
        }
        let piece = Piece {
            position: 0,
            segment: 0,
            offset: 0,
            len: 1,
            read_ms: 0,
            crc: 0,
        };
        for key in [
            older.manifest(77),
            piece.key(&older, Log::Wal),
            older.checkpoint_file(3, "00000000"),
        ] {
            // That of a block has 26 characters.
            assert!(key.split('/').all(|name| name.len() != 26), "{key}");
        }
    }

    #[test]
    fn other_labels_have_another_identity_however_their_text_is_split() {
        let of = |pairs: &[(&str, &str)]| Identity::of(&Labels::from_pairs(pairs.iter().copied()));
        assert_ne!(of(&[("a", "bc")]), of(&[("ab", "c")]));
        assert_ne!(of(&[("a", "b"), ("c", "d")]), of(&[("a", "b")]));
        assert_eq!(of(&[("a", "b"), ("c", "d")]), of(&[("c", "d"), ("a", "b")]));
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_refused_otherwise() {
        let mut manifest = Manifest::begin(&Labels::from_pairs([("a", "b")]), 5, 10_000);
        manifest.checkpoints.push(Checkpoint {
            number: 2,
            seen_ms: 4,
            samples_from_ms: Some(-1),
            files: vec![CheckpointFile {
                name: "00000000".to_owned(),
                len: 7,
                crc32c: 9,
            }],
        });
        assert_eq!(Manifest::parse(&manifest.to_bytes()), Ok(manifest.clone()));
        assert_eq!(manifest.label_set(), Labels::from_pairs([("a", "b")]));
        manifest.checkpoints[0].files[0].name = "../../etc".to_owned();
        assert!(Manifest::parse(&manifest.to_bytes()).unwrap_err().contains("../../etc"));
        manifest.version = 2;
        assert!(
            Manifest::parse(&manifest.to_bytes())
                .unwrap_err()
                .contains("use a newer one")
        );
        assert!(Manifest::parse(b"{}").is_err());
    }
}
