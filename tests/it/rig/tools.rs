//! The programs that `scripts/setup` fetched, and where test files may be written.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use fs_err as fs;
use tempfile::TempDir;

use super::limit;

/// One version of Prometheus.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    /// E.g. `2.42.0`.
    pub version: String,
    pub prometheus: PathBuf,
    pub promtool: PathBuf,
}

impl Leg {
    /// Whether it is this version or a later one.
    pub(crate) fn at_least(&self, major: u32, minor: u32) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next(), parts.next()) >= (Some(major), Some(minor))
    }

    /// Panics unless promtool takes this file for a configuration; `what` it is, in words.
    #[track_caller]
    pub(crate) fn assert_configuration(&self, path: &Path, what: &str) {
        let done = Command::new(&self.promtool)
            .args(["check", "config"])
            .arg(path)
            .output();
        let done = done.expect("promtool can be started");
        assert!(
            done.status.success(),
            "{what}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

/// The programs at hand.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// The Prometheus versions, the oldest (2.42) first.
    pub legs: Vec<Leg>,
}

impl Tools {
    /// What `scripts/setup` found; panics when it has not run.
    pub(crate) fn find() -> Tools {
        limit::begin();
        let legs: Vec<Leg> = list("prometheus.list")
            .lines()
            .map(|line| {
                let mut fields = line.split('\t');
                let mut field = || fields.next().expect("a line of prometheus.list has three fields");
                let version = field().to_owned();
                Leg {
                    version,
                    prometheus: program(field()),
                    promtool: program(field()),
                }
            })
            .collect();
        assert!(!legs.is_empty(), "no Prometheus at hand: run scripts/setup test");
        Tools { legs }
    }

    /// The Prometheus that every test runs with: 2.42.
    pub(crate) fn oldest() -> Leg {
        Tools::find().legs.swap_remove(0)
    }

    /// The newest one at hand.
    pub(crate) fn newest() -> Leg {
        Tools::find().legs.pop().expect("there is one at least")
    }

    /// The directory with the Python modules of the emulator of Google's store.
    pub(crate) fn gcs_emulator() -> PathBuf {
        list("gcs-emulator.list").trim().into()
    }

    /// The program that runs Azurite, and its script.
    pub(crate) fn azurite() -> (PathBuf, PathBuf) {
        let text = list("azurite.list");
        let (node, script) = text.trim().split_once('\t').expect("two fields");
        (program(node), program(script))
    }

    /// Chromium, and its ChromeDriver.
    pub(crate) fn chromium() -> (PathBuf, PathBuf) {
        let text = list("chromium.list");
        let (chromium, driver) = text.trim().split_once('\t').expect("two fields");
        (program(chromium), program(driver))
    }

    /// The program that checks manifests, and the directory with the schemas of Kubernetes and of the operator.
    pub(crate) fn kubernetes_models() -> (PathBuf, PathBuf) {
        let text = list("kubernetes-models.list");
        let (node, dir) = text.trim().split_once('\t').expect("two fields");
        (program(node), dir.into())
    }

    /// SeaweedFS, the separate S3 server.
    pub(crate) fn weed() -> PathBuf {
        program(list("weed.list").trim())
    }
}

fn list(name: &str) -> String {
    let path = target_dir().join("tools").join(name);
    fs::read_to_string(path).unwrap_or_else(|error| panic!("run scripts/setup test ({error})"))
}

fn program(path: &str) -> PathBuf {
    assert!(Path::new(path).is_file(), "{path} is gone: run scripts/setup test");
    path.into()
}

/// Cargo's target directory.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
    }
}

/// A fresh directory below the target directory, removed when dropped. All of them are on one file system.
pub(crate) fn temp_dir(name: &str) -> TempDir {
    limit::begin();
    let parent = target_dir().join("tmp");
    fs::create_dir_all(&parent).expect("the target directory can be written");
    let parent = fs::canonicalize(parent).expect("the directory was just made");
    tempfile::Builder::new()
        .prefix(&format!("{name}-"))
        .tempdir_in(parent)
        .expect("the target directory can be written")
}
