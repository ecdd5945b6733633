use proptest::prelude::*;

use super::*;

fn scan(answer: &[u8], piece: usize) -> Result<Configuration, ErrorKind> {
    let mut scan = Scan::default();
    for piece in answer.chunks(piece) {
        scan.push(piece)?;
    }
    scan.finish()
}

fn answer(yaml: &str) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({"status": "success", "data": {"yaml": yaml}})).unwrap()
}

fn check(yaml: &str, want: &[(&str, &str)]) {
    for piece in [1, 7, 1 << 20] {
        let labels = scan(&answer(yaml), piece)
            .unwrap_or_else(|error| panic!("{yaml}: {error}"))
            .labels;
        assert_eq!(labels, Labels::from_pairs(want.iter().copied()), "{yaml}");
    }
}

#[test]
fn reads_the_labels_as_the_text_that_prometheus_shows() {
    check(
        "global:\n  external_labels:\n    replica: \"0\"\n    cluster: eu\n",
        &[("cluster", "eu"), ("replica", "0")],
    );
    check(
        "global:\n  external_labels:\n    n: 0\n    x: on\n    y: 1.50\n    z: 007",
        &[("n", "0"), ("x", "on"), ("y", "1.50"), ("z", "007")],
    );
    check(
        "global:\n  external_labels:\n    a: ~\n    b: \"\"\n    c: d\n",
        &[("c", "d")],
    );
    for without in [
        "",
        "global:\n",
        "global:\n  scrape_interval: 1m\n",
        "scrape_configs: []\n",
        "# nothing",
    ] {
        check(without, &[]);
    }
}

#[test]
fn finds_the_section_wherever_it_is() {
    check("global: {external_labels: {a: b}}\nrule_files: []\n", &[("a", "b")]);
    check("{\"global\": {\"external_labels\": {\"a\": \"b\"}}}", &[("a", "b")]);
    check("\"global\":\n  external_labels:\n    a: b\nx: y", &[("a", "b")]);
    check(
        "rule_files:\n- global:\nx:\n- y: |\n    x\n    global:\nglobal:\n  external_labels:\n    a: \"\\\"\\\\ü\\n\"",
        &[("a", "\"\\ü\n")],
    );
    check(
        "global:\n\n  scrape_interval: 1m\n# remark\n  external_labels:\n    a: b\nruntime:\n  gogc: 75\n",
        &[("a", "b")],
    );
}

#[test]
fn reads_the_settings_of_the_storage_wherever_they_are_and_passes_over_odd_ones() {
    let storage = "storage:\n  tsdb:\n    retention:\n      time: 15d\n      size: 512MB\n      percentage: 80.5\n    \
                   chunk_encoding:\n      floats: xor2\n    out_of_order_time_window: 1d12h\n  exemplars:\n    max_exemplars: 100000\n";
    let expected = StorageSettings {
        float_encoding: Some("xor2".into()),
        retention: Some(RetentionSettings {
            time: Some("15d".into()),
            size: Some("512MB".into()),
            percentage: Some("80.5".into()),
        }),
        out_of_order_window_ms: Some(36 * 3_600_000),
        reads_elsewhere: false,
    };
    let jobs = "scrape_configs:\n- job_name: x\n  params:\n    a: [\"\\n\", storage]\n";
    let global = "global:\n  external_labels:\n    a: b\n";
    let other = "storage_of_another: 1\ng: 2\ns: 3\n";
    for yaml in [
        format!("{global}{jobs}{storage}"),
        format!("{storage}{jobs}{global}"),
        format!("{global}{storage}"),
        format!("{global}{other}{storage}{other}"),
        format!("{jobs}{global}{jobs}{storage}{jobs}"),
    ] {
        for piece in [1, 7, 1 << 20] {
            let found = scan(&answer(&yaml), piece).unwrap();
            assert_eq!(found.labels, Labels::from_pairs([("a", "b")]), "{yaml}");
            assert_eq!(found.storage, expected, "{yaml}");
        }
    }
    for (odd, out_of_order_window_ms) in [
        ("", Some(0)),
        ("storage:\n", Some(0)),
        ("storage:\n  exemplars:\n    max_exemplars: 100000\n", Some(0)),
        ("storage:\n  tsdb:\n    retention: no\n", Some(0)),
        (
            "storage:\n  tsdb:\n    retention: no\n    out_of_order_time_window: 30m\n",
            Some(1_800_000),
        ),
        ("storage: {tsdb: {out_of_order_time_window: 5m}}", Some(300_000)),
        // What it is cannot be told.
        ("storage: 5\n", None),
        ("storage:\n  tsdb: [1]\n", None),
        ("storage:\n  tsdb:\n    out_of_order_time_window: soon\n", None),
        ("storage:\n  tsdb:\n    out_of_order_time_window: [1h]\n", None),
    ] {
        let found = scan(&answer(&format!("{global}{odd}")), 7).unwrap();
        assert_eq!(found.labels, Labels::from_pairs([("a", "b")]), "{odd}");
        let expected = StorageSettings {
            out_of_order_window_ms,
            ..StorageSettings::default()
        };
        assert_eq!(found.storage, expected, "{odd}");
    }
}

#[test]
fn understands_escapes_and_spaces_of_other_json_writers() {
    let answer = b"{ \"data\" : { \"yaml\" : \"global:\\n  external_labels:\\n    a: \\u003cb\\u003e\\n\" } }";
    assert_eq!(scan(answer, 3).unwrap().labels, Labels::from_pairs([("a", "<b>")]));
}

#[test]
fn keeps_little_of_a_large_configuration() {
    let jobs = "- job_name: x\n  password: hunter2\n".repeat(40_000);
    let global = "global:\n  external_labels:\n    a: b\n";
    let mut scan = Scan::default();
    scan.push(&answer(&format!("{global}scrape_configs:\n{jobs}"))).unwrap();
    assert!(scan.sections.kept.len() < 100 && scan.scanner.around().len() < 100);
    assert!(!scan.sections.kept.windows(7).any(|part| part == b"hunter2"));
    assert_eq!(scan.finish().unwrap().labels, Labels::from_pairs([("a", "b")]));

    let mut scan = Scan::default();
    scan.push(&answer(&format!("scrape_configs:\n{jobs}{global}"))).unwrap();
    assert!(scan.sections.kept.capacity() <= WHOLE * 2);
    assert_eq!(scan.finish().unwrap().labels, Labels::from_pairs([("a", "b")]));
}

#[test]
fn refuses_what_is_no_answer_without_quoting_it() {
    for (answer, part) in [
        (&b"<html>hunter2</html>"[..], "not JSON"),
        (b"", "not JSON"),
        (b"{\"data\": {\"yaml\": \"hunter2", "not JSON"),
        (b"{\"data\": \"hunter2\"}", "not understood"),
        (b"{\"data\": {\"yaml\": [\"hunter2\"]}}", "not understood"),
        (b"{\"data\": {\"yaml\": null}}", "not understood"),
        (b"{\"status\": \"error\", \"error\": \"hunter2\"}", "not understood"),
        (
            b"{\"data\": {\"yaml\": \"global:\\n  external_labels: hunter2\"}}",
            "global.external_labels",
        ),
        (
            b"{\"data\": {\"yaml\": \"global:\\n  external_labels:\\n    a: [hunter2]\"}}",
            "global.external_labels",
        ),
        (
            b"{\"data\": {\"yaml\": \"global:\\n  external_labels: \\xff\"}}",
            "not JSON",
        ),
    ] {
        let error = scan(answer, 5).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn is_bounded() {
    let large = |answer: &[u8]| {
        assert!(matches!(
            scan(answer, 1 << 16),
            Err(ErrorKind::TooLarge { limit: KEPT })
        ))
    };
    large(&answer(&format!("global:\n{}", "  x: y\n".repeat(KEPT / 6))));
    large(&answer(&format!("global: {}", "x".repeat(KEPT + 1))));
    let long_line = format!("global:\n  external_labels:\n    a: b\nx: {}", "x".repeat(KEPT));
    let labels = scan(&answer(&long_line), 1 << 16).unwrap().labels;
    assert_eq!(labels, Labels::from_pairs([("a", "b")]));
    large(format!("[{}", " ".repeat(KEPT + 1)).as_bytes());
}

proptest! {
    #[test]
    fn any_bytes_give_a_value_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        yaml in "\\PC{0,200}|(global:|\n|  |external_labels:|[a-z]: |\"|\\\\|- |#|[^a]){0,40}",
        piece in 1_usize..40,
    ) {
        let _ = scan(&bytes, piece);
        let _ = scan(&answer(&yaml), piece);
        let _ = scan(&[b"{\"data\":{\"yaml\":\"", &*bytes, b"\"}}"].concat(), piece);
    }

    #[test]
    fn any_labels_come_back(
        pairs in proptest::collection::btree_map("[a-zA-Z_][a-zA-Z0-9_]{0,9}", "\\PC{1,20}", 0..6),
        piece in 1_usize..99,
    ) {
        let mut yaml = "global:\n  scrape_interval: 1m\n  external_labels:\n".to_owned();
        for (name, value) in &pairs {
            yaml.push_str(&format!("    {name}: {}\n", serde_json::to_string(value).unwrap()));
        }
        yaml.push_str("rule_files:\n- a: b\n");
        prop_assert_eq!(scan(&answer(&yaml), piece).unwrap().labels, Labels::from_pairs(pairs));
    }
}

#[test]
fn a_server_that_is_read_too_is_seen() {
    let server = |more: &str| format!("remote_read:\n- url: http://other/read\n  remote_timeout: 1m\n{more}");
    for (yaml, reads_elsewhere) in [
        ("global:\n  external_labels:\n    a: b\n".to_owned(), false),
        ("remote_read:\n".to_owned(), false),
        ("remote_read: []\n".to_owned(), false),
        (server(""), true),
        (server("  read_recent: false\n"), true),
        (server("  read_recent: true\n"), true),
        (server("- url: http://third/read\n  read_recent: true\n"), true),
        // What it is cannot be told.
        (server("  read_recent: [1]\n"), true),
        ("remote_read: 7\n".to_owned(), true),
    ] {
        for yaml in [
            yaml.clone(),
            format!("scrape_configs:\n- job_name: x\n{yaml}storage:\n  tsdb: {{}}\n"),
        ] {
            let found = scan(&answer(&yaml), 7).unwrap();
            assert_eq!(found.storage.reads_elsewhere, reads_elsewhere, "{yaml}");
        }
    }
}
