//! What the scenes have in common: a Prometheus that only answers, blocks that differ in every byte that can, and eyes on
//! the ledger.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use fs_err as fs;
use narthex::shipper::QUIET;
use rand::{Rng, rngs::StdRng};
use serde_json::Value;

use crate::rig::{BucketView, Prometheus, Sidecar, blocks, blocks::Spec, prometheus::sealed, wait_until};

/// The name of the ledger unless a flag says otherwise.
pub(super) const LEDGER: &str = "thanos.shipper.json";

/// The longest that anything here may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// The flags for a data directory that no Prometheus writes to, beside one that answers.
pub(super) fn flags(prometheus: &Prometheus, data: &Path, objstore: &str) -> Vec<String> {
    vec![
        format!("--prometheus.url={}", prometheus.url()),
        format!("--tsdb.path={}", data.display()),
        format!("--objstore.config={objstore}"),
    ]
}

/// Seals a block in `data` as Prometheus does, by a rename at the end, and returns its name. Its times are those of
/// `slot`; if `extra` is not 0 it has a second chunk segment of so many bytes, a random piece again and again, which its
/// index does not refer to. All files are copies: links would share their time of change with other tests.
pub(super) fn seal(data: &Path, slot: u64, extra: usize, rng: &mut StdRng) -> String {
    let source = blocks::generate(Spec::small(slot));
    let id = ulid::Ulid::generate().to_string();
    let half = data.join(format!("{id}.tmp-for-creation"));
    fs::create_dir_all(half.join("chunks")).unwrap();
    for name in ["chunks/000001", "index", "tombstones"] {
        if source.join(name).is_file() {
            fs::copy(source.join(name), half.join(name)).unwrap();
        }
    }
    if extra > 0 {
        // All of it anew would take seconds without optimization.
        let mut piece = vec![0; 64 << 10];
        rng.fill_bytes(&mut piece);
        let mut segment = piece.repeat(extra.div_ceil(piece.len()));
        segment.truncate(extra);
        segment[..8].copy_from_slice(&[0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0]);
        fs::write(half.join("chunks/000002"), segment).unwrap();
    }
    let mut meta = json(&source.join("meta.json"));
    meta["ulid"] = Value::from(id.as_str());
    meta["compaction"]["sources"] = Value::from(vec![id.as_str()]);
    fs::write(half.join("meta.json"), serde_json::to_vec_pretty(&meta).unwrap()).unwrap();
    fs::rename(half, data.join(&id)).unwrap();
    id
}

/// Waits until it is ready and a first pass is through: what is sealed from now on is seen to be sealed.
pub(super) async fn watches(sidecar: &Sidecar) {
    sidecar.wait_ready(PATIENCE).await;
    let passed = async || {
        sidecar
            .metric("thanos_shipper_dir_syncs_total")
            .await
            .filter(|passes| *passes >= 1.0)
    };
    sidecar.wait_until(PATIENCE, "a first pass", passed).await;
}

/// A file that must be JSON.
pub(super) fn json(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap();
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A list of strings, empty for `null`.
pub(super) fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .map(|item| item.as_str().expect("a list of strings").to_owned())
        .collect()
}

/// The blocks of a data directory, ordered by `minTime`.
pub(super) fn by_time(data: &Path) -> Vec<String> {
    let mut blocks = sealed(data);
    blocks.sort_by_key(|id| {
        json(&data.join(id).join("meta.json"))["minTime"]
            .as_i64()
            .expect("minTime is a number")
    });
    blocks
}

/// What the ledger lists.
pub(super) fn listed(data: &Path) -> Vec<String> {
    strings(&json(&data.join(LEDGER))["uploaded"])
}

/// Waits until the ledger lists every block of the data directory, in the order of their times.
pub(super) async fn all_listed(sidecar: &Sidecar, data: &Path) {
    let look = async || (data.join(LEDGER).is_file() && listed(data) == by_time(data)).then_some(());
    sidecar
        .wait_until(PATIENCE, "the ledger lists all blocks of the data directory", look)
        .await;
}

/// Waits until exactly these blocks are visible.
pub(super) async fn all_visible(sidecar: &Sidecar, bucket: &BucketView, blocks: &[String]) {
    let mut blocks = blocks.to_vec();
    blocks.sort();
    let look = async || (bucket.visible().await == blocks).then_some(());
    sidecar
        .wait_until(PATIENCE, format!("{blocks:?} are visible"), look)
        .await;
}

/// Waits until the blocks have been left alone for so long that nobody can think they are being copied in.
pub(super) async fn all_quiet(data: &Path) {
    let newest = || {
        let files = sealed(data)
            .into_iter()
            .flat_map(|id| [data.join(&id), data.join(id).join("chunks")]);
        let files = files.flat_map(|dir| fs::read_dir(dir).unwrap());
        let changed = files.map(|file| {
            let file = file.unwrap().metadata().unwrap();
            SystemTime::UNIX_EPOCH + Duration::new(file.ctime() as u64, file.ctime_nsec() as u32)
        });
        changed.max().expect("there are blocks")
    };
    let look = async || {
        let age = SystemTime::now().duration_since(newest()).unwrap_or_default();
        (age > QUIET).then_some(())
    };
    wait_until(PATIENCE, "the blocks are quiet", look).await;
}

/// What a [`LedgerWatch`] has seen.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// How often it was looked whether the file has changed.
    pub(super) looks: u64,
    /// How often the file was read.
    pub(super) reads: u64,
    /// How many different lists were seen.
    pub(super) lists: usize,
    /// What was wrong at any time.
    pub(super) wrong: Vec<String>,
}

/// Reads a ledger again and again, as Prometheus may do at any moment.
#[derive(Debug)]
pub(super) struct LedgerWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Watched>,
}

impl LedgerWatch {
    /// Watches the ledger, which must be there. If the bucket is a directory, a listed block must be visible in it.
    pub(super) fn start(ledger: PathBuf, bucket: Option<PathBuf>) -> LedgerWatch {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let watch = move || {
            let (mut watched, mut good, mut last) = (Watched::default(), (None, String::new()), None);
            // Some bad moments tell as much as all of them.
            while !flag.load(Ordering::Relaxed) && watched.wrong.len() < 10 {
                // Each time it is opened the sidecar that is watched hears of it, so that what has not changed is read now and
                // then only.
                let stamp = stamp(&ledger);
                if stamp.is_none() || stamp != good.0 || watched.looks.is_multiple_of(10) {
                    watched.reads += 1;
                    match look(&ledger) {
                        Ok(text) if text == good.1 => good.0 = stamp,
                        Ok(text) => match list(&text, bucket.as_deref()) {
                            Ok(list) => {
                                watched.lists += usize::from(last.as_ref() != Some(&list));
                                (good, last) = ((stamp, text), Some(list));
                            }
                            Err(wrong) => watched.wrong.push(wrong),
                        },
                        Err(wrong) => watched.wrong.push(wrong),
                    }
                }
                watched.looks += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            watched
        };
        let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(watch);
        LedgerWatch {
            stop,
            thread: thread.expect("a thread can be started"),
        }
    }

    /// Ends the watch; panics if anything was wrong at any time.
    pub(super) fn end(self) -> Watched {
        self.stop.store(true, Ordering::Relaxed);
        let watched = self.thread.join().expect("the watch does not panic");
        assert!(
            watched.wrong.is_empty(),
            "the ledger was not good at all times: {watched:#?}"
        );
        watched
    }
}

/// What changes with a file; none if there is none.
fn stamp(path: &Path) -> Option<(u64, u64, i64, i64, u32)> {
    let found = fs::metadata(path).ok()?;
    Some((
        found.ino(),
        found.len(),
        found.ctime(),
        found.ctime_nsec(),
        found.mode(),
    ))
}

/// What the ledger holds, if others may read it.
fn look(ledger: &Path) -> Result<String, String> {
    let text = fs::read_to_string(ledger).map_err(|error| error.to_string())?;
    let mode = fs::metadata(ledger)
        .map_err(|error| error.to_string())?
        .permissions()
        .mode();
    if mode & 0o7777 != 0o644 {
        return Err(format!("mode {mode:o}"));
    }
    Ok(text)
}

/// What a ledger of this text lists, all of which is visible in a bucket that is a directory.
fn list(text: &str, bucket: Option<&Path>) -> Result<Vec<String>, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| format!("{error}: {text:?}"))?;
    if json["version"] != 1 || !(json["uploaded"].is_array() || json["uploaded"].is_null()) {
        return Err(format!("not a ledger: {text:?}"));
    }
    let list = strings(&json["uploaded"]);
    for id in &list {
        if bucket.is_some_and(|bucket| !bucket.join(id).join("meta.json").is_file()) {
            return Err(format!("{id} is listed, but not visible"));
        }
    }
    Ok(list)
}
