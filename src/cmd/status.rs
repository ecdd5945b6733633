//! `narthex status`: what the status page of a running sidecar shows, in a terminal.
//!
//! One request with one deadline; nothing is kept. It ends with 3 where somebody should look: the sidecar is not ready, shipping
//! fails, or blocks need attention.

use std::io::{self, IsTerminal as _};

use anyhow::{Result, anyhow, bail};

use super::output;
use crate::{
    cli,
    ops::supervisor::Outcome,
    prometheus::{Client, ErrorKind, HttpClientConfig},
    status::{Status, Tone, VERSION, text::text},
};

/// The largest answer that is taken, in bytes: a thousand blocks take some 400 KiB.
const ANSWER_MAX: usize = 16 << 20;
/// The path that is asked.
const PATH: &str = "/api/v1/status";

/// Asks, and prints the answer.
pub(super) async fn status(flags: cli::Status) -> Result<Outcome> {
    let yaml = flags.http_client_yaml()?;
    let http_client = HttpClientConfig::parse(&yaml).map_err(|error| anyhow!(ours(&error.to_string())))?;
    let client = Client::new(&flags.url, &http_client, flags.timeout);
    let client = client.map_err(|error| anyhow!(ours(&error.to_string())))?;
    let answer = client.document(PATH, ANSWER_MAX).await;
    let answer = answer.map_err(|error| anyhow!("{} {}: {}", error.method, error.url, in_words(&error.kind)))?;
    let status: Status = serde_json::from_slice(&answer).map_err(|error| {
        anyhow!(
            "what answers at {} is no narthex of this version or a later one: {error}",
            client.url()
        )
    })?;
    if status.version < VERSION {
        bail!("what answers at {} is no narthex: check --url", client.url());
    }
    output::print(&match flags.result.output {
        // As it came: it may have keys that are not known here.
        cli::Output::Json => String::from_utf8_lossy(&answer).into_owned() + "\n",
        cli::Output::Text => text(&status, shows_colours()),
    })?;
    let fine = status.readiness.ready && !matches!(status.verdict().tone(), Tone::Warning | Tone::Bad);
    Ok(Outcome {
        code: if fine { 0 } else { 3 },
    })
}

/// Whether colours are wanted: on a terminal, unless <https://no-color.org> says otherwise.
fn shows_colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What is wrong, in the words of this command.
fn in_words(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::Refused => {
            "connection refused: no sidecar runs there, or --url is not its --http-address".to_owned()
        }
        ErrorKind::Unreachable(why) => format!(
            "cannot connect ({why}): check --http-client, and whether --url is the sidecar's --http-address and not its --grpc-address"
        ),
        ErrorKind::NoTls => "the server there does not use TLS: write http:// instead of https:// in --url".to_owned(),
        ErrorKind::NeedsTls => "the server there uses TLS: write https:// instead of http:// in --url".to_owned(),
        ErrorKind::NotHttp(why) => {
            format!(
                "the server there does not speak HTTP ({why}): --url is the sidecar's --http-address, not its --grpc-address"
            )
        }
        ErrorKind::Timeout(limit) => format!("no complete answer within {limit:?} (--timeout)"),
        ErrorKind::UrlCredentials { code, .. } => format!("status {code}: it refuses the credentials of --url"),
        ErrorKind::Status { code: 401 | 403, .. } => {
            "it wants a password or a certificate, as its --http.config says: give them in --http-client".to_owned()
        }
        ErrorKind::Status { code: 404, .. } => {
            "there is no such page: this is no narthex, or one without a status page; check --url".to_owned()
        }
        ErrorKind::Status { code, .. } => format!("status {code}"),
        kind => ours(&kind.to_string()),
    }
}

/// A message about the flags of the sidecar for its Prometheus, with those of this command.
fn ours(message: &str) -> String {
    message
        .replace("--prometheus.http-client", "--http-client")
        .replace("--prometheus.url", "--url")
}
