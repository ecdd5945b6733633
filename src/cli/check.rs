//! Flags whose values are right in themselves and still cannot be run with.
//!
//! A flag of Thanos whose function narthex does not have yet is refused, so that nobody relies on what is not there. A
//! flag that only tunes a function which is off is accepted, as Thanos accepts it.

use std::path::PathBuf;

use super::{
    flags::{Common, MIN_TIME_MS, Sidecar},
    value::InlineYaml,
};
use crate::model::duration::TimeOrDuration;

/// Everything that stands against running, one line each; empty if nothing does.
pub(super) fn sidecar(flags: &Sidecar) -> Vec<String> {
    let mut found = Findings(Vec::new());
    common(&flags.common, &mut found);
    servers(flags, &mut found);
    queries(flags, &mut found);
    found.not_yet(
        given(&flags.reloader.config_file) || !flags.reloader.rule_dirs.is_empty(),
        "reloader.config-file and --reloader.rule-dir",
        "reloading Prometheus",
        "drop them and run a config-reloader beside Prometheus",
    );
    let prometheus = &flags.prometheus;
    for (name, value) in [
        ("prometheus.get_config_interval", prometheus.get_config_interval),
        ("prometheus.get_config_timeout", prometheus.get_config_timeout),
    ] {
        found.when(value.is_zero(), format!("--{name} must be above 0, for example 30s"));
    }
    found.0
}

fn common(flags: &Common, found: &mut Findings) {
    found.not_yet(
        set(&flags.tracing_config, &flags.tracing_config_file),
        "tracing.config and --tracing.config-file",
        "tracing",
        "drop them",
    );
    let ratio = flags.auto_gomemlimit_ratio;
    let inside = ratio > 0.0 && ratio <= 1.0;
    found.when(
        !inside,
        format!("--auto-gomemlimit.ratio must be above 0 and at most 1, not {ratio}"),
    );
}

fn servers(flags: &Sidecar, found: &mut Findings) {
    found.not_yet(
        given(&flags.http.config),
        "http.config",
        "TLS and passwords on the HTTP server",
        "drop it and listen on an address that only the scraper reaches, or put a proxy in front",
    );
    let grpc = &flags.grpc;
    found.not_yet(
        given(&grpc.tls_cert) || given(&grpc.tls_key) || given(&grpc.tls_client_ca),
        "grpc-server-tls-cert, -key and -client-ca",
        "the gRPC server (StoreAPI)",
        "drop them",
    );
    found.not_yet(
        set(&grpc.request_logging, &grpc.request_logging_file),
        "request.logging-config and --request.logging-config-file",
        "logging of gRPC calls",
        "drop them",
    );
}

fn queries(flags: &Sidecar, found: &mut Findings) {
    found.not_yet(
        flags.store.request_series != 0 || flags.store.request_samples != 0,
        "store.limits.request-series and --store.limits.request-samples",
        "the StoreAPI that they limit",
        "drop them or set them to 0",
    );
    found.not_yet(
        !matches!(flags.store.min_time, TimeOrDuration::At(MIN_TIME_MS)),
        "min-time",
        "the StoreAPI that it limits",
        "drop it; uploads never depend on it",
    );
}

struct Findings(Vec<String>);

impl Findings {
    fn when(&mut self, wrong: bool, line: String) {
        if wrong {
            self.0.push(line);
        }
    }

    fn not_yet(&mut self, used: bool, flags: &str, function: &str, way_out: &str) {
        self.when(
            used,
            format!("--{flags}: this version does not have {function} yet; {way_out}"),
        );
    }
}

fn given(path: &Option<PathBuf>) -> bool {
    path.as_ref().is_some_and(|path| !path.as_os_str().is_empty())
}

fn set(inline: &InlineYaml, file: &Option<PathBuf>) -> bool {
    !inline.is_empty() || given(file)
}

/// A label name that `--label` sets twice.
pub(super) fn repeated_label(flags: &Sidecar) -> Option<&str> {
    let labels = &flags.prometheus.label;
    let again = |i: &usize| labels[..*i].iter().any(|earlier| earlier.name == labels[*i].name);
    (0..labels.len()).find(again).map(|i| &*labels[i].name)
}
