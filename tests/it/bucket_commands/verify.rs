//! `verify`: which issues are found, without reading the objects.

use serde_json::{Value, json};

use super::stage::{Bucket, H, T, meta, name, real, run_on};
use crate::rig::{Fault, Rule, S3Server, one_shot::Ran};

/// A block, and what is said of it.
type Said = (String, String);

/// Block and kind of each issue, block and text of each note.
fn told(run: &Ran) -> (Vec<Said>, Vec<Said>) {
    let document = run.json();
    let list = |key: &str, value: &str| {
        let items = document[key].as_array().unwrap().iter();
        let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
        items.map(|item| (text(item, "block"), text(item, value))).collect()
    };
    (list("issues", "kind"), list("notes", "detail"))
}

fn issues(bucket: &Bucket) -> Vec<Said> {
    let run = bucket.run(&["verify", "-o", "json"]);
    let (issues, _) = told(&run);
    assert_eq!(run.code, Some(if issues.is_empty() { 0 } else { 3 }), "{run:?}");
    issues
}

#[test]
fn a_clean_bucket_is_told_to_be_so() {
    let bucket = Bucket::new();
    bucket.plain(1, T, T + 2 * H);
    bucket.plain(2, T + 2 * H, T + 4 * H);
    bucket.put(&format!("{}/no-compact-mark.json", name(2)), "{}");
    let text = bucket.run(&["verify"]);
    let bytes: u64 =
        2 * (214 + 512) + 2 * meta(1, (T, T + 2 * H), json!({"cluster": "a"})).to_string().len() as u64 + 2;
    let want = format!("2 blocks, 7 objects, {:.1} KiB: no issues\n", bytes as f64 / 1024.0);
    assert_eq!((text.code, text.stdout), (Some(0), want));
    let json = bucket
        .run(&["verify", "--output=json", "--selector={cluster=\"a\"}"])
        .json();
    assert_eq!(
        json,
        json!({"blocks": 2, "objects": 7, "bytes": bytes, "complete": true, "issues": [], "notes": []})
    );
}

#[test]
fn a_bucket_without_blocks_is_not_clean() {
    let bucket = Bucket::new();
    let run = bucket.run(&["verify"]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (
            Some(3),
            "no blocks were found: are these the right bucket, prefix, selector and times?\n\
             0 blocks, 0 objects, 0 B: nothing was checked\n"
        )
    );
    bucket.plain(1, T, T + 2 * H);
    assert_eq!(bucket.run(&["verify"]).code, Some(0));
    assert_eq!(bucket.run(&["verify", "-l", "cluster=b"]).code, Some(3));
    assert_eq!(bucket.run(&["verify", "--min-time=2026-01-02T00:00:00Z"]).code, Some(3));
}

#[test]
fn objects_that_are_not_as_they_should_be_are_issues() {
    let bucket = Bucket::new();
    for n in 1..=6 {
        let start = T + i64::from(n) * 2 * H;
        bucket.plain(n, start, start + 2 * H);
    }
    assert_eq!(issues(&bucket), []);
    bucket.delete(&format!("{}/chunks/000001", name(1)));
    bucket.put(&format!("{}/index", name(2)), [2; 511]);
    bucket.put(&format!("{}/chunks/000002", name(3)), [1; 9]);
    bucket.put(&format!("{}/meta.json", name(4)), "{\"ulid\":");
    let mut old = meta(5, (T + 10 * H, T + 12 * H), json!({"cluster": "a"}));
    old["thanos"].as_object_mut().unwrap().remove("files");
    old["thanos"]["segment_files"] = json!(["000001", "000002"]);
    bucket.put(&format!("{}/meta.json", name(5)), old.to_string());
    bucket.delete(&format!("{}/meta.json", name(6)));
    let want = [
        (1, "missing"),
        (2, "size"),
        (3, "extra"),
        (4, "meta"),
        (5, "missing"),
        (6, "partial"),
    ];
    assert_eq!(issues(&bucket), want.map(|(n, kind)| (name(n), kind.to_owned())));
    let text = bucket.run(&["verify"]).stdout;
    for line in [
        "01KDVC00000000000000000001  missing   chunks/000001 is missing; put it back",
        "01KDVC00000000000000000002  size      index has 511 bytes, and meta.json says 512; put it back",
        "01KDVC00000000000000000003  extra     chunks/000002 (9 bytes) does not belong to the block",
        "01KDVC00000000000000000004  meta      meta.json cannot be used: it is cut off",
        "01KDVC00000000000000000005  missing   chunks/000002 is missing; put it back",
        "01KDVC00000000000000000006  partial   2 objects and no meta.json: an abandoned upload, unless one is running",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line}\n{text}");
    }
    assert!(text.ends_with(" KiB: 6 issues\n"), "{text}");
}

#[test]
fn uploads_that_may_run_are_no_issues() {
    let bucket = Bucket::new();
    bucket.plain(1, T, T + 2 * H);
    let young = ulid::Ulid::generate().to_string();
    bucket.put(&format!("{young}/index"), "so far");
    bucket.put(&format!("{}/index", name(2)), "half gone");
    bucket.mark_for_deletion(2);
    let run = bucket.run(&["verify", "-o", "json"]);
    let (issues, notes) = told(&run);
    assert_eq!((run.code, issues), (Some(0), vec![]));
    assert_eq!(
        notes,
        [
            (
                name(2),
                "is being deleted: it is marked, and its meta.json is gone".to_owned()
            ),
            (young, "has no meta.json yet: its upload may be running".to_owned()),
        ]
    );
}

#[test]
fn overlaps_are_issues_unless_they_heal() {
    let bucket = Bucket::new();
    bucket.plain(1, T, T + 2 * H);
    bucket.plain(2, T + 2 * H, T + 4 * H);
    // Another label set, and another resolution.
    bucket.block(&meta(3, (T, T + 4 * H), json!({"cluster": "b"})));
    let mut coarse = meta(4, (T, T + 4 * H), json!({"cluster": "a"}));
    coarse["thanos"]["downsample"]["resolution"] = 300_000.into();
    bucket.block(&coarse);
    assert_eq!(issues(&bucket), []);
    // A compactor merged both.
    let mut merged = meta(5, (T, T + 4 * H), json!({"cluster": "a"}));
    merged["compaction"] = json!({"level": 2, "sources": [name(1), name(2)]});
    bucket.block(&merged);
    let (none, notes) = told(&bucket.run(&["verify", "-o", "json"]));
    assert_eq!((none, notes.len()), (vec![], 2), "{notes:?}");
    assert!(
        notes[0]
            .1
            .ends_with("it was merged into that one, and the compactor will delete it"),
        "{notes:?}"
    );
    // Somebody else sends under the same labels.
    bucket.plain(6, T + H, T + 3 * H);
    bucket.mark_for_deletion(2);
    let run = bucket.run(&["verify"]);
    assert_eq!(run.code, Some(3));
    let overlaps: Vec<&str> = run.stdout.lines().filter(|line| line.contains("  overlap  ")).collect();
    assert_eq!(overlaps.len(), 2, "{run:?}");
    let want = "01KDVC00000000000000000001  overlap   has times in common with 01KDVC00000000000000000006: \
                2026-01-01T01:00:00Z to 2026-01-01T02:00:00Z, labels cluster=a, resolution 0s; the compactor halts on this unless";
    assert!(overlaps[0].starts_with(want), "{run:?}");
    assert!(
        run.stdout
            .contains("01KDVC00000000000000000002  note      is marked for deletion\n"),
        "{run:?}"
    );
}

#[tokio::test]
async fn a_meta_that_the_store_refuses_ends_no_command() {
    let server = S3Server::start();
    let bucket = server.bucket("refused");
    for n in [1, 2, 3] {
        let meta = meta(
            n,
            (T + i64::from(n) * 2 * H, T + i64::from(n + 1) * 2 * H),
            json!({"cluster": "a"}),
        );
        for (file, size) in [("chunks/000001", 214), ("index", 512)] {
            bucket.put(&format!("{}/{file}", name(n)), vec![0; size]).await;
        }
        bucket
            .put(&format!("{}/meta.json", name(n)), meta.to_string().into_bytes())
            .await;
    }
    for (status, code, help) in [
        (403, "AccessDenied", "s3:GetObject"),
        (400, "InvalidRequest", ""),
        (403, "InvalidObjectState", "restore it from the archive"),
        (400, "KMS.DisabledException", "KMS key"),
    ] {
        let refused = format!("{}/meta.json*", name(2));
        server.fault(Rule::on("GET", &refused, Fault::Answer(status, code)));
        for (args, others) in [
            (&["ls"][..], true),
            (&["inspect", "-o", "csv"], true),
            (&["verify"], false),
            (&["gaps"], false),
        ] {
            let run = run_on(&bucket.config(), args);
            assert_eq!(run.code, Some(3), "{args:?} {run:?}");
            let said = format!("{}{}", run.stdout, run.stderr);
            for part in [&name(2), code, help] {
                assert!(said.contains(part), "{part:?}: {args:?} {run:?}");
            }
            assert!(
                code == "AccessDenied" || !said.contains("s3:GetObject"),
                "{args:?} {run:?}"
            );
            let told = |n| run.stdout.contains(&name(n));
            assert!(!others || told(1) && told(3), "{args:?} {run:?}");
        }
        server.heal();
    }
}

#[tokio::test]
async fn a_block_that_is_committed_during_the_check_is_no_abandoned_upload() {
    let server = S3Server::start();
    let bucket = server.bucket("committed");
    let (id, objects) = real();
    for (key, body) in objects {
        bucket.put(&key, body).await;
    }
    // The first look comes before the commit, the listing after it.
    let before = Fault::Answer(404, "NoSuchKey");
    server.fault(Rule::on("GET", &format!("{id}/meta.json*"), before).times(1));
    run_on(&bucket.config(), &["verify"]).assert(0, &["1 block, ", "no issues"]);
}

#[tokio::test]
async fn an_archived_object_of_a_block_is_an_issue_of_that_block() {
    let server = S3Server::start();
    let bucket = server.bucket("archived");
    let (id, objects) = real();
    for (key, body) in objects {
        bucket.put(&key, body).await;
    }
    run_on(&bucket.config(), &["verify", "--full"]).assert(0, &["1 block, ", "no issues"]);
    for object in ["chunks/000001", "index"] {
        let key = format!("{id}/{object}*");
        server.fault(Rule::on("GET", &key, Fault::Answer(403, "InvalidObjectState")));
        let quick = run_on(&bucket.config(), &["verify"]);
        quick.assert(0, &["no issues"]);
        let noted = quick.stdout.contains("its first chunks cannot be looked at");
        assert_eq!(noted, object == "chunks/000001", "{quick:?}");
        run_on(&bucket.config(), &["verify", "--full"]).assert(
            3,
            &[
                &format!("{id}  unreadable  cannot read "),
                object,
                "restore it from the archive",
            ],
        );
        server.heal();
    }
}
