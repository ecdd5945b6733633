use proptest::prelude::*;

use super::*;

#[test]
fn cleans_paths_as_go_does() {
    for (path, want) in [
        ("", "."),
        (".", "."),
        ("./", "."),
        ("/", "/"),
        ("//", "/"),
        ("/.", "/"),
        ("/..", "/"),
        ("/../a", "/a"),
        ("abc", "abc"),
        ("abc/def/", "abc/def"),
        ("/prometheus//thanos.shipper.json", "/prometheus/thanos.shipper.json"),
        ("/prometheus/./x", "/prometheus/x"),
        ("./data/x", "data/x"),
        ("abc/def/ghi/../jkl", "abc/def/jkl"),
        ("abc/def/../../..", ".."),
        ("/abc/def/../../..", "/"),
        ("../../abc", "../../abc"),
        ("..", ".."),
        ("../a/..", ".."),
        ("a/..", "."),
        ("abc/./../def", "def"),
        ("abc//./../def", "def"),
        ("...", "..."),
        ("a/..b", "a/..b"),
        ("//abc", "/abc"),
    ] {
        assert_eq!(clean(path), want, "{path:?}");
    }
    assert_eq!(join("", "x/../y"), "y");
    assert_eq!(join("/data/", "x"), "/data/x");
}

fn flags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Severity and a part of the text of each finding.
fn check(pairs: &[(&str, &str)], ignore_unequal: bool, want: &[(Severity, &str)]) {
    let findings = validate(
        Some(&flags(pairs)),
        Path::new("/prometheus"),
        "thanos.shipper.json",
        ignore_unequal,
    );
    let fits = |(finding, (severity, part)): (&Finding, &(Severity, &str))| {
        finding.severity == *severity && finding.text.contains(part)
    };
    assert!(
        findings.len() == want.len() && findings.iter().zip(want).all(fits),
        "{pairs:?}: {findings:#?}"
    );
}

#[test]
fn finds_what_the_contract_lists() {
    use Severity::{Error, Warning};
    let ours = "/prometheus/thanos.shipper.json";
    // 1: no flags.
    let findings = validate(None, Path::new("/prometheus"), "thanos.shipper.json", false);
    assert_eq!((findings.len(), findings[0].severity), (1, Warning));
    // 2: unreadable.
    check(&[(MIN, "2 hours"), (MAX, "2h")], false, &[(Error, "2 hours")]);
    check(&[(MIN, ""), (MAX, "1.5h")], true, &[(Error, MIN), (Error, "1.5h")]);
    check(
        &[(MIN, "2h"), (MAX, "2h"), (SWITCHES[0], "maybe")],
        false,
        &[(Warning, "maybe")],
    );
    // 3: it waits for another file.
    check(
        &[(MIN, "2h"), (MAX, "2h"), (DELAY, "/other/thanos.shipper.json")],
        false,
        &[(Error, ours)],
    );
    check(
        &[(MIN, "2h"), (MAX, "1d12h"), (DELAY, "thanos.shipper.json")],
        true,
        &[(Error, ours)],
    );
    // 4, 5: unequal.
    check(&[(MIN, "2h"), (MAX, "1d12h")], false, &[(Error, ours)]);
    check(&[(MIN, "2h"), (MAX, "1d12h"), (DELAY, "")], false, &[(Error, "1d12h")]);
    check(&[(MIN, "2h"), (MAX, "1d12h")], true, &[(Warning, "ignore-unequal")]);
    // 6: unequal, but delayed by our file.
    check(
        &[
            (MIN, "2h"),
            (MAX, "1d12h"),
            (DELAY, "/prometheus//./thanos.shipper.json"),
        ],
        false,
        &[],
    );
    // 7: unusual.
    check(&[(MIN, "1h"), (MAX, "1h")], false, &[(Warning, "2h")]);
    check(&[(MIN, "1h"), (MAX, "2h")], false, &[(Error, MAX), (Warning, "2h")]);
    // All well, however it is spelled.
    check(
        &[
            (MIN, "2h"),
            (MAX, "120m"),
            (SWITCHES[0], "true"),
            (SWITCHES[1], "false"),
        ],
        false,
        &[],
    );
    check(&[], false, &[(Warning, MIN)]);
}

#[test]
fn an_agent_is_known_by_its_flags() {
    for (pairs, want) in [
        (&[("agent", "true"), ("enable-feature", "")][..], true),
        (&[("agent", "false"), ("enable-feature", "exemplar-storage")], false),
        (&[("enable-feature", "agent")], true),
        (&[("enable-feature", "exemplar-storage,agent")], true),
        (&[("enable-feature", "agent-more")], false),
        (&[], false),
    ] {
        assert_eq!(is_agent(&flags(pairs)), want, "{pairs:?}");
    }
}

#[test]
fn a_label_that_looks_like_a_variable_is_an_error() {
    for value in ["$(POD_NAME)", "prom-${HOSTNAME}", "%{X}-1", "a$(B)c", "${POD_NAME}${X}"] {
        let finding = unreplaced(&Labels::from_pairs([("cluster", "eu"), ("replica", value)])).unwrap();
        let text = finding.to_string();
        assert_eq!(finding.severity, Severity::Error);
        assert!(
            text.contains(&format!("replica={value:?}")) && !text.contains("cluster"),
            "{text}"
        );
    }
    for value in [
        "",
        "a",
        "$",
        "$()",
        "${}",
        "$(a",
        "$POD_NAME",
        "100%",
        "%{",
        "$(a b)",
        "{X}",
        "(X)",
        "$(a.b)",
    ] {
        assert!(
            unreplaced(&Labels::from_pairs([("replica", value)])).is_none(),
            "{value}"
        );
    }
}

/// By the flags and the configuration of Prometheus 3.14.
#[test]
fn what_makes_prometheus_write_newer_chunks_is_named() {
    let (by_config, by_flag) = (
        "storage.tsdb.chunk_encoding.floats: xor2",
        "--enable-feature=xor2-encoding",
    );
    let histograms = "--enable-feature=histograms-st-encoding";
    for (features, floats, want) in [
        ("", None, &[][..]),
        ("", Some("xor"), &[]),
        ("", Some("xor2"), &[by_config]),
        ("exemplar-storage,xor2-encoding", None, &[by_flag]),
        ("xor2-encoding", Some("xor"), &[]),
        (
            "st-storage,histograms-st-encoding",
            Some("xor2"),
            &[by_config, histograms],
        ),
        ("xor2-encoding-of-another", None, &[]),
    ] {
        let flags = flags(&[("enable-feature", features)]);
        let settings = StorageSettings {
            float_encoding: floats.map(str::to_owned),
            ..StorageSettings::default()
        };
        assert_eq!(
            newer_encoding_settings(&flags, &settings),
            want,
            "{features} {floats:?}"
        );
        let finding = newer_encodings(Some(&flags), &settings);
        assert_eq!(finding.is_some(), !want.is_empty());
        for setting in want {
            let text = finding.as_ref().unwrap().to_string();
            assert!(
                text.contains(setting) && text.contains("--shipper.newer-encodings"),
                "{text}"
            );
        }
    }
}

proptest! {
    #[test]
    fn cleaning_twice_changes_nothing(path in "[/.a]{0,12}") {
        let once = clean(&path);
        prop_assert_eq!(clean(&once), once.clone());
        prop_assert!(once == "/" || !once.ends_with('/'));
        prop_assert_eq!(once.starts_with('/'), path.starts_with('/'));
    }

    #[test]
    fn any_flags_are_judged(min in "\\PC{0,8}", max in "[0-9hms]{0,4}", delay in "[/.a]{0,6}") {
        validate(Some(&flags(&[(MIN, &min), (MAX, &max), (DELAY, &delay)])), Path::new(""), "", false);
    }
}
