//! `gaps`: for which times blocks are missing.

use serde_json::json;

use super::stage::{Bucket, H, T, meta, name};

/// The times that are looked at end long ago, so that all of them are sealed.
const UNTIL: &str = "--max-time=2026-01-01T12:00:00Z";

#[test]
fn missing_and_partial_slots_are_told() {
    let bucket = Bucket::new();
    // The head began within its slot.
    bucket.plain(1, T + 47 * 60_000, T + 2 * H);
    bucket.plain(2, T + 2 * H, T + 3 * H);
    bucket.plain(3, T + 8 * H, T + 12 * H);
    // On its way out: nobody counts on it.
    bucket.plain(4, T + 4 * H, T + 6 * H);
    bucket.mark_for_deletion(4);
    bucket.put(&format!("{}/index", name(5)), "cut off");
    let young = ulid::Ulid::generate().to_string();
    bucket.put(&format!("{young}/index"), "so far");
    let text = bucket.run(&["gaps", UNTIL]);
    let want = format!(
        "cluster=a: 2026-01-01T00:00:00Z to 2026-01-01T12:00:00Z, 3 of 6 slots of 2h found\n\
         \x20 partial           2026-01-01T02:00:00Z .. 2026-01-01T04:00:00Z, 1 slot of 2h, 1h0m0s of it missing\n\
         \x20 missing           2026-01-01T04:00:00Z .. 2026-01-01T08:00:00Z, 2 slots of 2h\n\
         01KDVC00000000000000000005: has no meta.json: an abandoned upload, unless one is running\n\
         {young}: has no meta.json yet, its upload may be running\n"
    );
    assert_eq!((text.code, text.stdout), (Some(3), want));
    let json = bucket.run(&["gaps", UNTIL, "-o", "json"]);
    assert_eq!(json.code, Some(3));
    assert_eq!(
        json.json(),
        json!({
            "label_sets": [{
                "labels": {"cluster": "a"}, "from": T, "until": T + 12 * H, "found": 3, "found_downsampled": 0,
                "partial": 1, "missing": 2, "not_sealed_yet": 0,
                "runs": [
                    {"from": T + 2 * H, "until": T + 4 * H, "state": "partial", "slots": 1, "missing_ms": H},
                    {"from": T + 4 * H, "until": T + 8 * H, "state": "missing", "slots": 2, "missing_ms": 4 * H},
                ],
            }],
            "partial_uploads": [
                {"block": name(5), "state": "abandoned"}, {"block": young, "state": "uploading"},
            ],
            "unreadable": [],
        })
    );
    // An hour is tolerated; the slots are longer.
    let long = bucket.run(&["gaps", "--max-time=2026-01-01T04:00:00Z", "--slot=4h", "--tolerance=1h"]);
    assert_eq!(
        (long.code, long.stdout.lines().next().unwrap()),
        (
            Some(0),
            "cluster=a: 2026-01-01T00:00:00Z to 2026-01-01T04:00:00Z, 1 of 1 slot of 4h found"
        )
    );
    let early = bucket.run(&[
        "gaps",
        "--min-time=2025-12-31T22:00:00Z",
        "--max-time=2026-01-01T02:00:00Z",
        "-o",
        "json",
    ]);
    let set = &early.json()["label_sets"][0];
    assert_eq!(
        (&set["missing"], &set["partial"], &set["found"]),
        (&json!(1), &json!(1), &json!(0))
    );
}

#[test]
fn label_sets_are_told_apart() {
    let bucket = Bucket::new();
    bucket.plain(1, T, T + 12 * H);
    let mut coarse = meta(2, (T, T + 12 * H), json!({"cluster": "b"}));
    coarse["thanos"]["downsample"]["resolution"] = 300_000.into();
    bucket.block(&coarse);
    bucket.block(&meta(3, (T + 10 * H, T + 12 * H), json!({"cluster": "b"})));
    let run = bucket.run(&["gaps", UNTIL]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (
            Some(0),
            "cluster=a: 2026-01-01T00:00:00Z to 2026-01-01T12:00:00Z, 6 of 6 slots of 2h found\n\
             cluster=b: 2026-01-01T00:00:00Z to 2026-01-01T12:00:00Z, 6 of 6 slots of 2h found\n\
             \x20 downsampled only  2026-01-01T00:00:00Z .. 2026-01-01T10:00:00Z, 5 slots of 2h\n"
        )
    );
    let one = bucket.run(&["gaps", UNTIL, "-l", "cluster=b", "-o", "json"]).json();
    let sets = one["label_sets"].as_array().unwrap();
    assert_eq!(
        (sets.len(), &sets[0]["found_downsampled"], &sets[0]["found"]),
        (1, &json!(5), &json!(1))
    );
}

#[test]
fn the_last_block_is_the_end_unless_more_is_asked_for() {
    let bucket = Bucket::new();
    bucket.plain(1, T, T + 2 * H);
    bucket.plain(2, T + 4 * H, T + 6 * H);
    bucket.block(&meta(3, (T, T + 4 * H), json!({"cluster": "b"})));
    let run = bucket.run(&["gaps"]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (
            Some(3),
            "cluster=a: 2026-01-01T00:00:00Z to 2026-01-01T06:00:00Z, 2 of 3 slots of 2h found\n\
             \x20 missing           2026-01-01T02:00:00Z .. 2026-01-01T04:00:00Z, 1 slot of 2h\n\
             cluster=b: 2026-01-01T00:00:00Z to 2026-01-01T04:00:00Z, 2 of 2 slots of 2h found\n"
        )
    );
    // Nothing is missing of a set that ended long ago.
    let one = bucket.run(&["gaps", "-l", "cluster=b"]);
    assert_eq!(one.code, Some(0), "{one:?}");
    for more in ["--until=now", "--max-time=0s", "--until=2026-01-01T08:00:00Z"] {
        let run = bucket.run(&["gaps", "-l", "cluster=b", more, "-o", "json"]);
        let set = run.json()["label_sets"][0].clone();
        assert_eq!(
            (run.code, &set["runs"][0]["state"], &set["runs"][0]["from"]),
            (Some(3), &json!("missing"), &json!(T + 4 * H)),
            "{more}: {set}"
        );
    }
    // What begins after --max-time is not read, so nothing is known to be missing there.
    let times = ["--max-time=2026-01-01T04:00:00Z", "--until=2026-01-01T08:00:00Z"];
    let run = bucket.run(&["gaps", "-l", "cluster=b", times[0], times[1]]);
    assert_eq!(run.code, Some(0), "{run:?}");
    // Less can be asked for, too; a set that begins later is not looked at then.
    bucket.block(&meta(4, (T + 8 * H, T + 10 * H), json!({"cluster": "c"})));
    let run = bucket.run(&["gaps", "--until=2026-01-01T02:00:00Z"]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (
            Some(0),
            "cluster=a: 2026-01-01T00:00:00Z to 2026-01-01T02:00:00Z, 1 of 1 slot of 2h found\n\
             cluster=b: 2026-01-01T00:00:00Z to 2026-01-01T02:00:00Z, 1 of 1 slot of 2h found\n"
        )
    );
}

#[test]
fn what_is_not_sealed_yet_is_no_gap() {
    let bucket = Bucket::new();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let slot = i64::try_from(now.as_millis()).unwrap() / (2 * H);
    bucket.plain(1, (slot - 3) * 2 * H, (slot - 2) * 2 * H);
    // The slot after it ended 2 h ago or so, or 4 h if the clock has just gone on; the present one is open.
    let run = bucket.run(&["gaps", "--until=now", "--seal-delay=10h", "-o", "json"]);
    let set = run.json()["label_sets"][0].clone();
    assert_eq!(
        (run.code, &set["found"], &set["missing"]),
        (Some(0), &json!(1), &json!(0)),
        "{set}"
    );
    assert_eq!(set["runs"][0]["state"], "not_sealed_yet");
    let run = bucket.run(&["gaps", "--until=now", "--seal-delay=0s", "-o", "json"]);
    let set = run.json()["label_sets"][0].clone();
    assert_eq!(
        (run.code, &set["runs"][0]["state"]),
        (Some(3), &json!("missing")),
        "{set}"
    );
    assert_eq!(set["runs"][1]["state"], "not_sealed_yet");
}

#[test]
fn a_bucket_without_blocks_is_not_complete() {
    let bucket = Bucket::new();
    let run = bucket.run(&["gaps"]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (
            Some(3),
            "no blocks were found: are these the right bucket, prefix, selector and times?\n"
        )
    );
    assert_eq!(
        bucket.run(&["gaps", "-o", "json"]).json(),
        json!({"label_sets": [], "partial_uploads": [], "unreadable": []})
    );
    let run = bucket.run(&["gaps", "--slot=0s"]);
    assert!(
        run.code == Some(1) && run.stderr.contains("--slot must be at least 1s"),
        "{run:?}"
    );
}
