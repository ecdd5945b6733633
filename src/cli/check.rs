//! Flags whose values are right in themselves and still cannot be run with.
//!
//! A flag of Thanos whose function narthex does not have yet is refused, so that nobody relies on what is not there. A
//! flag that only tunes a function which is off is accepted, as Thanos accepts it.

use std::path::PathBuf;

use super::{
    flags::{Common, Sidecar},
    value::InlineYaml,
};

/// Everything that stands against running, one line each; empty if nothing does.
pub(super) fn sidecar(flags: &Sidecar) -> Vec<String> {
    let mut found = Findings(Vec::new());
    common(&flags.common, &mut found);
    servers(flags, &mut found);
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
