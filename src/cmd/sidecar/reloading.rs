//! The part that has Prometheus load its files anew: what it works with.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use crate::{
    cli,
    prometheus::client::Client,
    reloader::{Method, Metrics, Reloader, Settings},
};

/// The reloader that the flags describe; `reloaded` is notified after each reload, since labels may be others then. The client
/// is to have connections of its own: a reload that takes long must not take the heartbeat's.
pub(super) fn reloader(
    flags: &cli::Reloader,
    client: Client,
    reloaded: Arc<Notify>,
    registry: &mut Registry,
) -> Reloader {
    Reloader::new(settings(flags), client, Metrics::register(registry), reloaded)
}

/// What the flags say of it.
pub(in crate::cmd) fn settings(flags: &cli::Reloader) -> Settings {
    let path = |path: Option<&PathBuf>| cli::named(path.map(PathBuf::as_path)).map(Path::to_owned);
    Settings {
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
    }
}
