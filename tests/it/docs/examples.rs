//! Examples can be used as they are written: YAML by whom it is for, command lines by the program.

use std::{collections::BTreeSet, ffi::OsString, time::Duration};

use fs_err as fs;
use narthex::{
    cli::{self, Outcome, Sidecar, flag_table},
    objstore,
    ops::web::Web,
    spans,
};
use serde_json::Value;

use super::{divided, files, pages, pages_and_manifests, root, spans as code_spans};
use crate::rig::{Tools, tools::temp_dir};

/// Flags of other programs that the pages speak of, and what stands for any flag.
const FOREIGN: [&str; 66] = [
    "all-targets",
    "bucket",
    "check",
    "compact.enable-vertical-compaction",
    "config.file",
    "consistency-delay",
    "data-dir",
    "data-urlencode",
    "deduplication.replica-label",
    "delete-delay",
    "details",
    "enable-feature",
    "endpoint",
    "format-version",
    "from-file",
    "from-literal",
    "grpc-client-tls-ca",
    "grpc-client-tls-cert",
    "grpc-client-tls-key",
    "grpc-client-tls-secure",
    "human-readable",
    "id",
    "ignore-deletion-marks-delay",
    "install",
    "issues",
    "lifecycle-configuration",
    "list",
    "locked",
    "marker",
    "name",
    "no-storage.tsdb.allow-overlapping-compaction",
    "no-x",
    "now",
    "objstore-backup.config",
    "objstore-backup.config-file",
    "offline",
    "patch-file",
    "previous",
    "query.auto-downsampling",
    "query.replica-label",
    "recursive",
    "release",
    "repair",
    "repo",
    "retention.resolution-1h",
    "retention.resolution-5m",
    "retention.resolution-raw",
    "rm",
    "selector.relabel-config",
    "selector.relabel-config-file",
    "storage.remote.read-concurrent-limit",
    "storage.tsdb.delay-compact-file.path",
    "storage.tsdb.max-block-duration",
    "storage.tsdb.min-block-duration",
    "storage.tsdb.path",
    "storage.tsdb.retention.time",
    "summarize",
    "sync-block-duration",
    "type",
    "volumes",
    "wait",
    "web.enable-lifecycle",
    "web.external-url",
    "web.route-prefix",
    "workspace",
    "x",
];

/// How the command line of a sidecar is understood; why not, if it is not.
fn understood(words: &[&str]) -> Result<Option<Sidecar>, String> {
    match cli::parse(words.iter().map(OsString::from)) {
        Outcome::Run(cli::Command::Sidecar(sidecar)) => Ok(Some(*sidecar)),
        Outcome::Run(_) | Outcome::Print { exit: 0, .. } => Ok(None),
        Outcome::Print { text, .. } => Err(format!("{words:?}: {text}")),
    }
}

fn yaml(what: &str, text: &str) -> Value {
    let value: Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(value.is_object(), "{what}: not a mapping");
    value
}

/// Hands an example to whom it is for.
fn is_taken(what: &str, text: &str) {
    let value = yaml(what, text);
    if value.get("kind").is_some() {
        assert!(value.get("apiVersion").is_some(), "{what}");
    } else if value.get("type").is_some_and(|kind| kind == "OTLP") {
        let config = spans::Config::parse(text, |_| None).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(config.unwrap().warnings().is_empty(), "{what}");
    } else if value.get("type").is_some() {
        is_a_bucket(what, text);
    } else if value.get("tls_server_config").is_some() {
        let dir = temp_dir("docs");
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(dir.path().join("tls.crt"), pair.cert.pem()).unwrap();
        fs::write(dir.path().join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
        let path = dir.path().join("web.yml");
        fs::write(&path, text).unwrap();
        Web::load(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
    } else if value.get("global").is_some() {
        let dir = temp_dir("docs");
        let path = dir.path().join("prometheus.yml");
        fs::write(&path, text).unwrap();
        Tools::newest().assert_configuration(&path, what);
    } else {
        assert!(value.get("spec").is_some(), "{what}: nobody knows what this is for");
    }
    if let Some(bucket) = value.pointer("/stringData/bucket.yaml") {
        is_a_bucket(what, bucket.as_str().unwrap());
    }
    if let Some(thanos) = value.pointer("/spec/thanos") {
        is_a_sidecar(what, thanos);
    }
}

fn is_a_bucket(what: &str, text: &str) {
    let config = objstore::config::parse(text).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(config.warnings.is_empty(), "{what}: {:?}", config.warnings);
}

/// What the operator is told: the flags are ours, what is shipped at the end fits into the time that it gives a pod, and
/// nothing is asked for that is refused.
fn is_a_sidecar(what: &str, thanos: &Value) {
    let args = thanos["additionalArgs"].as_array().unwrap();
    let args: Vec<String> = args
        .iter()
        .map(|arg| format!("--{}={}", arg["name"].as_str().unwrap(), arg["value"].as_str().unwrap()))
        .collect();
    let mut words = vec!["narthex", "sidecar"];
    words.extend(args.iter().map(String::as_str));
    let sidecar = understood(&words).unwrap().expect("it runs");
    assert!(sidecar.shipper.grace_period < Duration::from_secs(600), "{what}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        thanos["image"].as_str().unwrap().ends_with(&format!(":{version}")),
        "{what}: the version is {version}"
    );
}

#[test]
fn yaml_is_taken_by_whom_it_is_for() {
    let mut seen = 0;
    for (name, page) in pages() {
        for fence in divided(&page).0.iter().filter(|fence| fence.language == "yaml") {
            is_taken(&format!("{name}:{}", fence.line), &fence.text);
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} examples were found");
    let path = "deploy/kubernetes/prometheus-operator.yaml";
    let text = fs::read_to_string(root().join(path)).unwrap();
    for (at, document) in text.split("\n---\n").enumerate() {
        is_taken(&format!("{path}, document {}", at + 1), document);
    }
}

#[test]
fn policies_of_the_bucket_are_json() {
    for (name, text) in files(".json") {
        if name.starts_with("deploy/") {
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(value.is_object(), "{name}");
        }
    }
}

/// The words of a line as a shell takes them; an error if the shell would do more with it than start a program.
fn words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote): (Vec<String>, Option<String>, Option<char>) = (Vec::new(), None, None);
    for char in line.chars() {
        match (quote, char) {
            (Some(end), char) if char == end => quote = None,
            (Some(_), char) => word.get_or_insert_default().push(char),
            (None, '\'' | '"') => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, char) if char.is_whitespace() => words.extend(word.take()),
            (None, '<' | '>' | '|' | '&' | ';' | '$' | '*' | '(' | ')') => {
                return Err(format!("the shell has its own mind about {char}: {line}"));
            }
            (None, char) => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    Ok(words)
}

/// The command lines of a text that start narthex, with what was broken into several lines put together.
fn commands(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let starts = |line: &&str| line.split_whitespace().next() == Some("narthex");
    text.lines().filter(starts).map(str::to_owned).collect()
}

#[test]
fn command_lines_are_understood() {
    let mut seen = 0;
    for (name, page) in pages() {
        let (fences, prose) = divided(&page);
        let code = fences.into_iter().map(|fence| fence.text).chain(code_spans(&prose));
        for line in code.flat_map(|code| commands(&code)) {
            let words = words(&line).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            understood(&words).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} command lines were found");
}

#[test]
fn a_shell_is_imitated() {
    let good = words(r#"a  --b='c d' "e f"g # h"#).unwrap();
    assert_eq!(good, ["a", "--b=c d", "e fg"]);
    for bad in ["a --b=<c d>", "a | b", "a $B"] {
        assert!(words(bad).is_err(), "{bad}");
    }
}

#[test]
fn flags_that_are_named_exist() {
    let tables: String = cli::command_names().iter().map(|command| flag_table(command)).collect();
    let known: BTreeSet<String> = named(&tables).collect();
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    for (path, text) in pages_and_manifests() {
        for flag in named(&text) {
            if FOREIGN.contains(&flag.as_str()) {
                continue;
            }
            if !known.contains(&flag) {
                wrong.push(format!("{path}: there is no --{flag}"));
            }
            seen.insert(flag);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen.len() > 40, "only {seen:?}");
}

/// The flags in a text, without their dashes and without what negates a switch.
fn named(text: &str) -> impl Iterator<Item = String> {
    let part = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_');
    let text = text.replace("--[no-]", "--");
    let words: Vec<String> = text
        .split(|char| !part(char))
        .filter_map(|word| word.strip_prefix("--"))
        .filter(|word| word.starts_with(|char: char| char.is_ascii_lowercase()))
        .map(|word| word.trim_end_matches('.').to_owned())
        .collect();
    words.into_iter()
}
