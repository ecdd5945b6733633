//! Which region to sign for when nobody says.
//!
//! The store is asked once, at the first request, and the answer is kept as long as the client; if a store later names
//! another region, that one counts from then on and the request is tried again. When the lookup itself fails on
//! the way, the request goes out for the fall-back region, and fails or not by itself: the region is looked up again next
//! time.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use aws_sdk_s3::{
    Client,
    config::{
        Builder,
        endpoint::{DefaultResolver, Endpoint, EndpointFuture, Params, ResolveEndpoint},
        retry::RetryConfig,
        timeout::TimeoutConfig,
    },
};
use aws_smithy_runtime_api::box_error::BoxError;
use tokio::sync::Mutex;

use super::{
    error_body,
    site::{Host, Site},
};

/// What stores without regions, and Amazon's oldest buckets, mean by none.
pub(super) const FALLBACK: &str = "us-east-1";

/// How often the region is looked up before the request goes out without it.
const ATTEMPTS: u32 = 3;
const ATTEMPT: Duration = Duration::from_secs(10);
const ALL: Duration = Duration::from_secs(30);

/// For so long it is not put again after it failed: the SDK resolves a host more than once for one request.
const CALM: Duration = Duration::from_secs(1);

/// The SDK's rules, with the host and the region put in their place.
#[derive(Debug)]
struct Rules {
    site: Site,
    rules: DefaultResolver,
}

impl Rules {
    async fn endpoint(&self, params: &Params, region: &str) -> Result<Endpoint, BoxError> {
        let url = match &self.site.host {
            Host::Aws { .. } => None,
            Host::AwsPlain { dualstack } => {
                let china = if region.starts_with("cn-") { ".cn" } else { "" };
                let dualstack = if *dualstack { "dualstack." } else { "" };
                Some(format!("http://s3.{dualstack}{region}.amazonaws.com{china}"))
            }
            Host::Fixed(url) => Some(url.clone()),
        };
        let params = Params::builder()
            .set_bucket(params.bucket().map(str::to_owned))
            .region(region)
            .set_use_fips(params.use_fips())
            .use_dual_stack(matches!(self.site.host, Host::Aws { dualstack: true }))
            .set_endpoint(url)
            .set_force_path_style(params.force_path_style())
            .set_accelerate(params.accelerate())
            .set_use_global_endpoint(params.use_global_endpoint())
            .set_use_object_lambda_endpoint(params.use_object_lambda_endpoint())
            .set_key(params.key().map(str::to_owned))
            .set_prefix(params.prefix().map(str::to_owned))
            .set_copy_source(params.copy_source().map(str::to_owned))
            .set_disable_access_points(params.disable_access_points())
            .set_disable_multi_region_access_points(params.disable_multi_region_access_points())
            .set_use_arn_region(params.use_arn_region())
            .set_use_s3_express_control_endpoint(params.use_s3_express_control_endpoint())
            .set_disable_s3_express_session_auth(params.disable_s3_express_session_auth())
            .build()?;
        self.rules.resolve_endpoint(&params).await
    }
}

/// Asks where the bucket is: signed for the fall-back region.
#[derive(Debug)]
struct Asking(Arc<Rules>);

impl ResolveEndpoint for Asking {
    fn resolve_endpoint<'a>(&'a self, params: &'a Params) -> EndpointFuture<'a> {
        EndpointFuture::new(async move { self.0.endpoint(params, FALLBACK).await })
    }
}

/// Resolves hosts and regions for the SDK; clones share what was learnt.
#[derive(Clone)]
pub(super) struct Regions(Arc<Inner>);

struct Inner {
    rules: Arc<Rules>,
    bucket: String,
    asker: Client,
    found: ArcSwapOption<String>,
    /// Held while the store is asked; when that failed last.
    asking: Mutex<Option<Instant>>,
}

impl fmt::Debug for Regions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Regions")
            .field("site", &self.0.rules.site)
            .field("found", &self.0.found.load())
            .finish()
    }
}

impl Regions {
    /// `base`: the settings of a client to ask with.
    pub(super) fn new(bucket: &str, site: Site, base: Builder) -> Self {
        // A bucket's host name at Amazon leads to its region, where a request that is signed for another is refused.
        let path_style = site.path_style || !matches!(site.host, Host::Fixed(_));
        let rules = Arc::new(Rules {
            site,
            rules: DefaultResolver::new(),
        });
        let asker = base
            .force_path_style(path_style)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_attempt_timeout(ATTEMPT)
                    .operation_timeout(ALL)
                    .build(),
            )
            .endpoint_resolver(Asking(Arc::clone(&rules)))
            .build();
        Self(Arc::new(Inner {
            rules,
            bucket: bucket.to_owned(),
            asker: Client::from_conf(asker),
            found: ArcSwapOption::empty(),
            asking: Mutex::new(None),
        }))
    }

    /// A store says that this is the bucket's region. Tells whether another try will be signed for it.
    pub(super) fn correct(&self, region: &str) -> bool {
        let inner = &*self.0;
        if inner.rules.site.region.is_some() {
            return false;
        }
        if inner.found.load().as_ref().is_none_or(|found| **found != region) {
            tracing::info!(bucket = inner.bucket, region, "the store names the bucket's region");
            inner.found.store(Some(Arc::new(region.to_owned())));
        }
        true
    }

    async fn region(&self) -> String {
        let inner = &*self.0;
        if let Some(region) = &inner.rules.site.region {
            return region.clone();
        }
        let known = || inner.found.load().as_ref().map(|region| region.to_string());
        if let Some(region) = known() {
            return region;
        }
        let mut failed = inner.asking.lock().await;
        if let Some(region) = known() {
            return region;
        }
        if failed.is_some_and(|then| then.elapsed() < CALM) {
            return FALLBACK.to_owned();
        }
        match inner.ask().await {
            Some(region) => {
                tracing::debug!(bucket = inner.bucket, region, "found the bucket's region");
                inner.found.store(Some(Arc::new(region.clone())));
                region
            }
            None => {
                *failed = Some(Instant::now());
                FALLBACK.to_owned()
            }
        }
    }
}

impl Inner {
    /// `None`: no answer that would hold tomorrow.
    async fn ask(&self) -> Option<String> {
        let error = match self.asker.get_bucket_location().bucket(&self.bucket).send().await {
            Ok(answer) => {
                return Some(
                    match answer.location_constraint().map_or("", |region| region.as_str()) {
                        "" => FALLBACK.to_owned(),
                        // What buckets in Ireland have called it since before there were more regions in Europe.
                        "EU" => "eu-west-1".to_owned(),
                        region => region.to_owned(),
                    },
                );
            }
            Err(error) => error,
        };
        let answer = error.raw_response()?;
        if let Some(region) = error_body::region(answer) {
            return Some(region);
        }
        // Forbidden, or not offered: the fall-back is right for most, and the others will say so.
        let final_answer = matches!(answer.status().as_u16(), 400 | 403 | 405 | 501);
        (final_answer && error_body::code(answer).as_deref() != Some("ExpiredToken")).then(|| FALLBACK.to_owned())
    }
}

impl ResolveEndpoint for Regions {
    fn resolve_endpoint<'a>(&'a self, params: &'a Params) -> EndpointFuture<'a> {
        EndpointFuture::new(async move {
            let region = self.region().await;
            self.0.rules.endpoint(params, &region).await
        })
    }
}
