//! `type: GCS`: the keys as they are written, and what is made of them.

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{
    ConfigError, GcsConfig, Secret,
    field::{Text, attempts, given, missing, value, whole, wrong},
    http::HttpYaml,
};
use crate::trust::pem;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GcsYaml {
    bucket: Text,
    service_account: Text,
    use_grpc: Option<bool>,
    grpc_conn_pool_size: Text,
    http_config: Option<HttpYaml>,
    chunk_size_bytes: Text,
    max_retries: Text,
}

impl GcsConfig {
    /// Where the API is, if the key says so: those of emulators do.
    pub(in crate::objstore) fn base_url(&self) -> Option<Url> {
        #[derive(Deserialize)]
        struct Key {
            gcs_base_url: Option<String>,
        }
        let key = self.service_account.as_ref()?;
        let url = serde_json::from_str::<Key>(key.expose()).ok()?.gcs_base_url?;
        Url::parse(&url).ok()
    }
}

impl GcsYaml {
    pub(super) fn check(self, warnings: &mut Vec<String>) -> Result<GcsConfig, ConfigError> {
        let Some(bucket) = value(self.bucket) else {
            return missing("bucket", "is missing: the name of the bucket");
        };
        if self.use_grpc == Some(true) {
            warnings.push("config.use_grpc has no effect: the store is spoken to by HTTP".into());
        }
        whole("grpc_conn_pool_size", self.grpc_conn_pool_size)?;
        let chunk_size = match whole("chunk_size_bytes", self.chunk_size_bytes)? {
            Some((size, line)) => match u64::try_from(size) {
                Ok(size) => size,
                Err(_) => return wrong("chunk_size_bytes", line, "must not be negative"),
            },
            None => 0,
        };
        Ok(GcsConfig {
            bucket,
            service_account: service_account(self.service_account)?,
            http: self.http_config.unwrap_or_default().check(warnings)?,
            chunk_size,
            attempts: attempts(self.max_retries, warnings)?,
        })
    }
}

/// The key of a service account, as JSON; other kinds of credentials come from a file.
fn service_account(text: Text) -> Result<Option<Secret>, ConfigError> {
    let Some((json, line)) = given(text) else {
        return Ok(None);
    };
    let key = "service_account";
    match check_google_key(&json) {
        Err(problem) => wrong(key, line, problem),
        // Keys without a type are those of emulators.
        Ok(kind) if kind.is_empty() || kind == "service_account" => Ok(Some(Secret::new(json))),
        Ok(kind) => {
            let problem = format!(
                "is of type {kind:?}; only \"service_account\" can stand here. Put it into a file that the environment variable \
                 GOOGLE_APPLICATION_CREDENTIALS names"
            );
            wrong(key, line, problem)
        }
    }
}

/// Looks at the JSON of Google credentials, and returns their type. What is said shows nothing of a key, which those who read
/// it later may do.
///
/// # Errors
/// What is wrong with it.
pub(in crate::objstore) fn check_google_key(json: &str) -> Result<String, String> {
    let tree: Value = serde_json::from_str(json)
        .map_err(|error| format!("is no JSON (its line {}, column {})", error.line(), error.column()))?;
    let kind: String = tree["type"].as_str().unwrap_or_default().chars().take(40).collect();
    let texts: &[&str] = match kind.as_str() {
        // That of an emulator.
        "" if tree["disable_oauth"] == Value::Bool(true) || tree["gcs_base_url"].is_string() => &[],
        "" | "service_account" => &["private_key", "private_key_id", "client_email"],
        "authorized_user" => &["client_id", "client_secret", "refresh_token"],
        kind => return Err(format!("is of type {kind:?}, which is not supported")),
    };
    if let Some(name) = texts
        .iter()
        .find(|name| tree[**name].as_str().is_none_or(str::is_empty))
    {
        return Err(format!("has no {name}, or it is no text"));
    }
    if texts.contains(&"private_key") {
        pem::private_key(tree["private_key"].as_str().unwrap_or_default().as_bytes()).map_err(|problem| {
            format!("has a private_key that cannot be used: {problem}; in JSON a line break is written as \\n")
        })?;
    }
    Ok(kind)
}
