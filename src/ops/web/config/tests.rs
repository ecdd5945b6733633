use super::*;

fn parse(yaml: &str) -> Config {
    Config::parse(yaml, Path::new("/etc/web")).unwrap_or_else(|wrong| panic!("{yaml}: {wrong:?}"))
}

#[test]
fn the_defaults_are_those_of_others() {
    for empty in [
        "",
        "{}",
        "tls_server_config: {}\n",
        "http_server_config: {headers: {}}\nbasic_auth_users: {}\n",
        "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\nrate_limit:\n",
        "tls_server_config:\n  cert_file:\n  key_file:\nhttp_server_config:\n  http2:\n  headers:\n    X-Frame-Options:\n",
    ] {
        let config = parse(empty);
        assert!(
            config.tls.is_none() && config.http2 && config.headers.is_empty(),
            "{empty}"
        );
        assert!(
            config.users.is_empty() && config.rate.is_none() && config.warnings.is_empty(),
            "{empty}"
        );
    }
    let tls = parse("tls_server_config: {cert_file: a, key_file: /b}\n").tls.unwrap();
    assert_eq!((tls.client_auth, tls.versions), (ClientAuth::None, (true, true)));
    let Source::File(_, cert) = &tls.cert else {
        panic!("{tls:?}")
    };
    let Source::File(_, key) = &tls.key else {
        panic!("{tls:?}")
    };
    assert_eq!(
        (cert.as_path(), key.as_path()),
        (Path::new("/etc/web/a"), Path::new("/b"))
    );
}

#[test]
fn every_key_arrives() {
    let config = parse(
        "tls_server_config:\n  cert: CERT\n  key: KEY\n  client_ca: CA\n  client_auth_type: VerifyClientCertIfGiven\n  \
         client_allowed_sans: [a, b]\n  min_version: TLS12\n  max_version: TLS12\n  cipher_suites: [C]\n  \
         prefer_server_cipher_suites: true\n  curve_preferences: [X25519]\nhttp_server_config:\n  http2: false\n  headers:\n    \
         Strict-Transport-Security: max-age=1\nrate_limit: {interval: 1m30s, burst: 7}\nbasic_auth_users:\n  \
         ali: $2y$10$abcdefghijklmnopqrstuu37RkUr9H1EPO4Rc63Ngz60LSVREthYa\n",
    );
    let tls = config.tls.unwrap();
    assert_eq!(tls.client_auth, ClientAuth::VerifyIfGiven);
    assert_eq!(tls.client_allowed_sans, ["a", "b"]);
    assert_eq!(
        (tls.versions, tls.ciphers, tls.curves),
        ((true, false), vec!["C".to_owned()], vec!["X25519".to_owned()])
    );
    assert!(matches!(&tls.key, Source::Inline(_, Secret(text)) if text == "KEY"));
    assert!(matches!(&tls.client_ca, Some(Source::Inline(_, Secret(text))) if text == "CA"));
    assert!(!config.http2);
    assert_eq!(config.headers["strict-transport-security"], "max-age=1");
    let interval = Duration::from_secs(90);
    assert_eq!(config.rate, Some(Rate { interval, burst: 7 }));
    assert!(config.users.contains_key("ali"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert!(!format!("{:?}", tls.key).contains("KEY"));
}

#[test]
fn hashes_that_take_minutes_or_cannot_be_computed_are_refused() {
    for (cost, expected) in [
        ("03", "cannot have a cost of 3"),
        ("32", "cannot have a cost of 32"),
        ("31", "takes minutes"),
    ] {
        let yaml = format!("basic_auth_users: {{a: $2y${cost}$abcdefghijklmnopqrstuu37RkUr9H1EPO4Rc63Ngz60LSVREthYa}}");
        let wrong = Config::parse(&yaml, Path::new("")).unwrap_err();
        assert!(wrong.problem.contains(expected), "{wrong:?}");
        assert_eq!(wrong.key, "basic_auth_users.a");
    }
}

#[test]
fn what_has_no_effect_is_warned_of() {
    let warnings = |yaml: &str| parse(yaml).warnings.join("; ");
    let pair = "cert_file: a, key_file: b";
    for (yaml, expected) in [
        (
            format!("tls_server_config: {{{pair}, min_version: TLS10}}"),
            "the minimum version is 1.2",
        ),
        (
            format!("tls_server_config: {{{pair}, prefer_server_cipher_suites: false}}"),
            "it is always so",
        ),
        (
            format!("tls_server_config: {{{pair}, client_allowed_sans: [a]}}"),
            "asks for no certificate",
        ),
        (
            "http_server_config: {headers: {strict-transport-security: max-age=1}}".to_owned(),
            "no effect without TLS",
        ),
        (
            "basic_auth_users: {a: $2y$15$abcdefghijklmnopqrstuu37RkUr9H1EPO4Rc63Ngz60LSVREthYa}".to_owned(),
            "a hash of cost 15 takes long",
        ),
    ] {
        assert!(warnings(&yaml).contains(expected), "{yaml}: {}", warnings(&yaml));
    }
}
