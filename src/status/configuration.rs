//! YAML as it may be shown: every key, and of the values only those that are no secret by their key.
//!
//! A text is shown only under a key that is known to hold no secret; numbers and truth values are always shown, since no
//! secret is one of them by its type. So a key that is new, or misspelled, hides its value.

use serde_json::Value;

use crate::model::yaml_text;

/// What is shown in the place of a text that may be a secret.
const REDACTED: &str = "<redacted>";

/// Keys whose texts are no secrets, on every level.
const PLAIN: [&str; 42] = [
    "type",
    "bucket",
    "endpoint",
    "region",
    "prefix",
    "directory",
    "container",
    "storage_account",
    "endpoint_suffix",
    "user_assigned_id",
    "bucket_lookup_type",
    "list_objects_version",
    "sts_endpoint",
    "kms_key_id",
    "idle_conn_timeout",
    "response_header_timeout",
    "tls_handshake_timeout",
    "expect_continue_timeout",
    "dialer_timeout",
    "ca_file",
    "cert_file",
    "key_file",
    "client_ca_file",
    "server_name",
    "min_version",
    "max_version",
    "client_auth_type",
    "password_file",
    "bearer_token_file",
    "username",
    "service_name",
    "service_namespace",
    "sampler_type",
    "sampler_parent_config",
    "client_type",
    "compression",
    "reconnection_period",
    "timeout",
    "level",
    "decision",
    "part_size",
    "max_retries",
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
        Value::Bool(_) | Value::Number(_) => entries.push((path.to_owned(), value.to_string())),
        Value::String(text) if text.is_empty() || PLAIN.contains(&key) => entries.push((path.to_owned(), text.clone())),
        Value::String(_) => entries.push((path.to_owned(), REDACTED.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown_and_the_rest_is() {
        let yaml = "type: S3\nconfig:\n  bucket: metrics\n  access_key: AKID\n  secret_key: hunter2\n  insecure: true\n  \
                    part_size: 16777216\n  http_config:\n    idle_conn_timeout: 90s\n    tls_config: {ca_file: /ca.pem}\n  \
                    put_user_metadata: {team: hunter2}\n  sse_config: {type: SSE-C, encryption_key: hunter2}\n  region: \"\"\nprefix: a/b\n\
                    list: [hunter2, {password: hunter2}]\n";
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
