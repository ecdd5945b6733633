use std::{collections::BTreeMap, num::NonZeroUsize, path::Path, time::Duration};

use proptest::prelude::*;

use super::*;

const FULL: &str = include_str!("../../../testdata/objstore/s3-full.yaml");
const DOCUMENTED: &str = include_str!("../../../testdata/objstore/s3-documented.yaml");
const FILESYSTEM: &str = include_str!("../../../testdata/objstore/filesystem.yaml");

fn s3(text: &str) -> (S3Config, Vec<String>) {
    let config = parse(text).unwrap();
    match config.provider {
        Provider::S3(s3) => (*s3, config.warnings),
        other => panic!("S3 expected, not {other:?}"),
    }
}

/// A configuration with the two keys that must be there, and some more.
fn with(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!("type: S3\nconfig:\n  bucket: b\n  endpoint: localhost:9000\n{lines}")
}

fn texts<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// What the full configuration says.
fn everything() -> S3Config {
    S3Config {
        bucket: "metrics".into(),
        endpoint: "s3.example.com:9000".into(),
        insecure: true,
        region: Some("eu-west-1".into()),
        dualstack: false,
        lookup: Lookup::Path,
        credentials: Credentials::Static {
            access_key: Secret::new("AKIDEXAMPLE"),
            secret_key: Secret::new("very-secret"),
            session_token: Some(Secret::new("very-secret-token")),
        },
        sts_endpoint: Some("https://sts.eu-west-1.amazonaws.com".into()),
        user_metadata: UserMetadata {
            storage_class: Some("STANDARD_IA".into()),
            metadata: texts([("team", "observability"), ("owner", "me")]),
            headers: texts([
                ("x-amz-acl", "bucket-owner-full-control"),
                ("x-amz-grant-read", "id=abc"),
            ]),
        },
        http: HttpConfig {
            idle_conn_timeout: Duration::from_secs(90),
            response_header_timeout: Some(Duration::from_secs(125)),
            tls_handshake_timeout: Duration::from_secs(11),
            max_idle_per_host: 7,
            max_conns_per_host: NonZeroUsize::new(5),
            insecure_skip_verify: true,
            ca_file: Some("/etc/ca.pem".into()),
            client_cert: Some(ClientCert {
                cert_file: "/etc/cert.pem".into(),
                key_file: "/etc/key.pem".into(),
            }),
            server_name: Some("store.internal".into()),
        },
        trace: true,
        list_version: ListVersion::V1,
        send_content_md5: Some(false),
        multipart: false,
        part_size: 16 << 20,
        sse: Sse::Kms {
            key_id: "alias/metrics".into(),
            context: texts([("app", "thanos")]),
        },
        attempts: 3,
    }
}

#[test]
fn every_key_arrives() {
    let (config, warnings) = s3(FULL);
    assert_eq!(config, everything());
    assert_eq!(parse(FULL).unwrap().prefix, "tenant/a");
    let of_no_effect = [
        "signature_version2",
        "sts_endpoint",
        "tls_config.insecure_skip_verify",
        "disable_compression",
        "expect_continue_timeout",
        "sse_config.encryption_key",
    ];
    for key in of_no_effect {
        assert!(
            warnings
                .iter()
                .any(|warning| warning.contains(&format!("{key} has no effect"))),
            "{key}: {warnings:?}"
        );
    }
    assert_eq!(warnings.len(), of_no_effect.len(), "{warnings:?}");
}

#[test]
fn what_the_documentation_shows_is_the_default() {
    let (documented, warnings) = s3(DOCUMENTED);
    assert_eq!(warnings, Vec::<String>::new());
    let (mut bare, _) = s3("type: S3\nconfig: {bucket: example, endpoint: s3.us-east-1.amazonaws.com}\n");
    assert_eq!(bare.send_content_md5, None);
    bare.send_content_md5 = Some(true);
    // Three defaults of our own; where nothing is said about the head of an answer, the stall time is enough.
    assert_eq!(bare.http.response_header_timeout, None);
    bare.http.response_header_timeout = Some(Duration::from_secs(120));
    assert_eq!(bare.part_size, 16 << 20);
    bare.part_size = 64 << 20;
    assert_eq!(documented, bare);
    assert_eq!(documented.part_size, 64 << 20);
    assert_eq!(documented.attempts, 10);
    assert!(documented.dualstack && documented.multipart);
}

#[test]
fn a_directory_is_lenient_and_only_the_first_document_counts() {
    let config = parse(FILESYSTEM).unwrap();
    assert_eq!(config.prefix, "");
    assert_eq!(
        config.provider,
        Provider::Filesystem(FilesystemConfig {
            directory: "/var/lib/bucket".into()
        })
    );
    let Provider::Filesystem(config) = parse("type: filesystem\nconfig: {directory: data}").unwrap().provider else {
        panic!("a directory expected")
    };
    assert!(config.directory.is_absolute() && config.directory.ends_with(Path::new("data")));
}

#[test]
fn a_second_document_may_even_be_broken() {
    for rest in [
        "\n---\n[",
        "\n---\ntype: S3\ntype: S3\n",
        "\n...\n---\n{: : :",
        "---\n\t%",
    ] {
        let text = format!("{}{rest}", with(""));
        assert!(parse(&text).is_ok(), "{rest:?}: {:?}", parse(&text));
    }
}

#[test]
fn values_are_read_as_go_reads_them() {
    let config = |lines: &str| s3(&with(lines)).0;
    assert!(config("insecure: yes").insecure);
    assert!(!config("insecure: off").insecure);
    assert!(!config("insecure: ~").insecure);
    assert_eq!(config("region: ~").region, None);
    assert_eq!(config("region:").region, None);
    assert_eq!(config("access_key: 12345\nsecret_key: 1e3").credentials, {
        Credentials::Static {
            access_key: Secret::new("12345"),
            secret_key: Secret::new("1e3"),
            session_token: None,
        }
    });
    assert_eq!(config("aws_sdk_auth: true").credentials, Credentials::Sdk);
    assert_eq!(config("sse_config: {type: SSE-S3}").sse, Sse::S3);
    assert_eq!(
        config("sse_config: {type: SSE-C, encryption_key: /k}").sse,
        Sse::Customer { key_file: "/k".into() }
    );
    assert_eq!(
        config("http_config: {max_idle_conns_per_host: 0}")
            .http
            .max_idle_per_host,
        2
    );
    assert_eq!(config("http_config: {max_idle_conns: 0}").http.max_idle_per_host, 100);
    assert_eq!(config("http_config: {max_idle_conns: -1}").http.max_idle_per_host, 0);
    assert_eq!(
        config("http_config: {idle_conn_timeout: 0s}").http.idle_conn_timeout,
        Duration::ZERO
    );
    assert_eq!(
        config("put_user_metadata: {a: 1, b: , X-AMZ-META-C: x}")
            .user_metadata
            .metadata,
        { texts([("a", "1"), ("b", ""), ("c", "x")]) }
    );
    let json = r#"{"type":"S3","config":{"bucket":"b","endpoint":"[::1]:9000/"},"prefix":"p"}"#;
    assert_eq!(s3(json).0.endpoint, "[::1]:9000");
    let merged = "type: S3\nconfig:\n  bucket: &b x\n  endpoint: localhost\n  region: *b\n";
    assert_eq!(s3(merged).0.region.as_deref(), Some("x"));
}

/// Line (0: none), key, and a piece of the text, of what is wrong with a configuration.
#[test]
fn mistakes_name_their_line_their_key_and_the_reason() {
    let table: &[(&str, u64, &str, &str)] = &[
        ("", 0, "type", "is missing"),
        ("# nothing\n", 0, "type", "is missing"),
        ("config: {}", 0, "type", "is missing"),
        ("type: OBS", 1, "type", "its store speaks S3: write type: S3"),
        (
            "\ntype: S4",
            2,
            "type",
            "unknown; supported are S3, GCS, AZURE and FILESYSTEM",
        ),
        (
            "type: S3\nbucket: b",
            2,
            "bucket",
            "unknown key; known here are: type, config, prefix",
        ),
        ("type: S3\ntype: S3", 2, "type", "twice"),
        ("type: S3", 0, "config.bucket", "is missing"),
        ("type: S3\nconfig:", 0, "config.bucket", "is missing"),
        ("type: S3\nconfig: {bucket: b}", 0, "config.endpoint", "is missing"),
        ("type: [S3]\nconfig: {}", 1, "type", "a text"),
        ("type: S3\nconfig: 7", 2, "config", "mapping"),
        ("- type: S3", 1, "", ""),
        ("type: S3\nconfig: {", 2, "config", "unclosed"),
        ("type: FILESYSTEM", 0, "config.directory", "is missing"),
        ("type: FILESYSTEM\nconfig:\n  directory: [a]", 3, "directory", ""),
        (
            "type: FILESYSTEM\nconfig:\n  directory: a\n  directory: b",
            4,
            "directory",
            "twice",
        ),
    ];
    for (text, line, key, reason) in table {
        fails(text, *line, key, reason);
    }
}

/// As above, of what follows the first four lines.
const MISTAKES_IN_S3: &[(&str, u64, &str, &str)] = &[
    ("bukket: b", 5, "bukket", "unknown key"),
    ("region: a\nregion: b", 6, "region", "twice"),
    ("region: a_b", 5, "config.region", "letters, digits and hyphens"),
    ("insecure: maybe", 5, "insecure", "true or false"),
    ("access_key: a", 5, "config.access_key", "both or neither"),
    ("secret_key: a", 5, "config.secret_key", "both or neither"),
    (
        "aws_sdk_auth: true\naccess_key: a\nsecret_key: b",
        6,
        "config.access_key",
        "excludes",
    ),
    ("list_objects_version: v3", 5, "config.list_objects_version", "v1, v2"),
    (
        "bucket_lookup_type: Path",
        5,
        "config.bucket_lookup_type",
        "auto, virtual-hosted, path",
    ),
    (
        "sts_endpoint: sts.amazonaws.com",
        5,
        "config.sts_endpoint",
        "must be a URL",
    ),
    ("sse_config: {type: sse-s3}", 5, "config.sse_config.type", "in capitals"),
    (
        "sse_config: {type: SSE-KMS}",
        0,
        "config.sse_config.kms_key_id",
        "is missing",
    ),
    (
        "sse_config: {type: SSE-C}",
        0,
        "config.sse_config.encryption_key",
        "is missing",
    ),
    ("sse_config: {kind: SSE-C}", 5, "kind", "unknown key"),
    ("trace: {enable: true, level: 2}", 5, "level", "unknown key"),
    (
        "put_user_metadata: {Content-Type: a}",
        5,
        "config.put_user_metadata.Content-Type",
        "meaning of its own",
    ),
    (
        "put_user_metadata: {X-Minio-Foo: a}",
        5,
        "config.put_user_metadata.X-Minio-Foo",
        "meaning of its own",
    ),
    (
        "put_user_metadata:\n  x-amz-server-side-encryption: a",
        6,
        "config.put_user_metadata.x-amz-server-side-encryption",
        "sse_config",
    ),
    (
        "put_user_metadata: {x-amz-checksum-crc32: a}",
        5,
        "config.put_user_metadata.x-amz-checksum-crc32",
        "same",
    ),
    (
        "put_user_metadata: {a b: c}",
        5,
        "config.put_user_metadata.a b",
        "header",
    ),
    (
        "put_user_metadata: {a: \"c\\n\"}",
        5,
        "config.put_user_metadata.a",
        "header",
    ),
    ("put_user_metadata: {a: 1, a: 2}", 5, "a", "twice"),
    (
        "http_config: {idle_conn_timeout: 1.5m}",
        5,
        "config.http_config.idle_conn_timeout",
        "",
    ),
    (
        "http_config:\n  tls_handshake_timeout: 90",
        6,
        "config.http_config.tls_handshake_timeout",
        "",
    ),
    (
        "http_config: {max_idle_conns: a}",
        5,
        "config.http_config.max_idle_conns",
        "",
    ),
    (
        "http_config: {tls_config: {cert_file: a}}",
        0,
        "config.http_config.tls_config",
        "both or neither",
    ),
    (
        "http_config: {tls_config: {key_file: a}}",
        0,
        "config.http_config.tls_config",
        "both or neither",
    ),
    (
        "http_config: {tls_config: {server_name: 'a b'}}",
        5,
        "config.http_config.tls_config.server_name",
        "host name",
    ),
    (
        "http_config: {tls_config: {min_version: TLS13}}",
        5,
        "min_version",
        "unknown key",
    ),
    ("http_config: {proxy_url: x}", 5, "proxy_url", "unknown key"),
];

#[test]
fn mistakes_in_s3_name_their_line_their_key_and_the_reason() {
    for (lines, line, key, reason) in MISTAKES_IN_S3 {
        fails(&with(lines), *line, key, reason);
    }
}

#[test]
fn an_endpoint_is_a_host_and_nothing_else() {
    for good in [
        "localhost",
        "10.0.0.1:9000",
        "[fd00::1]:9000",
        "s3.amazonaws.com",
        "storage.googleapis.com",
        "h:1/",
    ] {
        let text = format!("type: S3\nconfig: {{bucket: b, endpoint: '{good}'}}");
        assert!(parse(&text).is_ok(), "{good}: {:?}", parse(&text));
    }
    for bad in [
        "http://h",
        "https://h:9000",
        "h/path",
        "h:99999",
        "h?x",
        "user@h",
        "h h",
        "h:",
        "::1",
        "bucket.s3.amazonaws.com",
        "b.storage.googleapis.com",
        "",
    ] {
        let text = format!("type: S3\nconfig: {{bucket: b, endpoint: '{bad}'}}");
        let error = parse(&text).expect_err(bad);
        assert_eq!(error.key(), "config.endpoint", "{bad}: {error}");
    }
}

#[test]
fn things_without_effect_are_warned_of() {
    for (lines, key) in [
        ("session_token: t", "session_token"),
        ("sse_config: {kms_key_id: k}", "kms_key_id"),
        ("sse_config: {encryption_key: k}", "encryption_key"),
        (
            "sse_config: {type: SSE-S3, kms_encryption_context: {a: b}}",
            "kms_encryption_context",
        ),
        (
            "put_user_metadata: {x-amz-checksum-algorithm: CRC32C}",
            "x-amz-checksum-algorithm",
        ),
        ("max_retries: -1", "max_retries"),
        (
            "aws_sdk_auth: true\nsts_endpoint: https://sts.example.com",
            "sts_endpoint",
        ),
        (
            "http_config: {tls_config: {insecure_skip_verify: true}}",
            "tls_config.insecure_skip_verify",
        ),
    ] {
        let (_, warnings) = s3(&with(lines));
        assert!(
            matches!(warnings.as_slice(), [only] if only.contains(key)),
            "{lines}: {warnings:?}"
        );
    }
    let dotted = "type: S3\nconfig: {bucket: a.b, endpoint: h, bucket_lookup_type: virtual-hosted}";
    assert_eq!(s3(dotted).1.len(), 1);
}

#[test]
fn secrets_are_never_shown() {
    let shown = format!("{:?} {:#?}", parse(FULL).unwrap(), parse(FULL).unwrap());
    for secret in ["AKIDEXAMPLE", "very-secret"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("<redacted>"));
    assert_eq!(Secret::new("x").to_string(), "<redacted>");
    for broken in [
        "type: S3\nconfig: {secret_key:hunter2}",
        "type: S3\nconfig:\n  secret_key: [hunter2]",
        "type: S3\nconfig:\n  secret_key: \"hunter2",
        "type: S3\nconfig:\n  secret_key: hunter2\n  part_size: x",
        "type: S3\nconfig:\n  secret_key: hunter2\n  : {\n",
        "type: S3\nconfig:\n  secret_key: hunter2\n secret_key: hunter2\n",
        "type: S3\nsecret_key:hunter2\nconfig: {}",
    ] {
        let error = parse(broken).expect_err(broken);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

fn fails(text: &str, line: u64, key: &str, reason: &str) {
    let error = parse(text).expect_err(text);
    if line > 0 {
        assert_eq!(error.line(), Some(line), "{text:?}: {error}");
    }
    assert_eq!(error.key(), key, "{text:?}: {error}");
    assert!(error.to_string().contains(reason), "{text:?}: {error}");
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_piece_of_yaml_panics(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("type: S3\n".to_owned()), Just("config:\n".to_owned()), Just("  bucket: b\n".to_owned()),
                Just("  endpoint: ".to_owned()), Just("  http_config:\n".to_owned()), Just("---\n".to_owned()),
                Just("&a *a ".to_owned()), Just("<<: *a\n".to_owned()), Just("{".to_owned()), Just("}".to_owned()),
                Just("[".to_owned()), Just("]".to_owned()), Just("\"".to_owned()), Just("|\n ".to_owned()),
                Just("  part_size: ".to_owned()), Just("!!binary ".to_owned()), "[ -~\\n\\t]{0,12}",
            ],
            0..24,
        )
    ) {
        let _ = parse(&pieces.concat());
    }

    #[test]
    fn any_endpoint_is_taken_or_refused(endpoint in "[ -~]{0,40}") {
        let quoted = endpoint.replace('\'', "''");
        let _ = parse(&format!("type: S3\nconfig: {{bucket: b, endpoint: '{quoted}'}}"));
    }
}

mod clouds;
mod numbers;
