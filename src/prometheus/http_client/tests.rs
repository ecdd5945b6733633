use proptest::prelude::*;

use super::*;

fn parse(yaml: &str) -> HttpClientConfig {
    let config = HttpClientConfig::parse(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    config
}

fn refused(yaml: &str, part: &str) {
    let error = HttpClientConfig::parse(yaml)
        .map(|config| panic!("{yaml}: {config:?}"))
        .unwrap_err()
        .to_string();
    assert!(error.contains(part) && !error.contains("hunter2"), "{yaml}: {error}");
}

#[test]
fn reads_what_the_operator_writes() {
    let config = parse("tls_config:\n  insecure_skip_verify: true\n");
    assert!(config.tls.insecure_skip_verify && config.warnings().is_empty());
    for empty in ["", "\n", "{}", "~", "# nothing", "tls_config:\nbasic_auth: {}\n"] {
        let config = parse(empty);
        assert_eq!(
            (config.auth, config.tls),
            (Auth::None, ClientFiles::default()),
            "{empty:?}"
        );
        assert_eq!(config.transport.idle_connections, 16);
        assert_eq!(config.transport.idle_timeout, Some(Duration::from_secs(90)));
        assert_eq!(config.transport.response_header_timeout, None);
    }
}

#[test]
fn reads_every_key() {
    let config = parse(
        "basic_auth: {username: me, password: 0123}\nproxy_url: http://u:hunter2@proxy:3128\n\
         tls_config: {ca_file: /ca, cert_file: /cert, key_file: /key, server_name: prom, insecure_skip_verify: no}\n\
         transport_config: {max_idle_conns: 1, max_idle_conns_per_host: 5, idle_conn_timeout: 1500000000, \
         response_header_timeout: 7, max_conns_per_host: 3, tls_handshake_timeout: 0, dialer_timeout: 1}\n",
    );
    let password = Source::Inline(Secret::new("0123"));
    assert_eq!(
        config.auth,
        Auth::Basic {
            username: "me".to_owned(),
            password
        }
    );
    assert_eq!(
        config.proxy.as_ref().map(|proxy| proxy.0.as_str()),
        Some("http://u:hunter2@proxy:3128/")
    );
    let identity = Some(("/cert".into(), "/key".into()));
    let server_name = Some("prom".to_owned());
    let ca_file = Some("/ca".into());
    assert_eq!(
        config.tls,
        ClientFiles {
            ca_file,
            identity,
            server_name,
            insecure_skip_verify: false
        }
    );
    let want = TransportConfig {
        idle_connections: 1,
        idle_timeout: Some(Duration::from_millis(1500)),
        response_header_timeout: Some(Duration::from_nanos(7)),
        connections: Some(3),
        tls_handshake_timeout: None,
        dial_timeout: Some(Duration::from_nanos(1)),
    };
    assert_eq!(config.transport, want);
    assert!(config.warnings().is_empty() && config.has_files());
}

const NUMBERS: [&str; 8] = [
    "max_idle_conns",
    "max_idle_conns_per_host",
    "idle_conn_timeout",
    "response_header_timeout",
    "expect_continue_timeout",
    "max_conns_per_host",
    "tls_handshake_timeout",
    "dialer_timeout",
];

#[test]
fn a_whole_number_in_the_spelling_of_helm_is_that_number() {
    let all = |spelling: &str| {
        let lines: String = NUMBERS.iter().map(|key| format!("  {key}: {spelling}\n")).collect();
        parse(&format!("transport_config:\n{lines}")).transport
    };
    assert_eq!(all("9e+10"), all("90000000000"));
    assert_eq!(all("9e+10").idle_timeout, Some(Duration::from_secs(90)));
}

#[test]
fn hides_and_trims_secrets() {
    assert_eq!(
        parse("bearer_token: ' hunter2 '").auth,
        Auth::Bearer(Source::Inline(Secret::new("hunter2")))
    );
    let file = Source::File("bearer_token_file", "/token".into());
    assert_eq!(parse("bearer_token_file: /token").auth, Auth::Bearer(file));
    let password = Source::File("basic_auth.password_file", "/p".into());
    let auth = parse("basic_auth: {password_file: /p}").auth;
    assert_eq!(
        auth,
        Auth::Basic {
            username: String::new(),
            password
        }
    );
    parse("basic_auth: {username: me, password: hunter2}");
}

#[test]
fn warns_of_what_has_no_effect() {
    let config = parse(
        "oauth2: {client_secret: hunter2}\ntls_config: {min_version: TLS12}\n\
         transport_config: {expect_continue_timeout: 1, disable_compression: false}\n",
    );
    let warnings = config.warnings().join("\n");
    for part in [
        "oauth2",
        "tls_config.min_version",
        "expect_continue_timeout",
        "disable_compression",
    ] {
        assert!(warnings.contains(part), "{warnings}");
    }
    assert!(
        parse("transport_config: {disable_compression: true}")
            .warnings()
            .is_empty()
    );
}

#[test]
fn refuses_by_name_and_never_quotes_a_value() {
    refused(
        "basic_auth: {password: hunter2, password_file: /x}",
        "basic_auth.password_file",
    );
    refused("bearer_token: hunter2\nbearer_token_file: /x", "bearer_token_file");
    refused("bearer_token: hunter2\nbasic_auth: {username: x}", "not both");
    refused("tls_config: {cert_file: /x}", "tls_config.key_file");
    refused("tls_config: {key_file: /x}", "tls_config.cert_file");
    refused("proxy_url: socks5://u:hunter2@x:1", "socks5");
    refused("proxy_url: ':hunter2'", "proxy_url");
    for key in NUMBERS {
        for (value, problem) in [
            ("90s", "must be a whole number"),
            ("hunter2", "must be a whole number"),
            ("1.5", "must be a whole number, this one has a fraction"),
            ("1e30", "must be a whole number of at most 64 bits"),
        ] {
            let named = format!("transport_config.{key} {problem}");
            refused(&format!("transport_config:\n  {key}: {value}"), &named);
        }
    }
    refused("basic_auth: hunter2", "line 1");
    refused("bearer_token: [hunter2]", "line 1");
    refused("a: b: hunter2", "line 1");
    refused("bearer_token: \"hunter2", "line 1");
    refused("hunter2", "line 1");
    refused("- hunter2", "line 1");
}

proptest! {
    #[test]
    fn any_text_gives_a_value_or_an_error(yaml in "(\\PC|\n|: |basic_auth|bearer_token|- |\"|'|\\{|\\}){0,60}") {
        let _ = HttpClientConfig::parse(&yaml);
    }
}
