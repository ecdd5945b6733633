use super::*;
use crate::model::Labels;

const WANTED: Wanted = Wanted {
    ships: true,
    rewrites: true,
    holds: false,
    reloads_by_http: true,
};

fn snapshot(flags: &[(&str, &str)]) -> Snapshot {
    let flags = flags
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Snapshot {
        labels: Labels::from_pairs([("replica", "a")]),
        version: "3.5.3".to_owned(),
        flags: flags.collect(),
        ..Snapshot::unknown("http://p")
    }
}

/// The verdict of one check, if it has one.
fn verdict_of(check: &'static Check, snapshot: &Snapshot, wanted: Wanted) -> Option<Verdict> {
    let findings = judge("http://p", snapshot, &[], wanted);
    let mut found = findings.iter().filter(|finding| finding.check == check);
    let verdict = found.next().map(|finding| finding.verdict);
    assert!(found.next().is_none(), "{} is found twice", check.name);
    verdict
}

#[test]
fn flags_are_judged_one_by_one() {
    use Verdict::{Fail, Ok, Warn};
    const READ: &str = "storage.remote.read-concurrent-limit";
    const KEPT: &str = "storage.tsdb.retention.time";
    const RELOAD: &str = "web.enable-lifecycle";
    for (check, flag, verdict) in [
        (&PROMETHEUS_REMOTE_READ, (READ, "10"), Some(Ok)),
        (&PROMETHEUS_REMOTE_READ, (READ, "1"), Some(Warn)),
        (&PROMETHEUS_REMOTE_READ, (READ, "0"), Some(Fail)),
        (&PROMETHEUS_REMOTE_READ, ("other", "0"), None),
        (&PROMETHEUS_RETENTION, (KEPT, "6h"), Some(Ok)),
        (&PROMETHEUS_RETENTION, (KEPT, "5h59m59s"), Some(Warn)),
        (&PROMETHEUS_RETENTION, (KEPT, "soon"), None),
        (&PROMETHEUS_LIFECYCLE, (RELOAD, "true"), Some(Ok)),
        (&PROMETHEUS_LIFECYCLE, (RELOAD, "false"), Some(Fail)),
        (&PROMETHEUS_LIFECYCLE, ("other", "0"), None),
    ] {
        assert_eq!(verdict_of(check, &snapshot(&[flag]), WANTED), verdict, "{flag:?}");
    }
    let short = snapshot(&[(KEPT, "1h")]);
    let holds = Wanted { holds: true, ..WANTED };
    assert_eq!(verdict_of(&PROMETHEUS_RETENTION, &short, holds), Some(Ok));
    let apart = Wanted {
        ships: false,
        reloads_by_http: false,
        ..WANTED
    };
    let odd = snapshot(&[(KEPT, "1h"), (RELOAD, "false")]);
    for check in [&PROMETHEUS_RETENTION, &PROMETHEUS_LIFECYCLE, &PROMETHEUS_COMPACTION] {
        assert_eq!(verdict_of(check, &odd, apart), None, "{}", check.name);
    }
}

#[test]
fn blocks_that_overlap_may_be_merged_once_they_are_uploaded() {
    const MERGES: &str = "storage.tsdb.allow-overlapping-compaction";
    const DELAY: &str = "storage.tsdb.delay-compact-file.path";
    for (window, flags, verdict) in [
        (Some(0), &[][..], None),
        (None, &[], None),
        (Some(1_800_000), &[], Some(Verdict::Warn)),
        (Some(1_800_000), &[(MERGES, "true")], Some(Verdict::Warn)),
        (Some(1_800_000), &[(MERGES, "false")], Some(Verdict::Ok)),
        (Some(1_800_000), &[(MERGES, "true"), (DELAY, "/l")], Some(Verdict::Ok)),
    ] {
        let mut snapshot = snapshot(flags);
        snapshot.settings.out_of_order_window_ms = window;
        let found = verdict_of(&PROMETHEUS_OUT_OF_ORDER, &snapshot, WANTED);
        assert_eq!(found, verdict, "{window:?} {flags:?}");
    }
}

#[test]
fn versions_that_nobody_has_tried_are_warned_of() {
    for (text, verdict) in [
        ("3.5.3", Verdict::Ok),
        ("2.42.0+ds", Verdict::Ok),
        ("2.41.9", Verdict::Warn),
        ("0", Verdict::Warn),
    ] {
        assert_eq!(version(text).verdict, verdict, "{text}");
    }
}

#[test]
fn why_it_does_not_answer_is_told_under_the_name_of_the_cause() {
    let status = |code| ErrorKind::Status {
        code,
        body: String::new(),
    };
    for (kind, check) in [
        (ErrorKind::Refused, &PROMETHEUS_REACHABLE),
        (ErrorKind::NeedsTls, &PROMETHEUS_REACHABLE),
        (status(503), &PROMETHEUS_REACHABLE),
        (status(401), &PROMETHEUS_CREDENTIALS),
        (status(407), &PROMETHEUS_CREDENTIALS),
        (status(302), &PROMETHEUS_PATH),
        (status(404), &PROMETHEUS_PATH),
        (ErrorKind::NotJson { line: 1, column: 1 }, &PROMETHEUS_PATH),
    ] {
        let error = Error {
            method: "GET",
            url: "http://p/api".to_owned(),
            kind,
        };
        let found = unanswered(&error);
        assert_eq!((found.check, found.verdict), (check, Verdict::Fail), "{error}");
        assert_eq!(found.text, error.to_string());
    }
}
