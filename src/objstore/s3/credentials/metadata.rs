//! The metadata service of an instance where it gives no tokens (version 2): asked without one then (version 1).
//!
//! The SDK fetches a token by PUT before it asks anything, and gives up without. Two kinds of set-up have none to give:
//! agents such as kube2iam, which answer the PUT with 403, 404 or 405; and instances whose hop limit is 1, where the
//! answer to the PUT does not reach a container. [`Metadata`] stands below the SDK, sees both, and lets the requests go
//! out without a token, as clients of version 1 ask them; unless `AWS_EC2_METADATA_V1_DISABLED` is `true`. All other
//! requests pass as they are.
//!
//! Nothing is kept but the reason why there was no token: a token is asked for again with the next credentials, so that an
//! instance that is set right is noticed. Where the service gives nothing without a token either, the error says why
//! there was none. Limits: dialling as the SDK says (1 s), and one second more for the answer to the PUT.

use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;

use crate::objstore::transfer::transport::{self, Transport};

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// What the SDK is given in place of a token; it never leaves this process.
const NO_TOKEN: &str = "narthex-asks-without-a-token";

/// For how long (seconds) that serves. The SDK renews a token two minutes before its end: so for a few seconds, in which
/// it asks for the role and for its keys.
const NO_TOKEN_TTL: &str = "125";

/// How long the answer to the PUT may take.
const ANSWER: Duration = Duration::from_secs(1);

/// The transport, and below it metadata services with and without tokens; clones share what was seen.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    transport: Transport,
    /// Whether requests may go out without a token.
    version_1: bool,
    /// Why there was no token when one was asked for last.
    missing: Arc<Mutex<Option<Missing>>>,
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// The PUT was answered with this status.
    Refused(u16),
    /// The connection stood, and no answer came.
    Unanswered,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Refused(status) => write!(f, "the metadata service answers {status} to the request for a token"),
            Missing::Unanswered => f.write_str(
                "the metadata service does not answer the request for a token: with a hop limit of 1 its answer reaches \
                 no container; set the instance's HttpPutResponseHopLimit to 2, or let the pod use the host's network",
            ),
        }
    }
}

/// The service gives nothing, and no token.
#[derive(Debug)]
struct NoMetadata {
    missing: Missing,
    /// How the request without a token was answered; `None` if it may not be sent.
    without: Option<u16>,
}

impl fmt::Display for NoMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.without {
            Some(status) => write!(f, "without a token it answers {status}; {}", self.missing),
            None => write!(
                f,
                "{}; it is not asked without a token, since AWS_EC2_METADATA_V1_DISABLED is true",
                self.missing
            ),
        }
    }
}

impl Error for NoMetadata {}

impl Metadata {
    pub(super) fn new(transport: Transport, version_1: bool) -> Self {
        Self {
            transport,
            version_1,
            missing: Arc::default(),
        }
    }

    /// What the SDK gets when there is no token.
    fn without_token(&self, missing: Missing) -> Result<HttpResponse, ConnectorError> {
        if !self.version_1 {
            let error = NoMetadata { missing, without: None };
            return Err(ConnectorError::other(error.into(), None));
        }
        tracing::debug!(reason = %missing, "asking the metadata service without a token (IMDSv1)");
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = Some(missing);
        let answer = http::Response::builder()
            .header(TOKEN_TTL, NO_TOKEN_TTL)
            .body(SdkBody::from(NO_TOKEN))
            .map_err(|error| ConnectorError::other(error.into(), None))?;
        HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
    }

    fn missing(&self) -> Option<Missing> {
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpClient for Metadata {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let connect = settings.connect_timeout().unwrap_or(transport::DIAL);
        let for_token = HttpConnectorSettings::builder()
            .connect_timeout(connect)
            .read_timeout(connect + ANSWER)
            .build();
        SharedHttpConnector::new(Asking {
            usual: self.transport.http_connector(settings, components),
            for_token: self.transport.http_connector(&for_token, components),
            metadata: self.clone(),
        })
    }
}

/// The transport with the limits of one SDK client.
#[derive(Debug)]
struct Asking {
    usual: SharedHttpConnector,
    /// With the time for dialling and for an answer one after the other: it must show which of the two did not come.
    for_token: SharedHttpConnector,
    metadata: Metadata,
}

impl HttpConnector for Asking {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let metadata = self.metadata.clone();
        if request.method() == "PUT" && request.headers().contains_key(TOKEN_TTL) {
            let call = self.for_token.call(request);
            return HttpConnectorFuture::new(async move {
                match call.await {
                    Ok(answer) => match answer.status().as_u16() {
                        status @ (403..=405 | 501) => metadata.without_token(Missing::Refused(status)),
                        _ => Ok(answer),
                    },
                    Err(error) if transport::no_answer(&error) => metadata.without_token(Missing::Unanswered),
                    Err(error) => Err(error),
                }
            });
        }
        if request.headers().get(TOKEN) != Some(NO_TOKEN) {
            return self.usual.call(request);
        }
        request.headers_mut().remove(TOKEN);
        let call = self.usual.call(request);
        HttpConnectorFuture::new(async move {
            let answer = call.await?;
            match (answer.status().as_u16(), metadata.missing()) {
                (status @ (401 | 403), Some(missing)) => {
                    let without = Some(status);
                    let error = NoMetadata { missing, without };
                    Err(ConnectorError::other(error.into(), None))
                }
                _ => Ok(answer),
            }
        })
    }
}
