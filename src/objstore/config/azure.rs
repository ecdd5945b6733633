//! `type: AZURE`: the keys as they are written, and what is made of them.

use object_store::azure::AzureAccessKey;
use serde::Deserialize;
use url::Url;

use super::{
    AzureConfig, AzureCredentials, ConfigError, Secret,
    field::{Text, attempts, given, missing, value, whole, wrong},
    http::HttpYaml,
};
use crate::model::duration::parse_prometheus;

const ENDPOINT: &str = "blob.core.windows.net";

/// The account that every emulator has, and its key: both stand in Microsoft's documentation.
const EMULATOR: (&str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AzureYaml {
    az_tenant_id: Text,
    client_id: Text,
    client_secret: Text,
    storage_account: Text,
    storage_account_key: Text,
    storage_connection_string: Text,
    storage_create_container: Option<bool>,
    container: Text,
    endpoint: Text,
    user_assigned_id: Text,
    max_retries: Text,
    reader_config: Option<ReaderYaml>,
    pipeline_config: Option<PipelineYaml>,
    http_config: Option<HttpYaml>,
    msi_resource: Text,
    azure_storage_account_type: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReaderYaml {
    max_retry_requests: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PipelineYaml {
    max_tries: Text,
    try_timeout: Text,
    retry_delay: Text,
    max_retry_delay: Text,
}

/// What a connection string says.
#[derive(Default)]
struct Connection {
    account: Option<String>,
    key: Option<Secret>,
    sas: Option<Secret>,
    base: Option<String>,
}

impl AzureYaml {
    pub(super) fn check(self, warnings: &mut Vec<String>) -> Result<AzureConfig, ConfigError> {
        let Some(container) = value(self.container) else {
            return missing("container", "is missing: the name of the container");
        };
        let account = account(given(self.storage_account))?;
        if value(self.msi_resource).is_some() {
            warnings.push("config.msi_resource has no effect: it is known".into());
        }
        account_type(self.azure_storage_account_type)?;
        let pipeline = self.pipeline_config.unwrap_or_default();
        let reader = self.reader_config.unwrap_or_default();
        whole("reader_config.max_retry_requests", reader.max_retry_requests)?;
        let max_tries = whole("pipeline_config.max_tries", pipeline.max_tries.clone())?;
        if let Some((_, line)) = max_tries.filter(|(number, _)| *number < 0) {
            return wrong("pipeline_config.max_tries", line, "must not be negative");
        }
        times(
            [
                ("try_timeout", pipeline.try_timeout),
                ("retry_delay", pipeline.retry_delay),
                ("max_retry_delay", pipeline.max_retry_delay),
            ],
            warnings,
        )?;
        let tries = match max_tries {
            Some((number, _)) if number != 0 => pipeline.max_tries,
            _ => self.max_retries,
        };
        let connection = match given(self.storage_connection_string) {
            Some((text, line)) => Some(connection(&text, line)?),
            None => None,
        };
        let credentials = credentials(
            key("storage_account_key", given(self.storage_account_key))?,
            connection.as_ref(),
            [self.az_tenant_id, self.client_id, self.client_secret].map(trimmed),
            trimmed(self.user_assigned_id),
        )?;
        let connection = connection.unwrap_or_default();
        let account = connection.account.unwrap_or(account);
        let base = match connection.base {
            Some(base) => address(&base).ok_or((
                "storage_connection_string",
                "leads to no address (BlobEndpoint, or protocol, AccountName and EndpointSuffix): expected https:// and a host, \
                 without user, query or fragment",
            )),
            None => {
                let endpoint = value(self.endpoint).unwrap_or_else(|| ENDPOINT.to_owned());
                let base = address(&format!("https://{account}.{endpoint}"));
                let base = base.filter(|_| !endpoint.contains("//"));
                base.ok_or((
                    "endpoint",
                    "does not lead to an address together with the account: expected a host such as blob.core.windows.net",
                ))
            }
        };
        let base = base.or_else(|(key, problem)| missing(key, problem))?;
        Ok(AzureConfig {
            account,
            container,
            create_container: self.storage_create_container.unwrap_or(true),
            base,
            credentials,
            http: self.http_config.unwrap_or_default().check(warnings)?,
            attempts: attempts(tries, warnings)?,
        })
    }
}

/// A text without what a line break of a Secret leaves.
fn trimmed(text: Text) -> Option<String> {
    value(text)
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}

/// The name of the account, which becomes a part of its host's name.
fn account(text: Option<(String, u64)>) -> Result<String, ConfigError> {
    let Some((text, line)) = text else {
        return missing("storage_account", "is missing: the name of the storage account");
    };
    let name = text.trim();
    match name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        true => Ok(name.to_owned()),
        false => wrong(
            "storage_account",
            line,
            "is no name of a storage account: expected letters and digits",
        ),
    }
}

/// The address of an account, without a slash at its end; what is no address, or may show a secret, is none.
fn address(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    let usable = matches!(url.scheme(), "http" | "https") && url.has_host() && plain;
    usable.then(|| url.as_str().trim_end_matches('/').to_owned())
}

/// The key of an account, which Go reads with line breaks in it.
fn key(name: &str, text: Option<(String, u64)>) -> Result<Option<Secret>, ConfigError> {
    let Some((text, line)) = text else {
        return Ok(None);
    };
    let key = text.replace(['\r', '\n'], "");
    match AzureAccessKey::try_new(&key) {
        Ok(_) if !key.is_empty() => Ok(Some(Secret::new(key))),
        _ => wrong(name, line, "is no key of a storage account: it is not base64"),
    }
}

/// Accounts with directories take the same requests.
fn account_type(text: Text) -> Result<(), ConfigError> {
    match given(text) {
        None => Ok(()),
        Some((kind, _)) if kind == "blob" || kind == "datalake" => Ok(()),
        Some((_, line)) => wrong("azure_storage_account_type", line, "must be blob or datalake"),
    }
}

fn times(given: [(&str, Text); 3], warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    for (key, text) in given {
        let Some(text) = text else { continue };
        let key = format!("pipeline_config.{key}");
        match parse_prometheus(&text.value) {
            Ok(time) if time.is_zero() => {}
            Ok(_) => warnings.push(format!(
                "config.{key} has no effect: a request may take as long as it moves"
            )),
            Err(error) => return wrong(&key, text.referenced.line(), error.to_string()),
        }
    }
    Ok(())
}

/// By Thanos' rules for what goes together.
fn credentials(
    key: Option<Secret>,
    connection: Option<&Connection>,
    client: [Option<String>; 3],
    identity: Option<String>,
) -> Result<AzureCredentials, ConfigError> {
    if identity.is_some() {
        for (given, name) in [
            (key.is_some(), "storage_account_key"),
            (connection.is_some(), "storage_connection_string"),
            (client[1].is_some(), "client_id"),
        ] {
            if given {
                return missing("user_assigned_id", &format!("does not go together with {name}"));
            }
        }
    }
    if key.is_some() && connection.is_some() {
        return missing(
            "storage_account_key",
            "does not go together with storage_connection_string",
        );
    }
    let client = match client {
        [None, None, None] => None,
        [Some(tenant), Some(client), Some(secret)] => Some((tenant, client, Secret::new(secret))),
        _ => {
            return missing(
                "client_secret",
                "az_tenant_id, client_id and client_secret go together: set all, or none for the identity of a workload or machine",
            );
        }
    };
    Ok(match (connection, key, client, identity) {
        (Some(Connection { key: Some(key), .. }), ..) => AzureCredentials::Key(key.clone()),
        (Some(Connection { sas: Some(sas), .. }), ..) => AzureCredentials::Sas(sas.clone()),
        (Some(_), ..) => {
            return missing(
                "storage_connection_string",
                "has neither AccountKey nor SharedAccessSignature",
            );
        }
        (None, Some(key), ..) => AzureCredentials::Key(key),
        (None, None, Some((tenant, client, secret)), _) => AzureCredentials::Client { tenant, client, secret },
        (None, None, None, Some(identity)) => AzureCredentials::ManagedIdentity(identity),
        (None, None, None, None) => AzureCredentials::Environment,
    })
}

/// Reads `Name=value;Name=value`.
fn connection(text: &str, line: u64) -> Result<Connection, ConfigError> {
    let mut found = Connection::default();
    let (mut scheme, mut suffix) = ("https".to_owned(), "core.windows.net".to_owned());
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            return wrong(
                "storage_connection_string",
                line,
                "must be Name=value, with semicolons in between",
            );
        };
        match name {
            "UseDevelopmentStorage" if value == "true" => {
                found.account = Some(EMULATOR.0.to_owned());
                found.key = Some(Secret::new(EMULATOR.1));
                found.base = Some(format!("http://127.0.0.1:10000/{}", EMULATOR.0));
            }
            "DefaultEndpointsProtocol" => scheme = value.to_owned(),
            "AccountName" => found.account = Some(value.to_owned()),
            "AccountKey" if value.is_empty() => {}
            "AccountKey" => {
                found.key = key("storage_connection_string", Some((value.to_owned(), line)))?;
            }
            "SharedAccessSignature" => found.sas = Some(Secret::new(value.trim_start_matches('?'))),
            "BlobEndpoint" => found.base = Some(value.to_owned()),
            "EndpointSuffix" => suffix = value.to_owned(),
            // Endpoints of queues, tables and files.
            _ => {}
        }
    }
    if found.base.is_none() {
        found.base = found
            .account
            .as_ref()
            .map(|account| format!("{scheme}://{account}.blob.{suffix}"));
    }
    match found.base {
        Some(_) => Ok(found),
        None => wrong(
            "storage_connection_string",
            line,
            "has neither AccountName nor BlobEndpoint",
        ),
    }
}
