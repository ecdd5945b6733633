//! Having Prometheus load its configuration anew, and asking whether it did.

use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use url::Url;

use super::{Client, Error};
use crate::prometheus::{answer, error::ErrorKind};

/// What asks for a reload.
const RELOAD: &str = "/-/reload";

/// Where Prometheus tells of its last reload.
const RUNTIME: &str = "/api/v1/status/runtimeinfo";

/// How the last reload of its configuration went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastReload {
    /// Whether it was successful.
    pub successful: bool,
    /// When the configuration that is in use was loaded, in whole seconds.
    pub loaded_at: Timestamp,
}

impl Client {
    /// Has Prometheus load its configuration and rules, and waits for at most `limit` until it has.
    ///
    /// # Errors
    /// See [`ErrorKind`]. With [`ErrorKind::Status`] and a code of 500 the files are not what Prometheus accepts; its
    /// words are part of the error.
    pub async fn reload(&self, limit: Duration) -> Result<(), Error> {
        let ask = async |url: Url| {
            let asked = url.clone();
            let response = self.inner.transport.request(Method::POST, url).await?;
            if has_moved(&asked, response.url()) {
                // What answers there, a page to log in for example, has reloaded nothing.
                return Err(ErrorKind::status(302, b""));
            }
            match response.status().as_u16() {
                200 => Ok(()),
                _ => Err(refused(answer::refusal(response).await)),
            }
        };
        let done = self.call(RELOAD, limit, ask).await;
        done.map_err(|error| Error {
            method: "POST",
            ..error
        })
    }

    /// How the last reload went.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn last_reload(&self) -> Result<LastReload, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct RuntimeInfo {
            reload_config_success: bool,
            last_config_time: String,
        }
        let ask = async |url| {
            let mut response = self.inner.transport.request(Method::GET, url).await?;
            if response.status().as_u16() != 200 {
                return Err(answer::refusal(response).await);
            }
            let body = answer::collect(&mut response, answer::SMALL).await?;
            let info: RuntimeInfo = answer::data(&body, "reloadConfigSuccess and lastConfigTime in data")?;
            let loaded_at = info.last_config_time.parse();
            Ok(LastReload {
                successful: info.reload_config_success,
                loaded_at: loaded_at
                    .map_err(|_| ErrorKind::NotUnderstood("expected a time in lastConfigTime".into()))?,
            })
        };
        self.call(RUNTIME, self.inner.timeout, ask).await
    }
}

/// Whether what was asked at one address was answered at another.
fn has_moved(asked: &Url, answered: &Url) -> bool {
    let place = |url: &Url| {
        (
            url.scheme().to_owned(),
            url.port_or_known_default(),
            url.path().to_owned(),
        )
    };
    place(asked) != place(answered) || asked.host() != answered.host()
}

/// What Prometheus says where it is not allowed to be reloaded by HTTP.
fn refused(kind: ErrorKind) -> ErrorKind {
    match kind {
        ErrorKind::Status { code: 403, body } if body.contains("Lifecycle API is not enabled") => {
            ErrorKind::NoLifecycle
        }
        other => other,
    }
}
