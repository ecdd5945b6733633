//! The real narthex program.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use reqwest::StatusCode;
use tempfile::TempDir;

use super::{
    http,
    metrics::Metrics,
    process::{Process, free_port},
    prometheus::Prometheus,
    tools::temp_dir,
    wait::try_until,
};

/// How long a `narthex sidecar` may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(60);

/// A `narthex sidecar`; killed when dropped.
#[derive(Debug)]
pub(crate) struct Sidecar {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    under: Vec<String>,
    http: u16,
    grpc: u16,
    process: Process,
    dir: TempDir,
}

impl Sidecar {
    /// The program that was built together with this test or example.
    pub(crate) fn program() -> PathBuf {
        if let Some(path) = option_env!("CARGO_BIN_EXE_narthex") {
            return path.into();
        }
        // target/<profile>/examples/demo -> target/<profile>/narthex
        let this = std::env::current_exe().expect("a process knows its program");
        let profile = this
            .parent()
            .and_then(Path::parent)
            .expect("an example is two levels below target");
        profile.join("narthex")
    }

    /// The flags that point it at a Prometheus and a bucket (YAML of `--objstore.config`).
    pub(crate) fn flags(prometheus: &Prometheus, objstore: &str) -> Vec<String> {
        vec![
            format!("--prometheus.url={}", prometheus.url()),
            format!("--tsdb.path={}", prometheus.data().display()),
            format!("--objstore.config={objstore}"),
        ]
    }

    /// Starts `narthex sidecar` with these flags and addresses of its own. It need not get ready: ask
    /// [`Sidecar::wait_ready`].
    pub(crate) fn start(args: Vec<String>) -> Sidecar {
        Sidecar::start_in(args, Vec::new())
    }

    /// As [`Sidecar::start`], with further environment variables.
    pub(crate) fn start_in(args: Vec<String>, env: Vec<(String, String)>) -> Sidecar {
        Sidecar::launch(Vec::new(), args, env)
    }

    /// As [`Sidecar::start`], below a program that changes its own surroundings and then becomes narthex, e.g. `setpriv`.
    pub(crate) fn start_under(under: Vec<String>, args: Vec<String>) -> Sidecar {
        Sidecar::launch(under, args, Vec::new())
    }

    fn launch(under: Vec<String>, args: Vec<String>, env: Vec<(String, String)>) -> Sidecar {
        let (program, http, grpc, dir) = (Sidecar::program(), free_port(), free_port(), temp_dir("sidecar"));
        let process = spawn(&program, &under, &args, &env, (http, grpc), dir.path());
        Sidecar {
            program,
            args,
            env,
            under,
            http,
            grpc,
            process,
            dir,
        }
    }

    /// Starts it again with the same flags, after [`Sidecar::stop`] or [`Sidecar::kill9`]. The log goes on.
    pub(crate) fn start_again(&mut self) {
        self.process.kill();
        self.process = spawn(
            &self.program,
            &self.under,
            &self.args,
            &self.env,
            (self.http, self.grpc),
            self.dir.path(),
        );
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The address of its HTTP server, e.g. `http://127.0.0.1:1234`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// The address of its gRPC server, e.g. `http://127.0.0.1:1235`.
    pub(crate) fn grpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// Whether it says that it is ready.
    pub(crate) async fn ready(&self) -> bool {
        http::ok(&format!("{}/-/ready", self.url())).await
    }

    /// Waits until it is ready.
    pub(crate) async fn wait_ready(&self, within: Duration) {
        self.wait_until(within, "ready", async || self.ready().await.then_some(()))
            .await;
    }

    /// Its metrics; `None` when it does not answer.
    pub(crate) async fn metrics(&self) -> Option<Metrics> {
        let (status, page) = http::get(&format!("{}/metrics", self.url())).await?;
        (status == StatusCode::OK).then(|| Metrics::parse(&String::from_utf8_lossy(&page)))
    }

    /// The sum of all series of this name; `None` when there are none or it does not answer.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        self.metrics().await?.value(name, &[])
    }

    /// Asks `probe` again and again until it gives something. Panics with the end of the log when that takes longer than
    /// `within`, or when the program ends.
    pub(crate) async fn wait_until<T>(
        &self,
        within: Duration,
        what: impl Display,
        mut probe: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let look = async || match probe().await {
            Some(found) => Some(Ok(found)),
            None => self.process.exited().map(Err),
        };
        match try_until(within, look).await {
            Some(Ok(found)) => found,
            Some(Err(status)) => panic!(
                "narthex ended ({status}) before: {what}; its log:\n{}",
                self.process.log_tail()
            ),
            None => panic!(
                "did not come within {within:?}: {what}; the log:\n{}",
                self.process.log_tail()
            ),
        }
    }

    /// How it ended, if it did.
    pub(crate) fn exited(&self) -> Option<ExitStatus> {
        self.process.exited()
    }

    /// Waits for it to end by itself.
    pub(crate) async fn wait(&self, within: Duration) -> ExitStatus {
        self.process.wait(within).await
    }

    /// Sends SIGTERM and waits for the end, at most a minute.
    pub(crate) async fn stop(&self) -> ExitStatus {
        self.process.stop(STOP).await
    }

    /// Sends a signal by name, e.g. `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill9(&self) -> ExitStatus {
        self.process.kill()
    }

    /// All that it has printed, over all its starts.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// The most memory that it has held at once so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.process.peak_memory()
    }

    /// How many descriptors it has open.
    pub(crate) fn open_files(&self) -> usize {
        self.process.open_files()
    }
}

fn spawn(
    program: &Path,
    under: &[String],
    args: &[String],
    env: &[(String, String)],
    (http, grpc): (u16, u16),
    dir: &Path,
) -> Process {
    let mut command = match under {
        [] => Command::new(program),
        [outer, more @ ..] => {
            let mut command = Command::new(outer);
            command.args(more).arg(program);
            command
        }
    };
    // The flags may say themselves where on its ports it listens.
    command.arg("sidecar");
    for (flag, port) in [("--http-address=", http), ("--grpc-address=", grpc)] {
        match args.iter().find_map(|arg| arg.strip_prefix(flag)) {
            Some(form) => command.arg(format!("{flag}{}", form.replace("PORT", &port.to_string()))),
            None => command.arg(format!("{flag}127.0.0.1:{port}")),
        };
    }
    let address = |arg: &&String| arg.starts_with("--http-address=") || arg.starts_with("--grpc-address=");
    command.args(args.iter().filter(|arg| !address(arg)));
    // What this machine's owner has configured for himself must not change what a test sees.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_uppercase();
        if ["AWS_", "OTEL_"].iter().any(|start| text.starts_with(start)) || text.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command.envs(env.iter().map(|(name, value)| (name, value)));
    Process::spawn("narthex", &mut command, &dir.join("narthex.log"), Some(dir))
}
