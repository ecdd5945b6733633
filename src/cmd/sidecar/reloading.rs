//! The part that has Prometheus load its files anew: what it works with.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use crate::{
    cli,
    prometheus::client::{Client, HttpClientConfig},
    reloader::{Method, Metrics, Reloader, Settings},
};

/// The reloader that the flags describe; `reloaded` is notified after each reload, since labels may be others then.
///
/// # Errors
/// As for the client of Prometheus.
pub(super) fn reloader(
    flags: &cli::Sidecar,
    http: &HttpClientConfig,
    reloaded: Arc<Notify>,
    registry: &mut Registry,
) -> Result<Reloader> {
    // Connections of its own: a reload that takes long must not take the heartbeat's.
    let client = Client::new(&flags.prometheus.url, http, flags.prometheus.get_config_timeout)
        .context("--prometheus.url or --prometheus.http-client cannot be used")?;
    let flags = &flags.reloader;
    let path = |path: Option<&PathBuf>| cli::named(path.map(PathBuf::as_path)).map(Path::to_owned);
    let settings = Settings {
        config_file: path(flags.config_file.as_ref()),
        output_file: path(flags.envsubst_file.as_ref()),
        rule_dirs: flags.rule_dirs.iter().filter_map(|dir| path(Some(dir))).collect(),
        watch_interval: flags.watch_interval,
        retry_interval: flags.retry_interval,
        method: match flags.method {
            cli::ReloadMethod::Http => Method::Http,
            cli::ReloadMethod::Signal => Method::Signal(flags.process_name.clone()),
        },
        variables: cli::process_env,
    };
    Ok(Reloader::new(settings, client, Metrics::register(registry), reloaded))
}
