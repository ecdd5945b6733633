//! Mistakes in what the gRPC server is told: TLS and the log of calls. They end the program before anything starts.

use std::path::Path;

use fs_err as fs;

use super::run;
use crate::rig::tools::temp_dir;

const CERT: &str = "--grpc-server-tls-cert";
const KEY: &str = "--grpc-server-tls-key";
const CLIENT_CA: &str = "--grpc-server-tls-client-ca";

/// A certificate of its own and its key, as PEM.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Writes a file and gives its path.
fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Runs with these flags and their values.
#[track_caller]
fn refused(flags: &[(&str, &str)], parts: &[&str]) {
    let flags: Vec<String> = flags.iter().map(|(flag, value)| format!("{flag}={value}")).collect();
    let words = ["sidecar"].into_iter().chain(flags.iter().map(String::as_str));
    run(&words.collect::<Vec<_>>()).refused(parts);
}

#[test]
fn half_a_pair_is_refused_by_the_flag_that_is_missing() {
    let dir = temp_dir("config");
    let (cert, key) = pair();
    let cert = file(dir.path(), "cert.pem", &cert);
    let key = file(dir.path(), "key.pem", &key);
    refused(&[(CERT, &cert)], &[CERT, "needs --grpc-server-tls-key"]);
    refused(&[(KEY, &key)], &[KEY, "needs --grpc-server-tls-cert"]);
    refused(
        &[(CLIENT_CA, &cert)],
        &[CLIENT_CA, "needs --grpc-server-tls-cert and --grpc-server-tls-key"],
    );
    // An empty value is no file.
    refused(&[(CERT, &cert), (KEY, "")], &[CERT, "needs --grpc-server-tls-key"]);
}

#[test]
fn files_of_tls_that_cannot_be_used_are_told_by_flag_and_path() {
    let dir = temp_dir("config");
    let (cert, key) = pair();
    let (_, other) = pair();
    let cert = file(dir.path(), "cert.pem", &cert);
    let key = file(dir.path(), "key.pem", &key);
    let other = file(dir.path(), "other.pem", &other);
    let empty = file(dir.path(), "empty.pem", "");
    let none = dir.path().join("none.pem").display().to_string();
    refused(&[(CERT, &none), (KEY, &key)], &[CERT, &none]);
    refused(&[(CERT, &cert), (KEY, &none)], &[KEY, &none]);
    refused(&[(CERT, &empty), (KEY, &key)], &[CERT, &empty, "no certificate"]);
    refused(&[(CERT, &cert), (KEY, &cert)], &[KEY, &cert, "no private key"]);
    refused(
        &[(CERT, &cert), (KEY, &other)],
        &["--grpc-server-tls-", &dir.path().display().to_string()],
    );
    let ca = |ca: &str| [(CERT, cert.clone()), (KEY, key.clone()), (CLIENT_CA, ca.to_owned())];
    for bad in [&none, &empty, &key] {
        let flags = ca(bad);
        let flags: Vec<(&str, &str)> = flags.iter().map(|(flag, value)| (*flag, value.as_str())).collect();
        refused(&flags, &[CLIENT_CA, bad]);
    }
}

#[test]
fn ciphers_and_curves_that_nobody_knows_are_refused_with_those_that_are_known() {
    let dir = temp_dir("config");
    let (cert, key) = pair();
    let cert = file(dir.path(), "cert.pem", &cert);
    let key = file(dir.path(), "key.pem", &key);
    for (flag, known) in [
        ("--grpc-server-tls-ciphers", "TLS_AES_128_GCM_SHA256"),
        ("--grpc-server-tls-curves", "X25519"),
    ] {
        let flags = [(CERT, cert.as_str()), (KEY, key.as_str()), (flag, "ROT13")];
        refused(&flags, &[flag, "\"ROT13\"", known]);
    }
}

#[test]
fn a_wrong_log_of_calls_is_refused() {
    const FLAG: &str = "--request.logging-config";
    let said = |words: &[&str], parts: &[&str]| {
        let refused = run(words);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
        assert!(refused.stderr.starts_with("narthex: error: "), "{refused:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
        for part in parts {
            assert!(refused.stderr.contains(part), "{part:?}: {refused:?}");
        }
    };
    for (yaml, part) in [
        ("grcp: {}", "grcp"),
        ("options: {level: LOUD}", "LOUD"),
        ("grpc: {options: {decision: {log_start: true}}}", "log_start"),
        ("grpc: {config: [{service: thanos.Store}]}", "method"),
        ("options: [", "line"),
    ] {
        said(&["sidecar", &format!("{FLAG}={yaml}")], &[FLAG, part]);
    }
    let dir = temp_dir("config");
    let wrong = file(dir.path(), "calls.yml", "grcp: {}");
    said(&["sidecar", &format!("{FLAG}-file={wrong}")], &[FLAG, &wrong, "grcp"]);
    let none = dir.path().join("none.yml").display().to_string();
    refused(
        &[("--request.logging-config-file", &none)],
        &["--request.logging-config-file cannot be read", &none],
    );
    refused(
        &[(FLAG, "options: {}"), ("--request.logging-config-file", &wrong)],
        &["--request.logging-config and --request.logging-config-file are both set"],
    );
}
