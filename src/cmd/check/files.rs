//! What the flags name beside Prometheus, the data and the bucket: each is read as the sidecar reads it, on a thread of its
//! own, so that one on a file system that hangs holds up no other.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::metrics::gauge::Gauge;

use crate::{
    cli::{self, named},
    cmd::{
        sidecar::{queries, reloading},
        spans_config,
    },
    ops::web::Web,
    preflight::{
        Check, Finding, Part, certificates,
        table::{
            GRPC_CERTIFICATE, GRPC_CLIENT_CA, GRPC_LOGGING, GRPC_TLS, HTTP_CERTIFICATE, HTTP_CLIENT_CA, HTTP_CONFIG,
            QUERIES_FLAGS, QUERIES_SPILL_DIR, RELOADER_FILES, TRACING_CONFIG,
        },
    },
    reloader,
    threads::blocking,
    trust::ServerValidity,
};

/// Something to be read.
pub(super) struct Files {
    check: &'static Check,
    /// What is waited for.
    flag: &'static str,
    /// A file is made to see whether that works.
    pub(super) writes: bool,
    judge: fn(&cli::Sidecar) -> Vec<Finding>,
}

impl Files {
    const fn new(check: &'static Check, flag: &'static str, judge: fn(&cli::Sidecar) -> Vec<Finding>) -> Self {
        let writes = false;
        Self {
            check,
            flag,
            writes,
            judge,
        }
    }

    /// Reads what these flags name.
    pub(super) async fn look(&self, part: &Part, flags: &Arc<cli::Sidecar>) {
        part.waits_for(self.check, format!("the files of {}", self.flag));
        let (flags, judge) = (Arc::clone(flags), self.judge);
        match blocking(move || judge(&flags)).await {
            Ok(findings) => part.add(findings),
            Err(lost) => part.add([Finding::fail(self.check, lost.to_string())]),
        }
    }
}

/// Everything that flags may name.
pub(super) static ALL: [Files; 6] = [
    Files::new(&HTTP_CONFIG, "--http.config", |flags| http(&flags.http)),
    Files::new(&GRPC_TLS, "--grpc-server-tls-cert", |flags| grpc(&flags.grpc)),
    Files::new(&GRPC_LOGGING, "--request.logging-config-file", |flags| {
        call_log(&flags.grpc)
    }),
    Files::new(&TRACING_CONFIG, "--tracing.config-file", |flags| {
        tracing_config(&flags.common)
    }),
    Files::new(&RELOADER_FILES, "--reloader.config-file", |flags| {
        reloader_files(&flags.reloader)
    }),
    Files {
        writes: true,
        ..Files::new(&QUERIES_SPILL_DIR, "--store.spill-dir", |flags| spill_dir(&flags.store))
    },
];

/// Whether Prometheus is asked by HTTP to reload when files change.
pub(super) fn reloads_by_http(flags: &cli::Reloader) -> bool {
    follows_files(flags) && flags.method == cli::ReloadMethod::Http && !flags.watch_interval.is_zero()
}

fn follows_files(flags: &cli::Reloader) -> bool {
    let settings = reloading::settings(flags);
    settings.config_file.is_some() || !settings.rule_dirs.is_empty()
}

fn http(flags: &cli::Http) -> Vec<Finding> {
    let Some(path) = named(flags.config.as_deref()) else {
        return Vec::new();
    };
    let read = Web::load(path).and_then(|web| Ok((web.warnings(), web.validity()?)));
    let (warnings, validity) = match read {
        Ok(read) => read,
        Err(error) => return vec![Finding::fail(&HTTP_CONFIG, error.to_string())],
    };
    let mut findings: Vec<Finding> = warnings
        .iter()
        .map(|warning| Finding::warn(&HTTP_CONFIG, format!("{}: {warning}", path.display())))
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(&HTTP_CONFIG, path.display().to_string()));
    }
    if let Some(validity) = validity {
        findings.extend(judged(&HTTP_CERTIFICATE, &HTTP_CLIENT_CA, validity));
    }
    findings
}

fn grpc(flags: &cli::Grpc) -> Vec<Finding> {
    let read = queries::tls(flags).and_then(|tls| tls.map(|tls| tls.validity()).transpose());
    match read {
        Ok(None) => Vec::new(),
        Ok(Some(validity)) => {
            let mut findings = vec![Finding::ok(&GRPC_TLS, "certificate and key can be read, and fit")];
            findings.extend(judged(&GRPC_CERTIFICATE, &GRPC_CLIENT_CA, validity));
            findings
        }
        Err(error) => vec![Finding::fail(&GRPC_TLS, error.to_string())],
    }
}

/// What is said of the times of certificates.
fn judged(
    certificate: &'static Check,
    client_ca: &'static Check,
    validity: ServerValidity,
) -> impl Iterator<Item = Finding> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let own = validity
        .certificate
        .map(|validity| certificates::judge(certificate, "the server's certificate", validity, now));
    let of_clients = validity
        .client_ca
        .map(|validity| certificates::judge(client_ca, "the certificate of the clients' CA", validity, now));
    own.into_iter().chain(of_clients)
}

fn call_log(flags: &cli::Grpc) -> Vec<Finding> {
    match queries::call_log(flags) {
        Ok((None, _)) => Vec::new(),
        Ok((Some(_), _)) => vec![Finding::ok(&GRPC_LOGGING, "calls are logged as configured")],
        Err(error) => vec![Finding::fail(&GRPC_LOGGING, format!("{error:#}"))],
    }
}

fn tracing_config(flags: &cli::Common) -> Vec<Finding> {
    match spans_config(flags) {
        Ok(Some(config)) if config.warnings().is_empty() => {
            vec![Finding::ok(&TRACING_CONFIG, "spans are sent as configured")]
        }
        Ok(Some(config)) => {
            let warnings = config.warnings().iter();
            warnings
                .map(|warning| Finding::warn(&TRACING_CONFIG, warning))
                .collect()
        }
        Ok(None) => match named(flags.tracing_config_file.as_deref()) {
            Some(file) => {
                let text = format!("{} sends no spans: it is empty, or says so", file.display());
                vec![Finding::warn(&TRACING_CONFIG, text)]
            }
            None => Vec::new(),
        },
        Err(error) => vec![Finding::fail(&TRACING_CONFIG, format!("{error:#}"))],
    }
}

/// Flags of queries that do not do what they seem to; nothing is read.
pub(super) fn queries_flags(flags: &cli::Store) -> Vec<Finding> {
    let found = queries::without_effect(flags).into_iter();
    found.map(|text| Finding::warn(&QUERIES_FLAGS, text)).collect()
}

fn spill_dir(flags: &cli::Store) -> Vec<Finding> {
    match queries::spill_dir(flags, Gauge::default()) {
        Ok(None) => Vec::new(),
        Ok(Some(_)) => vec![Finding::ok(&QUERIES_SPILL_DIR, "a file was written and removed")],
        Err(error) => vec![Finding::fail(&QUERIES_SPILL_DIR, format!("{error:#}"))],
    }
}

fn reloader_files(flags: &cli::Reloader) -> Vec<Finding> {
    if !follows_files(flags) {
        return Vec::new();
    }
    // The process ends soon after its time, whether this has come to an end or not.
    let problems = reloader::problems(&reloading::settings(flags), &AtomicBool::new(false));
    match problems.is_empty() {
        true => vec![Finding::ok(&RELOADER_FILES, "the files that are followed can be read")],
        false => problems
            .into_iter()
            .map(|problem| Finding::fail(&RELOADER_FILES, problem))
            .collect(),
    }
}
