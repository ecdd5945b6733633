//! YAML as it may be shown: every key, and of the values only those that are no secret by their key.
//!
//! A value is shown only under a key that is known to hold no secret, whatever its type: a password may consist of digits. So
//! a key that is new, or misspelled, hides its value.

use serde_json::Value;

use crate::model::yaml_text;

/// What is shown in the place of a text that may be a secret.
const REDACTED: &str = "<redacted>";

/// Keys whose values are no secrets, on every level.
const PLAIN: [&str; 47] = [
    "aws_sdk_auth",
    "bearer_token_file",
    "bucket",
    "bucket_lookup_type",
    "ca_file",
    "cert_file",
    "container",
    "decision",
    "dialer_timeout",
    "directory",
    "disable_compression",
    "disable_dualstack",
    "disable_multipart",
    "enable",
    "endpoint",
    "endpoint_suffix",
    "expect_continue_timeout",
    "idle_conn_timeout",
    "insecure",
    "insecure_skip_verify",
    "key_file",
    "kms_key_id",
    "level",
    "list_objects_version",
    "log_end",
    "log_start",
    "max_conns_per_host",
    "max_idle_conns",
    "max_idle_conns_per_host",
    "max_retries",
    "method",
    "part_size",
    "password_file",
    "port",
    "prefix",
    "region",
    "response_header_timeout",
    "send_content_md5",
    "server_name",
    "service",
    "signature_version2",
    "storage_account",
    "sts_endpoint",
    "tls_handshake_timeout",
    "type",
    "user_assigned_id",
    "username",
];

/// The keys of a document in their order, with dots between those of several levels, and their values. Nothing for a text that
/// is no YAML, or empty.
pub fn entries(yaml: &str) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    if let Ok(Some(document)) = yaml_text::read::<Value>(yaml) {
        walk(&document, "", "", &mut entries);
    }
    entries
}

fn walk(value: &Value, path: &str, key: &str, entries: &mut Vec<(String, String)>) {
    let below = |name: &str| match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, value)| walk(value, &below(name), name, entries)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(at, item)| walk(item, &below(&at.to_string()), key, entries)),
        Value::Null => entries.push((path.to_owned(), String::new())),
        Value::String(text) if text.is_empty() => entries.push((path.to_owned(), String::new())),
        _ if !PLAIN.contains(&key) => entries.push((path.to_owned(), REDACTED.to_owned())),
        Value::String(text) => entries.push((path.to_owned(), text.clone())),
        Value::Bool(_) | Value::Number(_) => entries.push((path.to_owned(), value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown_and_the_rest_is() {
        let yaml = "type: S3\nconfig:\n  bucket: metrics\n  access_key: 123456789012\n  secret_key: hunter2\n  insecure: true\n  \
                    part_size: 16777216\n  http_config:\n    idle_conn_timeout: 90s\n    tls_config: {ca_file: /ca.pem}\n  \
                    put_user_metadata: {team: hunter2}\n  sse_config: {type: SSE-C, encryption_key: hunter2}\n  region: \"\"\nprefix: a/b\n\
                    list: [hunter2, {password: 12345678}, {token: true}]\n";
        let entries = entries(yaml);
        let shown: Vec<(&str, &str)> = entries.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(
            shown,
            [
                ("type", "S3"),
                ("config.bucket", "metrics"),
                ("config.access_key", "<redacted>"),
                ("config.secret_key", "<redacted>"),
                ("config.insecure", "true"),
                ("config.part_size", "16777216"),
                ("config.http_config.idle_conn_timeout", "90s"),
                ("config.http_config.tls_config.ca_file", "/ca.pem"),
                ("config.put_user_metadata.team", "<redacted>"),
                ("config.sse_config.type", "SSE-C"),
                ("config.sse_config.encryption_key", "<redacted>"),
                ("config.region", ""),
                ("prefix", "a/b"),
                ("list.0", "<redacted>"),
                ("list.1.password", "<redacted>"),
                ("list.2.token", "<redacted>"),
            ]
        );
    }

    #[test]
    fn a_text_that_is_no_yaml_shows_nothing() {
        for text in ["", "{", "hunter2: [", "# nothing"] {
            assert_eq!(entries(text), [], "{text}");
        }
    }
}
