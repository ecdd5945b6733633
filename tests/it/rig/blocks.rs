//! Valid blocks of any size, made by promtool from a text of ours.

use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
};

use fs_err as fs;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    keeper::link_tree,
    prometheus::sealed,
    tools::{Tools, target_dir, temp_dir},
};

/// Part of the name of what is kept from run to run; to be changed together with the generator.
const VERSION: u32 = 1;

/// The longest block that promtool makes, in seconds.
const RANGE: u64 = 7200;

/// Prometheus' limit for one chunk segment, in bytes.
const SEGMENT: u64 = 512 << 20;

/// What a block is to hold. The same specification gives the same samples on every machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub series: u64,
    /// Samples of each series.
    pub samples: u64,
    /// Seconds between two samples.
    pub step: u64,
    /// When the block starts: so many ranges of two hours after the start of 2026.
    pub slot: u64,
}

impl Spec {
    /// A small block: 100 series with 240 samples each.
    pub(crate) fn small(slot: u64) -> Spec {
        Spec {
            series: 100,
            samples: 240,
            step: 30,
            slot,
        }
    }
}

/// Makes one block, or finds it below the target directory where an earlier run has left it. It is to be read only: use
/// [`place`] or [`place_anew`] to put it before a sidecar.
pub(crate) fn generate(spec: Spec) -> PathBuf {
    assert!(
        spec.samples * spec.step <= RANGE,
        "{spec:?} does not fit into one block"
    );
    let dir = generate_all(spec);
    let blocks = sealed(&dir);
    assert_eq!(blocks.len(), 1, "promtool makes one block of {spec:?}");
    dir.join(&blocks[0])
}

/// Makes as many blocks as it takes, one for each range of two hours, or finds them as [`generate`] does; the directory
/// that they are in, which is to be read only.
pub(crate) fn generate_all(spec: Spec) -> PathBuf {
    let name = format!(
        "v{VERSION}-{}x{}-{}s-{}",
        spec.series, spec.samples, spec.step, spec.slot
    );
    of_text(&name, |path| write(spec, path))
}

/// Makes the blocks of a text in the OpenMetrics format that `write` puts into a file, or finds them below the target
/// directory where an earlier run has left them under this name; the directory that they are in, which is to be read only.
pub(crate) fn of_text(name: &str, write: impl FnOnce(&Path) -> std::io::Result<()>) -> PathBuf {
    let parent = target_dir().join("testdata");
    let dir = parent.join(name);
    if sealed(&dir).is_empty() {
        let work = temp_dir("generate");
        let (text, out) = (work.path().join("text"), work.path().join("out"));
        write(&text).expect("the target directory can be written");
        let done = Command::new(Tools::oldest().promtool)
            .args(["tsdb", "create-blocks-from", "openmetrics", "-q"])
            .args([&text, &out])
            .output()
            .expect("promtool can be started");
        assert!(
            done.status.success(),
            "promtool: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        fs::create_dir_all(&parent).expect("the target directory can be written");
        // An error means that another test was faster.
        let _ = fs::rename(&out, &dir);
    }
    dir
}

fn write(spec: Spec, path: &Path) -> std::io::Result<()> {
    const YEAR_2026: u64 = 1_767_225_600;
    let start = YEAR_2026 + spec.slot * RANGE;
    let mut out = BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    // Any generator that gives the same numbers everywhere will do (xorshift).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for series in 0..spec.series {
        if series % 500 == 0 {
            writeln!(out, "# TYPE rig_{:04} gauge", series / 500)?;
        }
        let mut value = next() % 1_000_000;
        for sample in 0..spec.samples {
            value += next() % 128;
            let (family, time) = (series / 500, start + sample * spec.step);
            writeln!(
                out,
                "rig_{family:04}{{instance=\"10.0.0.{}:9100\",n=\"{series}\"}} {value} {time}",
                series % 250
            )?;
        }
    }
    writeln!(out, "# EOF")?;
    out.flush()
}

/// Puts a block into a data directory the way Prometheus does, by a rename at the end; the files are hard links. Returns
/// its name.
pub(crate) fn place(block: &Path, data: &Path) -> String {
    let id = block
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a block has a name")
        .to_owned();
    let half = data.join(format!("{id}.tmp-for-creation"));
    link_tree(block, &half).expect("the block can be linked");
    fs::rename(half, data.join(&id)).expect("the data directory can be written");
    id
}

/// As [`place`], under a new name, so that one block can stand for many.
pub(crate) fn place_anew(block: &Path, data: &Path) -> String {
    let id = ulid::Ulid::generate().to_string();
    let half = data.join(format!("{id}.tmp-for-creation"));
    link_tree(block, &half).expect("the block can be linked");
    let path = half.join("meta.json");
    // Written beside and renamed: the file itself is a link to the original.
    fs::write(half.join("meta.json.tmp"), renamed(block, &id)).expect("the data directory can be written");
    fs::rename(half.join("meta.json.tmp"), &path).expect("the data directory can be written");
    fs::rename(half, data.join(&id)).expect("the data directory can be written");
    id
}

/// Copies a block of an hour ago into a data directory, in place as `cp -r` does, and without its index: while it is there
/// Prometheus cannot reload its blocks. Returns its name.
pub(crate) fn copy_without_index(block: &Path, data: &Path) -> String {
    let hour = std::time::Duration::from_secs(3600);
    let id = ulid::Ulid::from_datetime(std::time::SystemTime::now() - hour).to_string();
    let copy = data.join(&id);
    fs::create_dir_all(copy.join("chunks")).expect("the data directory can be written");
    fs::copy(block.join("chunks/000001"), copy.join("chunks/000001")).expect("the block has chunks");
    fs::write(copy.join("meta.json"), renamed(block, &id)).expect("the data directory can be written");
    id
}

/// The `meta.json` of a block as if its name were another.
fn renamed(block: &Path, id: &str) -> Vec<u8> {
    let text = fs::read(block.join("meta.json")).expect("the block has meta.json");
    let mut meta: Value = serde_json::from_slice(&text).expect("it is JSON");
    meta["ulid"] = Value::from(id);
    meta["compaction"]["sources"] = Value::from(vec![id]);
    serde_json::to_vec_pretty(&meta).expect("JSON can be written")
}

/// A valid block of at least `bytes` bytes that takes nearly no space on disk: to a small block further chunk segments are
/// added, which the index does not refer to and which are holes but for their headers. The block is in the directory that
/// is returned, which removes it when dropped.
pub(crate) fn sparse(bytes: u64) -> (TempDir, PathBuf) {
    let dir = temp_dir("sparse");
    let id = place(&generate(Spec::small(0)), dir.path());
    let block = dir.path().join(id);
    let mut left = bytes;
    for number in 2.. {
        if left == 0 {
            break;
        }
        let size = left.clamp(8, SEGMENT);
        let mut segment =
            fs::File::create(block.join(format!("chunks/{number:06}"))).expect("the block can be written");
        segment
            .write_all(&[0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0])
            .expect("the block can be written");
        segment.set_len(size).expect("the file system has sparse files");
        left = left.saturating_sub(size);
    }
    (dir, block)
}
