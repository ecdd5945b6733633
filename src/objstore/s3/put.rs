//! Sending: one object in one request, and what every request with a body has in common.
//!
//! Each body is checksummed before it travels, and the value goes along as a header, so that the store refuses what was
//! damaged on the way. CRC32C by default. MD5 when the configuration asks for it, and, for the rest of the process'
//! life, when the store turns out to want it: it refuses the checksum header, demands `Content-MD5` (object lock), or
//! accepts the header without acknowledging the value, which older stores do that do not know it.
//!
//! How the signature covers a body stands in `payload`; the store's refusal of a body that is not signed is known by its
//! words. Only the call that was refused signs its bodies then; all others do so once that call has gone well.
//!
//! An object that is to be new goes out with `If-None-Match: *`. A store that knows no such condition, and says so, gets it
//! without, for the rest of the process' life; one that ignores the condition replaces what is there.

use std::sync::atomic::Ordering;

use aws_sdk_s3::{error::ProvideErrorMetadata, primitives::ByteStream};
use aws_smithy_runtime_api::client::result::SdkError;
use tokio::sync::SemaphorePermit;

use super::{
    Store,
    body::{Checksum, Failure, Hasher},
    content::Content,
    errors,
    headers::Purpose,
    payload::{Digest, Form, Sums},
    retries::RetryBudget,
};
use crate::objstore::{Error, ErrorKind, Op, Placed};

/// How one try to send something ended.
#[derive(Debug)]
pub(super) enum Sent<T> {
    /// The store has it.
    Done(T),
    /// The store wants the request in another form: try again so.
    RetryWith(Change),
}

/// Another form of request, and why we think that the store wants it.
#[derive(Debug)]
pub(super) enum Change {
    /// With MD5 in place of CRC32C.
    Md5(String),
    /// With a body that is signed.
    SignedBody(String),
    /// Without the condition that the object is to be new.
    NoCondition(String),
}

/// What one request with a body is about.
struct Part<'a> {
    key: &'a str,
    digest: Digest,
    failure: Failure,
}

impl Store {
    /// Waits for one of the slots that all requests with a body share.
    pub(super) async fn permit(&self) -> SemaphorePermit<'_> {
        self.permits.acquire().await.expect("the semaphore is never closed")
    }

    /// The checksum to use now.
    pub(super) fn hasher(&self) -> Hasher {
        if self.md5.load(Ordering::Relaxed) {
            Hasher::md5()
        } else {
            Hasher::crc32c()
        }
    }

    /// Runs `send` until it does not ask for another form of the request any more. It is given whether to sign its bodies.
    pub(super) async fn send_in_accepted_form<T, F>(&self, key: &str, send: impl Fn(bool) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Sent<T>, Error>>,
    {
        // Why this call signs, although the others do not yet.
        let mut trial: Option<String> = None;
        for _ in 0..4 {
            let signed = trial.is_some() || self.sign_bodies.load(Ordering::Relaxed);
            match send(signed).await? {
                Sent::Done(done) => {
                    if let Some(reason) = trial {
                        self.sign_from_now_on(&reason);
                    }
                    return Ok(done);
                }
                Sent::RetryWith(Change::SignedBody(reason)) => trial = Some(reason),
                Sent::RetryWith(Change::Md5(reason)) => {
                    if !self.md5.swap(true, Ordering::Relaxed) {
                        tracing::info!(
                            bucket = self.identity,
                            reason,
                            "sending Content-MD5 in place of CRC32C from now on"
                        );
                    }
                }
                Sent::RetryWith(Change::NoCondition(reason)) => {
                    if !self.unconditional.swap(true, Ordering::Relaxed) {
                        tracing::info!(
                            bucket = self.identity,
                            reason,
                            "the store does not know If-None-Match; objects are sent without it from now on"
                        );
                    }
                }
            }
        }
        let detail = "the store asked for Content-MD5, a signed body or no condition, was given it, and asked again";
        Err(self.error(Op::Upload, key, ErrorKind::Refused, detail.to_owned()))
    }

    /// Lets all calls sign their bodies: the store refused one that was not signed, for `reason`, and took it signed.
    fn sign_from_now_on(&self, reason: &str) {
        if !self.sign_bodies.swap(true, Ordering::Relaxed) {
            tracing::info!(
                bucket = self.identity,
                reason,
                "the store refuses unsigned bodies; the SHA-256 of each is signed from now on"
            );
        }
    }

    /// One object, one request; with `new` only if there is none of that key.
    pub(super) async fn put_whole(&self, key: &str, content: &Content, new: bool) -> Result<Placed, Error> {
        let budget = &self.retry_budget();
        self.send_in_accepted_form(key, |signed| async move {
            let _permit = self.permit().await;
            let once = || async {
                let digest = self.digest(key, content, Sums::new(self.hasher(), signed)).await?;
                let (body, failure) = content.body(&self.buffers);
                let part = Part { key, digest, failure };
                Ok(self.put(&part, body, new, budget).await?)
            };
            budget.run(once).await
        })
        .await
    }

    pub(super) async fn digest(&self, key: &str, content: &Content, sums: Sums) -> Result<Digest, Error> {
        let digest = content.digest(sums, &self.buffers).await.map(Sums::finish);
        digest.map_err(|reason| self.error(Op::Upload, key, ErrorKind::Local, reason))
    }

    async fn put(
        &self,
        part: &Part<'_>,
        body: ByteStream,
        new: bool,
        budget: &RetryBudget,
    ) -> Result<Sent<Placed>, Error> {
        let Part { key, digest, failure } = part;
        let checksum = &digest.checksum;
        let conditional = new && !self.unconditional.load(Ordering::Relaxed);
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .body(body)
            .set_if_none_match(conditional.then(|| "*".to_owned()))
            .set_checksum_crc32_c(checksum.crc32c())
            .set_content_md5(checksum.md5());
        let request = self.within_budget(request.customize(), Purpose::Create, budget);
        match request.interceptor(digest.payload.signing()).send().await {
            Ok(answer) => self.acknowledged(key, checksum, answer.checksum_crc32_c(), Placed::Created),
            Err(error) if conditional && errors::is_there_already(&error) => Ok(Sent::Done(Placed::Exists)),
            Err(error) => match errors::knows_no_condition(&error).filter(|_| conditional) {
                Some(reason) => Ok(Sent::RetryWith(Change::NoCondition(reason))),
                None => self.refused(key, digest.form(), failure, error),
            },
        }
    }

    /// Compares what the store says it received with what was sent.
    pub(super) fn acknowledged<T>(
        &self,
        key: &str,
        checksum: &Checksum,
        told: Option<&str>,
        done: T,
    ) -> Result<Sent<T>, Error> {
        let Some(ours) = checksum.crc32c() else {
            return Ok(Sent::Done(done));
        };
        match told {
            Some(theirs) if theirs == ours => Ok(Sent::Done(done)),
            Some(theirs) => {
                let detail = format!(
                    "the store acknowledged CRC32C {theirs}, but {ours} was sent: the data was damaged on the way, or \
                     the store is at fault"
                );
                Err(self.error(Op::Upload, key, ErrorKind::Integrity, detail))
            }
            None if self.md5_on_silence => Ok(Sent::RetryWith(Change::Md5(
                "the store does not acknowledge CRC32C checksums".to_owned(),
            ))),
            None => Ok(Sent::Done(done)),
        }
    }

    /// Sorts a failed request: our own file, a change for another form, or the store's refusal.
    pub(super) fn refused<T, E>(
        &self,
        key: &str,
        form: Form,
        failure: &Failure,
        error: SdkError<E, errors::HttpResponse>,
    ) -> Result<Sent<T>, Error>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        if let Some(reason) = failure.get() {
            return Err(self.error(Op::Upload, key, ErrorKind::Local, reason.to_owned()));
        }
        if form.unsigned
            && let Some(reason) = errors::wants_signed_body(&error)
        {
            return Ok(Sent::RetryWith(Change::SignedBody(reason)));
        }
        if form.crc32c
            && let Some(reason) = errors::wants_md5(&error)
        {
            return Ok(Sent::RetryWith(Change::Md5(reason)));
        }
        Err(self.sdk_error(Op::Upload, key, error))
    }
}
