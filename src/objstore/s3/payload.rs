//! How the signature of a PUT covers its body: the same for small objects, files and parts.
//!
//! Not at all by default (`UNSIGNED-PAYLOAD`): the checksum that travels along shows damage, and a second pass over the
//! file is saved. A store that refuses this gets the SHA-256 of each body signed, from then on for the rest of the
//! process' life (`put`). It is computed in the pass that computes the checksum, and costs processor time only.

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextMut};
use aws_smithy_runtime_api::{box_error::BoxError, client::interceptors::dyn_dispatch_hint};
use sha2::{Digest as _, Sha256};

use super::body::{Checksum, Hasher, Sum};

/// What is computed of a body before it travels.
#[derive(Clone)]
pub(super) struct Sums {
    checksum: Hasher,
    sha256: Option<Sha256>,
}

impl Sums {
    /// The checksum, and the SHA-256 if the body is to be signed.
    pub(super) fn new(checksum: Hasher, signed: bool) -> Self {
        let sha256 = signed.then(Sha256::new);
        Self { checksum, sha256 }
    }

    pub(super) fn finish(self) -> Digest {
        let payload = match self.sha256 {
            None => Payload::Unsigned,
            Some(sha256) => Payload::Sha256(hex(&sha256.finalize())),
        };
        Digest {
            checksum: self.checksum.finish(),
            payload,
        }
    }
}

impl Sum for Sums {
    fn update(&mut self, data: &[u8]) {
        self.checksum.update(data);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(data);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a request says of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) checksum: Checksum,
    pub(super) payload: Payload,
}

impl Digest {
    pub(super) fn form(&self) -> Form {
        Form {
            crc32c: matches!(self.checksum, Checksum::Crc32c(_)),
            unsigned: self.payload == Payload::Unsigned,
        }
    }
}

/// In which form a request went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// With CRC32C, not with MD5.
    pub(super) crc32c: bool,
    /// With a body that its signature does not cover.
    pub(super) unsigned: bool,
}

/// What the signature covers of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// Nothing.
    Unsigned,
    /// Its SHA-256, in lower-case hexadecimal digits.
    Sha256(String),
}

impl Payload {
    /// Makes the SDK sign a request so.
    pub(super) fn signing(&self) -> Signing {
        Signing(match self {
            Payload::Unsigned => PayloadSigningOverride::UnsignedPayload,
            Payload::Sha256(hash) => PayloadSigningOverride::Precomputed(hash.clone()),
        })
    }
}

/// Tells the SDK's signer about the body. By itself it would sign what is in memory and nothing else.
#[derive(Debug)]
pub(super) struct Signing(PayloadSigningOverride);

#[dyn_dispatch_hint]
impl Intercept for Signing {
    fn name(&self) -> &'static str {
        "Signing"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        bag.interceptor_state().store_put(self.0.clone());
        Ok(())
    }
}
