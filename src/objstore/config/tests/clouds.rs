//! `type: GCS` and `type: AZURE`, and the types that are told to speak S3.

use super::*;

fn gcs(lines: &str) -> (GcsConfig, Vec<String>) {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    let config = parse(&format!("type: GCS\nconfig:\n  bucket: b\n{lines}")).unwrap();
    match config.provider {
        Provider::Gcs(gcs) => (*gcs, config.warnings),
        other => panic!("{other:?}"),
    }
}

fn azure(lines: &str) -> (AzureConfig, Vec<String>) {
    let config = parse(&azure_yaml(lines)).unwrap();
    match config.provider {
        Provider::Azure(azure) => (*azure, config.warnings),
        other => panic!("{other:?}"),
    }
}

fn azure_yaml(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!("type: azure\nconfig:\n  container: c\n  storage_account: acc\n{lines}")
}

fn refused(yaml: &str, key: &str, part: &str) {
    let error = parse(yaml).unwrap_err();
    let text = error.to_string();
    assert!(
        error.key() == key && text.contains(part) && !text.contains("hunter2"),
        "{yaml}: {text}"
    );
}

const SECRET: &str = "hunter2";

#[test]
fn every_key_of_google_arrives() {
    let account = format!(r#"{{"private_key": "{SECRET}", "disable_oauth": true}}"#);
    let (config, warnings) = gcs(&format!(
        "service_account: '{account}'\nuse_grpc: false\ngrpc_conn_pool_size: 0\nhttp_config: {{idle_conn_timeout: \
         7s}}\nchunk_size_bytes: 1.6777216e+07\nmax_retries: 3"
    ));
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!((config.chunk_size, config.attempts), (16 << 20, 3));
    assert_eq!(config.http.idle_conn_timeout, Duration::from_secs(7));
    assert_eq!(config.service_account.as_ref().unwrap().expose(), account);
    assert!(!format!("{config:?}").contains(SECRET));
    let (plain, _) = gcs("");
    assert_eq!((plain.service_account, plain.chunk_size, plain.attempts), (None, 0, 10));
    let (emulator, _) = gcs(r#"service_account: '{"gcs_base_url": "http://localhost:4443"}'"#);
    assert_eq!(
        emulator.base_url().map(String::from).as_deref(),
        Some("http://localhost:4443/")
    );
    let (_, warnings) = gcs("use_grpc: true");
    assert!(warnings.iter().any(|line| line.contains("use_grpc")), "{warnings:?}");
}

#[test]
fn mistakes_for_google_name_their_key_and_show_no_secret() {
    refused("type: GCS\nconfig: {}", "config.bucket", "is missing");
    refused("type: GCS", "config.bucket", "is missing");
    let with = |lines: &str| format!("type: GCS\nconfig:\n  bucket: b\n  {lines}\n");
    refused(
        &with("service_account: 'hunter2'"),
        "config.service_account",
        "is no JSON",
    );
    refused(
        &with(
            r#"service_account: '{"type": "authorized_user", "client_id": "c", "client_secret": "hunter2", "refresh_token": "r"}'"#,
        ),
        "config.service_account",
        "GOOGLE_APPLICATION_CREDENTIALS",
    );
    for key in [
        "hunter2",
        "-----BEGIN PRIVATE KEY----- hunter2 -----END PRIVATE KEY-----",
    ] {
        let account = format!(
            r#"{{"type": "service_account", "private_key": "{key}", "private_key_id": "1", "client_email": "e"}}"#
        );
        refused(
            &with(&format!("service_account: '{account}'")),
            "config.service_account",
            "no private key in PEM",
        );
    }
    refused(
        &with(r#"service_account: '{"type": "external_account", "audience": "hunter2"}'"#),
        "config.service_account",
        "is not supported",
    );
    refused(
        &with(r#"service_account: '{"type": "service_account", "private_key": ""}'"#),
        "config.service_account",
        "has no private_key",
    );
    refused(&with("service_acount: hunter2"), "service_acount", "unknown key");
    refused(&with("chunk_size_bytes: -1"), "config.chunk_size_bytes", "negative");
    refused(&with("max_retries: many"), "config.max_retries", "whole number");
}

#[test]
fn every_key_of_azure_arrives() {
    // The block of Thanos' documentation, with its defaults.
    let (config, warnings) = azure(
        "az_tenant_id: ''\nclient_id: ''\nclient_secret: ''\nstorage_account_key: a2V5\nstorage_connection_string: \
         ''\nstorage_create_container: true\nendpoint: blob.core.windows.net\nuser_assigned_id: ''\nmax_retries: \
         0\nreader_config: {max_retry_requests: 0}\npipeline_config: {max_tries: 0, try_timeout: 0s, retry_delay: 0s, \
         max_retry_delay: 0s}\nhttp_config: {idle_conn_timeout: 1m30s}\nmsi_resource: ''",
    );
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.base, "https://acc.blob.core.windows.net");
    assert_eq!((config.account.as_str(), config.container.as_str()), ("acc", "c"));
    assert_eq!((config.create_container, config.attempts), (true, 10));
    assert_eq!(config.credentials, AzureCredentials::Key(Secret::new("a2V5")));
    let (broken, _) = azure("storage_account_key: |\n  a2\n  V5");
    assert_eq!(broken.credentials, config.credentials, "line breaks are not of the key");
    let (config, warnings) = azure(
        "endpoint: blob.core.chinacloudapi.cn\nstorage_create_container: false\nmax_retries: 4\nuser_assigned_id: \
         me\nmsi_resource: x\npipeline_config: {try_timeout: 5s}\nazure_storage_account_type: datalake",
    );
    assert_eq!(config.base, "https://acc.blob.core.chinacloudapi.cn");
    assert_eq!((config.create_container, config.attempts), (false, 4));
    assert_eq!(config.credentials, AzureCredentials::ManagedIdentity("me".to_owned()));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(azure("max_retries: 4\npipeline_config: {max_tries: 6}").0.attempts, 6);
    assert_eq!(azure("").0.credentials, AzureCredentials::Environment);
}

#[test]
fn credentials_of_azure_come_from_one_place() {
    let client = "az_tenant_id: \"t\\n\"\nclient_id: c\nclient_secret: hunter2";
    let (config, _) = azure(client);
    assert_eq!(
        config.credentials,
        AzureCredentials::Client {
            tenant: "t".into(),
            client: "c".into(),
            secret: Secret::new(SECRET),
        }
    );
    assert!(!format!("{config:?}").contains(SECRET));
    let string = |text: &str| azure(&format!("storage_connection_string: '{text}'")).0;
    let key = string("DefaultEndpointsProtocol=http;AccountName=other;AccountKey=a2V5;EndpointSuffix=core.local");
    assert_eq!(
        (key.account.as_str(), key.base.as_str()),
        ("other", "http://other.blob.core.local")
    );
    assert_eq!(key.credentials, AzureCredentials::Key(Secret::new("a2V5")));
    let both = string("AccountName=a;SharedAccessSignature=sv=1;AccountKey=a2V5");
    assert_eq!(both.credentials, key.credentials);
    let sas = string("BlobEndpoint=https://acc.blob.example/;SharedAccessSignature=?sv=1&sig=hunter2");
    assert_eq!(sas.base, "https://acc.blob.example");
    assert_eq!(sas.credentials, AzureCredentials::Sas(Secret::new("sv=1&sig=hunter2")));
    let emulator = string("UseDevelopmentStorage=true");
    assert_eq!(emulator.base, "http://127.0.0.1:10000/devstoreaccount1");
    for (lines, key, part) in [
        (
            "user_assigned_id: me\nstorage_account_key: a2V5",
            "user_assigned_id",
            "storage_account_key",
        ),
        (
            &format!("user_assigned_id: me\n{client}"),
            "user_assigned_id",
            "client_id",
        ),
        (
            "storage_account_key: a2V5\nstorage_connection_string: 'AccountName=a;AccountKey=a2V5'",
            "storage_account_key",
            "does not go together",
        ),
        ("client_id: c\nclient_secret: hunter2", "client_secret", "go together"),
        (
            "storage_connection_string: hunter2",
            "storage_connection_string",
            "Name=value",
        ),
        (
            "storage_connection_string: 'AccountKey=a2V5'",
            "storage_connection_string",
            "neither AccountName nor",
        ),
        ("storage_account_key: hunter2***", "storage_account_key", "not base64"),
        (
            "storage_connection_string: 'AccountName=a;AccountKey=hunter2***'",
            "storage_connection_string",
            "not base64",
        ),
        (
            "storage_connection_string: 'AccountKey=a2V5;BlobEndpoint=https://h/?sig=hunter2'",
            "storage_connection_string",
            "without user, query",
        ),
        (
            "storage_connection_string: 'AccountName=a;AccountKey='",
            "storage_connection_string",
            "neither AccountKey nor",
        ),
        (
            "storage_connection_string: 'AccountName=a;AccountKey=a2V5;DefaultEndpointsProtocol=ftp'",
            "storage_connection_string",
            "or protocol",
        ),
        (
            "storage_connection_string: 'AccountKey=a2V5;BlobEndpoint=https://u:hunter2@h'",
            "storage_connection_string",
            "without user, query",
        ),
        ("endpoint: https://blob.core.windows.net", "endpoint", "expected a host"),
        (
            "pipeline_config: {max_tries: -1}",
            "pipeline_config.max_tries",
            "negative",
        ),
        (
            "storage_connection_string: 'AccountName=a'",
            "storage_connection_string",
            "neither AccountKey nor",
        ),
        (
            "azure_storage_account_type: tape",
            "azure_storage_account_type",
            "blob or datalake",
        ),
        ("endpoint: 'a b'", "endpoint", "expected a host"),
        (
            "pipeline_config: {try_timeout: soon}",
            "pipeline_config.try_timeout",
            "",
        ),
    ] {
        refused(&azure_yaml(lines), &format!("config.{key}"), part);
    }
    refused(
        "type: AZURE\nconfig: {storage_account: a}",
        "config.container",
        "is missing",
    );
    refused(
        "type: AZURE\nconfig: {container: c}",
        "config.storage_account",
        "is missing",
    );
    refused(
        "type: AZURE\nconfig: {container: c, storage_account: acc/x}",
        "config.storage_account",
        "letters and digits",
    );
    refused(
        &azure_yaml("storage_acount_key: hunter2"),
        "storage_acount_key",
        "unknown key",
    );
}

#[test]
fn types_that_speak_s3_are_told_how() {
    for (kind, endpoint) in [
        ("SWIFT", "s3api"),
        ("cos", "cos.<region>.myqcloud.com"),
        ("ALIYUNOSS", "oss-<region>.aliyuncs.com"),
        ("BOS", "s3.<region>.bcebos.com"),
        ("OCI", "compat.objectstorage.<region>.oraclecloud.com"),
        ("OBS", "obs.<region>.myhuaweicloud.com"),
    ] {
        let yaml = format!("type: {kind}\nconfig: {{bucket: b}}");
        refused(&yaml, "type", endpoint);
        refused(&yaml, "type", "type: S3, config: {bucket:");
    }
}
