//! `narthex check`: looks at everything that a sidecar with these flags would need, and prints a line for each thing.
//!
//! Parts that do not need each other run side by side, each until `--timeout` at most; writing into the bucket ends a little
//! sooner, so that there is time to remove what was written. A signal ends all of them, and what was written is removed
//! then, too. What is wrong with the flags' files is found by what the sidecar itself reads them with.

mod files;
mod report;

use std::sync::{Arc, OnceLock};

use anyhow::Result;
use futures_util::future::join_all;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    encodings::newer_encodings,
    job::{self, Completion},
    output,
    sidecar::{
        peer_settings,
        shipping::{Configured, STALL},
    },
};
use crate::{
    cli,
    model::error_text::with_causes,
    objstore::{
        self, Bucket, Limits, StoreClock,
        config::{BucketConfig, Provider},
    },
    ops::{listen::reserve, supervisor::Outcome},
    preflight::{
        self, Finding, Part, Verdict, blocks,
        bucket::{self, Written},
        data_dir::{self, DataDir},
        prometheus, run_part,
        table::{BUCKET_CONFIG, DATA_DIRECTORY, GRPC_PORT, HTTP_PORT, PROMETHEUS_CLIENT, PROMETHEUS_REACHABLE},
    },
    prometheus::{
        Heartbeat, Snapshot,
        client::{Client, HttpClientConfig},
    },
    shipper::NewerEncodings,
    threads::blocking,
};

/// What of the time is left for removing what was written into the bucket.
const FOR_REMOVAL: u32 = 5;

pub(super) async fn check(flags: cli::Check) -> Result<Outcome> {
    let opened = OnceLock::new();
    let clean_up = async {
        if let Some(Opened { bucket, .. }) = opened.get() {
            bucket.settle().await;
        }
    };
    let job = async |token: CancellationToken| {
        let run = Run {
            flags: Arc::new(flags.sidecar),
            own: flags.check,
            opened: &opened,
            token: &token,
            begun: Instant::now(),
        };
        let Some(findings) = run.all().await else {
            return Ok(Completion::Interrupted);
        };
        output::print(&match run.own.result.output {
            cli::Output::Text => report::text(&findings),
            cli::Output::Json => output::json(&report::json(&findings))?,
        })?;
        Ok(match preflight::verdict(&findings) {
            Verdict::Ok | Verdict::Warn => Completion::Clean,
            Verdict::Fail => Completion::WithFindings,
        })
    };
    job::run_then(job, clean_up).await
}

/// A bucket that is open.
#[derive(Debug)]
struct Opened {
    bucket: Arc<dyn Bucket>,
    clock: StoreClock,
    /// The configuration allows for uploads in parts.
    parts: bool,
}

/// One run.
struct Run<'a> {
    flags: Arc<cli::Sidecar>,
    own: cli::CheckFlags,
    opened: &'a OnceLock<Opened>,
    token: &'a CancellationToken,
    begun: Instant,
}

impl Run<'_> {
    /// Everything that was found, in the order of the table; `None` after a signal.
    async fn all(&self) -> Option<Vec<Finding>> {
        let mut findings = {
            let (shipping, ports, files) = tokio::join!(self.shipping(), self.ports(), self.files());
            [shipping, ports, files].concat()
        };
        findings.sort_by_key(|finding| preflight::table::ALL.iter().position(|check| *check == finding.check));
        (!self.token.is_cancelled()).then_some(findings)
    }

    /// Runs a part until the time ends, or a signal comes.
    async fn part<T>(&self, work: impl AsyncFnOnce(&Part) -> T) -> (Vec<Finding>, Option<T>) {
        let limited = run_part(self.begun + self.own.timeout, self.own.timeout, work);
        self.token.run_until_cancelled(limited).await.unwrap_or_default()
    }

    /// What blocks are shipped from and to.
    async fn shipping(&self) -> Vec<Finding> {
        let (opening, ships) = self.part(async |part| self.open(part).await).await;
        // A bucket that is configured wrongly is to be mended, and Prometheus must suit it then.
        let local = self.prometheus_and_data(ships.unwrap_or(true));
        let (local, bucket) = tokio::join!(local, self.bucket());
        [opening, local, bucket].concat()
    }

    /// Reads the configuration of the bucket, and opens it without speaking to it; whether there is to be one.
    async fn open(&self, part: &Part) -> bool {
        let given = self.flags.objstore.given();
        part.waits_for(&BUCKET_CONFIG, given.unwrap_or_else(|| "the configuration".to_owned()));
        let objstore = self.flags.objstore.clone();
        let configured = blocking(move || Configured::read(&objstore)).await;
        let config = match configured.map_err(anyhow::Error::from).flatten() {
            Ok(Configured::Bucket(config, _)) => config,
            Ok(Configured::Nothing) => {
                let text = "no bucket is configured: nothing is shipped";
                part.add([Finding::ok(&BUCKET_CONFIG, text)]);
                return false;
            }
            Ok(Configured::Empty(flag)) => {
                let text = format!("{flag} is empty: nothing is shipped");
                part.add([Finding::warn(&BUCKET_CONFIG, text)]);
                return false;
            }
            Err(error) => {
                part.add([Finding::fail(&BUCKET_CONFIG, format!("{error:#}"))]);
                return true;
            }
        };
        part.add(
            config
                .warnings
                .iter()
                .map(|warning| Finding::warn(&BUCKET_CONFIG, warning)),
        );
        match self.open_configured(&config).await {
            Ok(opened) => {
                part.add([Finding::ok(&BUCKET_CONFIG, opened.bucket.identity())]);
                // There is one opening only.
                let _ = self.opened.set(opened);
            }
            Err(error) => part.add([Finding::fail(&BUCKET_CONFIG, with_causes(&error))]),
        }
        true
    }

    async fn open_configured(&self, config: &BucketConfig) -> Result<Opened, objstore::config::ConfigError> {
        let clock = StoreClock::default();
        let limits = Limits {
            requests_at_once: self.flags.shipper.requests_at_once(),
            stall: STALL,
            store_clock: clock.clone(),
            ..Limits::default()
        };
        let bucket = objstore::open(config, &limits, &mut Registry::default()).await?;
        let parts = !matches!(&config.provider, Provider::S3(s3) if !s3.multipart);
        Ok(Opened { bucket, clock, parts })
    }

    /// Lists, writes, reads and removes.
    async fn bucket(&self) -> Vec<Finding> {
        let Some(Opened { bucket, clock, parts }) = self.opened.get() else {
            return Vec::new();
        };
        let wanted = bucket::Wanted {
            write: self.own.write,
            parts: *parts,
        };
        let (limit, written) = (self.own.timeout, Written::new());
        let writing = limit - limit / FOR_REMOVAL;
        let probe = async |part: &Part| bucket::probe(part, &**bucket, clock, wanted, &written).await;
        let probed = self
            .token
            .run_until_cancelled(run_part(self.begun + writing, writing, probe));
        let (mut findings, _) = probed.await.unwrap_or_default();
        let remove = async |part: &Part| bucket::remove(part, &**bucket, &written).await;
        let (removed, _) = run_part(self.begun + limit, limit, remove).await;
        findings.extend(removed);
        findings
    }

    /// Asks Prometheus, looks at the data directory, and holds both against each other and the bucket.
    async fn prometheus_and_data(&self, ships: bool) -> Vec<Finding> {
        let ((mut findings, asked), (looked, dir)) = tokio::join!(
            self.part(async |part| self.ask(part, ships).await),
            self.part(async |part| self.look(part).await),
        );
        findings.extend(looked);
        let (snapshot, dir) = (asked.flatten(), dir.flatten());
        let Some(dir) = dir else { return findings };
        if let Some(snapshot) = snapshot.as_ref().filter(|snapshot| !snapshot.is_agent()) {
            findings.push(data_dir::is_that_of(&dir, snapshot));
        }
        if let Some(Opened { bucket, .. }) = self.opened.get() {
            let labels = snapshot.map(|snapshot| snapshot.labels);
            let shipper = &self.flags.shipper;
            let sets_marks =
                shipper.overlapping == cli::Overlapping::Mark || shipper.newer_encodings == cli::NewerEncodings::Mark;
            let compare = async |part: &Part| blocks::look(part, &**bucket, &dir, labels.as_ref(), sets_marks).await;
            findings.extend(self.part(compare).await.0);
        }
        findings
    }

    /// What Prometheus tells of itself.
    async fn ask(&self, part: &Part, ships: bool) -> Option<Snapshot> {
        let flags = &self.flags.prometheus;
        part.waits_for(&PROMETHEUS_CLIENT, "the files of --prometheus.http-client");
        let given = flags.client.clone();
        let read = blocking(move || super::http_client(&given)).await;
        let http = match read.map_err(anyhow::Error::from).flatten() {
            Ok((http, _)) => http,
            Err(error) => {
                part.add([Finding::fail(&PROMETHEUS_CLIENT, format!("{error:#}"))]);
                return None;
            }
        };
        let warnings = Client::warnings(&flags.url, &http).into_iter();
        part.add(warnings.map(|warning| Finding::warn(&PROMETHEUS_CLIENT, warning)));
        let client = match self.client(http).await {
            Ok(client) => client,
            Err(error) => {
                part.add([Finding::fail(&PROMETHEUS_CLIENT, format!("{error:#}"))]);
                return None;
            }
        };
        if !self.own.prometheus {
            return None;
        }
        part.waits_for(&PROMETHEUS_REACHABLE, format!("an answer of {}", client.url()));
        let url = client.url().to_owned();
        let heartbeat = Heartbeat::new(client, peer_settings(&self.flags, ships), &mut Registry::default());
        let wanted = prometheus::Wanted {
            ships,
            rewrites: newer_encodings(self.flags.shipper.newer_encodings) == NewerEncodings::Rewrite,
            holds: self.flags.shipper.hold_unshipped > 0,
            reloads_by_http: files::reloads_by_http(&self.flags.reloader),
        };
        match heartbeat.observe().await {
            Ok((snapshot, found)) => {
                part.add(prometheus::judge(&url, &snapshot, &found, wanted));
                Some(snapshot)
            }
            Err(error) => {
                part.add([prometheus::unanswered(&error)]);
                None
            }
        }
    }

    /// A client; reads the certificates that its configuration names.
    async fn client(&self, http: HttpClientConfig) -> Result<Client> {
        let flags = &self.flags.prometheus;
        let (url, limit) = (flags.url.clone(), flags.get_config_timeout.min(self.own.timeout));
        blocking(move || super::prometheus_client(&url, &http, limit)).await?
    }

    /// What there is in the data directory.
    async fn look(&self, part: &Part) -> Option<DataDir> {
        let path = self.flags.tsdb.path.clone();
        part.waits_for(&DATA_DIRECTORY, format!("the blocks of {}", path.display()));
        let expected = self.opened.get().map(|opened| data_dir::Expected {
            ledger_name: self.flags.shipper.meta_file_name.clone(),
            bucket: opened.bucket.identity().to_owned(),
            write: self.own.write,
        });
        let sends_log = expected.is_some() && self.flags.wal.interval().is_some();
        let looked = blocking(move || {
            let (mut findings, dir) = data_dir::look(&path, expected.as_ref());
            findings.extend((sends_log && dir.is_some()).then(|| data_dir::look_at_log(&path)));
            (findings, dir)
        })
        .await;
        match looked {
            Ok((findings, dir)) => {
                part.add(findings);
                dir
            }
            Err(lost) => {
                part.add([Finding::fail(&DATA_DIRECTORY, lost.to_string())]);
                None
            }
        }
    }

    /// Holds both ports for a moment.
    async fn ports(&self) -> Vec<Finding> {
        let reserve_both = async |part: &Part| {
            let mut held = Vec::new();
            for (check, flag, address) in [
                (&HTTP_PORT, "--http-address", &self.flags.http.address),
                (&GRPC_PORT, "--grpc-address", &self.flags.grpc.address),
            ] {
                part.waits_for(check, format!("the addresses of {flag}={address}"));
                match reserve(&address.to_socket(), flag).await {
                    Ok(port) => {
                        part.add([Finding::ok(check, format!("{} is free", port.local_address()))]);
                        held.push(port);
                    }
                    Err(error) => part.add([Finding::fail(check, with_causes(&error))]),
                }
            }
        };
        self.part(reserve_both).await.0
    }

    /// Reads the files that flags name, side by side.
    async fn files(&self) -> Vec<Finding> {
        let wanted = files::ALL.iter().filter(|files| self.own.write || !files.writes);
        let looks = wanted.map(|files| self.part(async |part| files.look(part, &self.flags).await));
        let found = join_all(looks).await.into_iter();
        let found = found.flat_map(|(findings, _)| findings);
        found.chain(files::queries_flags(&self.flags.store)).collect()
    }
}
