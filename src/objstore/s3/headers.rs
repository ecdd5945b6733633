//! The headers that the configuration adds to requests, all in one place.
//!
//! What creates an object gets storage class, metadata, access control and encryption; what touches the bytes of one gets
//! the customer's key, where there is one. All are made when the bucket is opened, and set before a request is signed. A
//! request whose headers cannot be set is not sent: nothing must travel without its encryption. Nothing here shows a value
//! in `Debug`.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_smithy_runtime_api::box_error::BoxError;
use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};

use super::errors::HttpRequest;
use crate::objstore::config::{ConfigError, S3Config, Sse};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It creates an object, or begins to.
    Create,
    /// It sends, puts together, reads or asks about the bytes of an object.
    Bytes,
    /// It lists.
    List,
}

/// Names and values.
type Pairs = Vec<(String, String)>;

/// The configured headers; clones share them.
#[derive(Clone)]
pub(super) struct Headers(Arc<Sorted>);

struct Sorted {
    create: Pairs,
    bytes: Pairs,
    key_file: Option<PathBuf>,
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers(<redacted>)")
    }
}

impl Headers {
    /// Those of a configuration; reads the customer's key.
    pub(super) fn of(config: &S3Config) -> Result<Self, ConfigError> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let user = &config.user_metadata;
        let mut create: Pairs = user.headers.iter().map(|(name, value)| pair(name, value)).collect();
        create.extend(
            user.metadata
                .iter()
                .map(|(name, value)| pair(&format!("x-amz-meta-{name}"), value)),
        );
        create.extend(
            user.storage_class
                .as_ref()
                .map(|class| pair("x-amz-storage-class", class)),
        );
        let sse = "x-amz-server-side-encryption";
        let (mut bytes, mut key_file) = (Pairs::new(), None);
        match &config.sse {
            Sse::None => {}
            Sse::S3 => create.push(pair(sse, "AES256")),
            Sse::Kms { key_id, context } => {
                let key = "config.sse_config.kms_encryption_context";
                let json = serde_json::to_string(context).map_err(|error| ConfigError::new(key, error.to_string()))?;
                let kms = [
                    pair(sse, "aws:kms"),
                    pair(&format!("{sse}-aws-kms-key-id"), key_id),
                    pair(&format!("{sse}-context"), &STANDARD.encode(json)),
                ];
                if http::HeaderValue::try_from(key_id).is_err() {
                    let problem = "it cannot be sent in a header";
                    return Err(ConfigError::new("config.sse_config.kms_key_id", problem));
                }
                create.extend(kms);
            }
            Sse::Customer { key_file: file } => {
                let key = customer_key(file)?;
                let customer = format!("{sse}-customer");
                bytes = vec![
                    pair(&format!("{customer}-algorithm"), "AES256"),
                    pair(&format!("{customer}-key"), &STANDARD.encode(&key)),
                    pair(&format!("{customer}-key-md5"), &STANDARD.encode(Md5::digest(&key))),
                ];
                create.extend(bytes.iter().cloned());
                key_file = Some(file.clone());
            }
        }
        Ok(Self(Arc::new(Sorted {
            create,
            bytes,
            key_file,
        })))
    }

    /// Sets those that belong to a request.
    pub(super) fn set(&self, purpose: Purpose, request: &mut HttpRequest) -> Result<(), BoxError> {
        let pairs = match purpose {
            Purpose::Create => &self.0.create,
            Purpose::Bytes => &self.0.bytes,
            Purpose::List => return Ok(()),
        };
        for (name, value) in pairs {
            request.headers_mut().try_insert(name.clone(), value.clone())?;
        }
        Ok(())
    }

    /// The file with the customer's key, if there is one.
    pub(super) fn key_file(&self) -> Option<&Path> {
        self.0.key_file.as_deref()
    }
}

fn customer_key(file: &Path) -> Result<Vec<u8>, ConfigError> {
    let problem = |problem| ConfigError::new("config.sse_config.encryption_key", problem);
    let key = fs_err::read(file).map_err(|error| problem(error.to_string()))?;
    if key.len() == 32 {
        return Ok(key);
    }
    let (path, len) = (file.display(), key.len());
    Err(problem(format!(
        "{path} has {len} bytes, but a key is exactly 32 raw bytes (no newline at the end)"
    )))
}
