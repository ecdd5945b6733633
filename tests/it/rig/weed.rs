//! SeaweedFS: a real S3 server in a process of its own.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{
    bucket::BucketView,
    process::{Process, free_port_pair},
    s3_client::S3Client,
    tools::{Tools, temp_dir},
    wait::try_until,
};

/// The credentials of every S3 server of the rig.
pub(crate) const ACCESS_KEY: &str = "rig-access";
/// See [`ACCESS_KEY`].
pub(crate) const SECRET_KEY: &str = "rig-secret-rig-secret";

/// A running SeaweedFS; killed when dropped.
#[derive(Debug)]
pub(crate) struct Weed {
    port: u16,
    process: Process,
    dir: TempDir,
}

impl Weed {
    /// The one instance of this test process, started by whoever asks first. It ends with the process: nobody drops it,
    /// its watchdog does the work.
    pub(crate) async fn shared() -> &'static Weed {
        static SHARED: OnceCell<Weed> = OnceCell::const_new();
        SHARED.get_or_init(Weed::start).await
    }

    /// Starts one and waits until it serves S3.
    pub(crate) async fn start() -> Weed {
        let program = Tools::weed();
        for _ in 0..5 {
            let dir = temp_dir("weed");
            let port = free_port_pair();
            let process = spawn(&program, port, dir.path());
            let probe = S3Client::new(format!("http://127.0.0.1:{port}"), "probe");
            let serving = async || match process.exited() {
                Some(_) => Some(false),
                // Only a store that can already hold something can list.
                None => matches!(probe.create_bucket().await, Ok(())).then_some(true),
            };
            if try_until(Duration::from_secs(90), serving).await == Some(true) {
                return Weed { port, process, dir };
            }
            let log = process.log();
            assert!(
                log.contains("address already in use"),
                "SeaweedFS did not start; its log:\n{log}"
            );
        }
        panic!("no free ports for SeaweedFS after five tries");
    }

    /// Its address without the scheme, as narthex' configuration has it.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes a fresh bucket with a name that begins with `name`.
    pub(crate) async fn bucket(&self, name: &str) -> BucketView {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let client = S3Client::new(format!("http://{}", self.host()), &name);
        client
            .create_bucket()
            .await
            .unwrap_or_else(|error| panic!("cannot make bucket {name}: {error}"));
        BucketView::s3(client)
    }

    /// Sends a signal by name, e.g. `STOP` and `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }
}

fn spawn(program: &Path, port: u16, dir: &Path) -> Process {
    let mut command = Command::new(program);
    command.args([
        "mini",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-dir=data",
        "-master.telemetry=false",
        // By itself it takes a GiB for each, and each bucket takes several: a small disk is full after some tests.
        "-master.volumeSizeLimitMB=64",
    ]);
    // Everything that would otherwise open a fixed port or a socket below /tmp.
    command.args([
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]);
    command.args([
        "-s3.localSocket=s3.sock",
        "-filer.localSocket=filer.sock",
        "-s3.autoCreateBucket=false",
    ]);
    command.arg(format!("-s3.port={port}"));
    for flag in ["-master.port", "-filer.port", "-volume.port", "-admin.port"] {
        command.arg(format!("{flag}={}", free_port_pair()));
    }
    command
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .current_dir(dir);
    fs_err::create_dir_all(dir.join("data")).expect("a new directory can be written");
    Process::spawn("weed", &mut command, &dir.join("weed.log"), Some(dir))
}
