//! The program: parses, sets up logging, runs, exits.

use std::{
    io::{Write, stderr, stdout},
    process::ExitCode,
};

use narthex::{
    cli::{self, Command},
    cmd,
    ops::{process, supervisor},
};

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        cli::Outcome::Run(command) => command,
        cli::Outcome::Print { to_stdout, text, exit } => {
            // Nobody is left to be told when the terminal is gone.
            let _ = if to_stdout {
                stdout().write_all(text.as_bytes())
            } else {
                stderr().write_all(text.as_bytes())
            };
            return ExitCode::from(exit);
        }
    };
    match start(command) {
        Ok(outcome) => outcome.exit(),
        Err(error) => {
            let _ = writeln!(stderr(), "narthex: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> anyhow::Result<supervisor::Outcome> {
    cmd::init_log(command.common())?;
    if let Err(error) = process::raise_open_files() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    // The only provider there is; a second call is impossible here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Sidecar(flags) => {
                let config = cmd::sidecar::Config::new(*flags)?;
                cmd::sidecar::build(config).await?.run().await
            }
        }
    })
}
