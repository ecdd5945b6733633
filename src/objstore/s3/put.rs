//! Sending: one object in one request, and what every request with a body has in common.
//!
//! Each body is checksummed before it travels, and the value goes along as a header, so that the store refuses what was
//! damaged on the way. CRC32C by default. MD5 when the configuration asks for it, and, for the rest of the process'
//! life, when the store turns out to want it: it refuses the checksum header, demands `Content-MD5` (object lock), or
//! accepts the header without acknowledging the value, which older stores do that do not know it.

use std::sync::atomic::Ordering;

use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    operation::put_object::builders::PutObjectFluentBuilder,
    primitives::{ByteStream, SdkBody},
    types::{ServerSideEncryption, StorageClass},
};
use aws_smithy_runtime_api::client::result::SdkError;
use bytes::Bytes;
use tokio::sync::SemaphorePermit;

use super::{
    Encryption, Store,
    body::{Checksum, Failure, Hasher, Slice},
    errors,
};
use crate::objstore::{Error, ErrorKind, Op};

/// How often a body is sent: once more after a stall (a connection that died without a word) or a damaged transfer.
/// What else heals by itself is retried by the SDK.
pub(super) const SENDS: u32 = 2;

/// How one try to send something ended.
#[derive(Debug)]
pub(super) enum Sent<T> {
    /// The store has it.
    Done(T),
    /// The store wants MD5, for this reason: try again with it.
    WantsMd5(String),
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

    /// Runs `send` until it does not ask for MD5 any more.
    pub(super) async fn settle_checksum<T, F>(&self, key: &str, send: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Sent<T>, Error>>,
    {
        for _ in 0..2 {
            match send().await? {
                Sent::Done(done) => return Ok(done),
                Sent::WantsMd5(reason) => {
                    if !self.md5.swap(true, Ordering::Relaxed) {
                        tracing::info!(bucket = self.identity, reason, "sending Content-MD5 in place of CRC32C");
                    }
                }
            }
        }
        let detail = "the store asked for Content-MD5, was given it, and asked again".to_owned();
        Err(self.error(Op::Upload, key, ErrorKind::Refused, detail))
    }

    /// One object, one request, from a file.
    pub(super) async fn put_whole(&self, key: &str, slice: &Slice) -> Result<(), Error> {
        self.settle_checksum(key, || async {
            let _permit = self.permit().await;
            self.sending(|| async {
                let checksum = self.digest(key, slice, self.hasher()).await?;
                let (body, failure) = slice.body(&self.frames);
                self.put(key, body, &checksum, &failure).await
            })
            .await
        })
        .await
    }

    /// One object, one request, from memory.
    pub(super) async fn put_memory(&self, key: &str, bytes: &Bytes) -> Result<(), Error> {
        self.settle_checksum(key, || async {
            let _permit = self.permit().await;
            self.sending(|| async {
                let mut hasher = self.hasher();
                hasher.update(bytes);
                let body = ByteStream::new(SdkBody::from(bytes.clone()));
                self.put(key, body, &hasher.finish(), &Failure::default()).await
            })
            .await
        })
        .await
    }

    /// Sends once more what a stall or a damaged transfer kept from arriving.
    pub(super) async fn sending<T, F>(&self, send: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut tries = 1;
        loop {
            match send().await {
                Err(error) if tries < SENDS && matches!(error.kind, ErrorKind::Stalled | ErrorKind::Integrity) => {
                    tries += 1;
                    tracing::debug!(%error, "sending once more");
                }
                result => return result,
            }
        }
    }

    pub(super) async fn digest(&self, key: &str, slice: &Slice, hasher: Hasher) -> Result<Checksum, Error> {
        let digest = slice.digest(hasher, &self.frames).await;
        digest.map_err(|reason| self.error(Op::Upload, key, ErrorKind::Local, reason))
    }

    async fn put(
        &self,
        key: &str,
        body: ByteStream,
        checksum: &Checksum,
        failure: &Failure,
    ) -> Result<Sent<()>, Error> {
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .body(body)
            .set_checksum_crc32_c(checksum.crc32c())
            .set_content_md5(checksum.md5());
        let request = self.dress_put(request).customize().mutate_request(self.extra_headers());
        match request.send().await {
            Ok(answer) => self.acknowledged(key, checksum, answer.checksum_crc32_c()),
            Err(error) => self.refused(key, checksum, failure, error),
        }
    }

    fn dress_put(&self, request: PutObjectFluentBuilder) -> PutObjectFluentBuilder {
        let request = request
            .set_metadata(self.metadata())
            .set_storage_class(self.storage_class());
        match &self.encryption {
            Encryption::None => request,
            Encryption::S3 => request.server_side_encryption(ServerSideEncryption::Aes256),
            Encryption::Kms { key_id, context } => request
                .server_side_encryption(ServerSideEncryption::AwsKms)
                .ssekms_key_id(key_id)
                .ssekms_encryption_context(context),
            Encryption::Customer(customer) => request
                .sse_customer_algorithm("AES256")
                .sse_customer_key(customer.key.expose())
                .sse_customer_key_md5(customer.key_md5.expose()),
        }
    }

    /// Compares what the store says it received with what was sent.
    pub(super) fn acknowledged(&self, key: &str, checksum: &Checksum, told: Option<&str>) -> Result<Sent<()>, Error> {
        let Some(ours) = checksum.crc32c() else {
            return Ok(Sent::Done(()));
        };
        match told {
            Some(theirs) if theirs == ours => Ok(Sent::Done(())),
            Some(theirs) => {
                let detail = format!(
                    "the store acknowledged CRC32C {theirs}, but {ours} was sent: the data was damaged on the way, or \
                     the store is at fault"
                );
                Err(self.error(Op::Upload, key, ErrorKind::Integrity, detail))
            }
            None if self.md5_on_silence => Ok(Sent::WantsMd5(
                "the store does not acknowledge CRC32C checksums".to_owned(),
            )),
            None => Ok(Sent::Done(())),
        }
    }

    /// Sorts a failed request: our own file, a wish for MD5, or the store's refusal.
    pub(super) fn refused<T, E>(
        &self,
        key: &str,
        checksum: &Checksum,
        failure: &Failure,
        error: SdkError<E, errors::HttpResponse>,
    ) -> Result<Sent<T>, Error>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        if let Some(reason) = failure.get() {
            return Err(self.error(Op::Upload, key, ErrorKind::Local, reason.to_owned()));
        }
        if matches!(checksum, Checksum::Crc32c(_))
            && let Some(reason) = errors::wants_md5(&error)
        {
            return Ok(Sent::WantsMd5(reason));
        }
        Err(self.sdk_error(Op::Upload, key, error))
    }

    pub(super) fn storage_class(&self) -> Option<StorageClass> {
        self.object_headers.storage_class.as_deref().map(StorageClass::from)
    }

    pub(super) fn metadata(&self) -> Option<std::collections::HashMap<String, String>> {
        let metadata = &self.object_headers.metadata;
        (!metadata.is_empty()).then(|| metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// Sets the headers that go out as they are configured, before the request is signed.
    pub(super) fn extra_headers(&self) -> impl Fn(&mut errors::HttpRequest) + Send + Sync + 'static {
        let headers = self.object_headers.headers.clone();
        move |request| {
            for (name, value) in &headers {
                if let Err(error) = request.headers_mut().try_insert(name.clone(), value.clone()) {
                    tracing::warn!(header = name, %error, "a header of put_user_metadata cannot be sent");
                }
            }
        }
    }
}
