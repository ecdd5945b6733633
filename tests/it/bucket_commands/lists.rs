//! `ls` and `inspect`. The cells are those that `thanos tools bucket inspect` printed for the same blocks.

use serde_json::{Value, json};

use super::stage::{Bucket, H, T, meta, name, run_on};

/// Blocks of many kinds, a partial upload and a broken `meta.json`.
fn many() -> Bucket {
    let bucket = Bucket::new();
    let mut first = meta(1, (T + 123, T + 2 * H), json!({"replica": "0", "cluster": "a"}));
    first["stats"] = json!({"numSeries": 1_234_567, "numSamples": 12_345_678_901_u64, "numChunks": 999});
    first["x_new"] = serde_json::from_str("12345678901234567890").unwrap();
    bucket.block(&first);
    bucket.block(&meta(
        2,
        (T + 2 * H, T + 4 * H),
        json!({"replica": "0", "cluster": "a"}),
    ));
    bucket.mark_for_deletion(2);
    let mut odd = meta(3, (T, T + 40 * H), json!({"cluster": "b,x", "q": "say \"hi\"\tthere"}));
    odd["compaction"] = json!({"level": 3, "failed": true, "sources": [name(3)], "hints": ["from-out-of-order"]});
    odd["thanos"]["source"] = "compactor".into();
    bucket.block(&odd);
    for (n, hours, resolution) in [(4, 48, 0), (5, 48, 300_000), (6, 336, 3_600_000), (7, 336, 300_000)] {
        let mut meta = meta(n, (T, T + hours * H), json!({"cluster": "b"}));
        meta["compaction"]["level"] = 4.into();
        meta["thanos"]["downsample"]["resolution"] = resolution.into();
        bucket.block(&meta);
    }
    bucket.block(&meta(8, (T + 1, T + 1501), json!({"cluster": "c"})));
    bucket.put(&format!("{}/index", name(20)), "cut off");
    bucket.put(&format!("{}/meta.json", name(21)), "{");
    bucket.put("debug/metas/a.json", "not a block");
    bucket
}

/// The cells of Thanos, and one more.
const CELLS: &str = r#"ULID,FROM,UNTIL,RANGE,UNTIL-DOWN,#SERIES,#SAMPLES,#CHUNKS,COMP-LEVEL,COMP-FAILED,LABELS,RESOLUTION,SOURCE,CONTENT
01KDVC00000000000000000008,2026-01-01T00:00:00Z,2026-01-01T00:00:01Z,1.5s,39h59m58.5s,1,2,1,1,false,cluster=c,0s,sidecar,-
01KDVC00000000000000000001,2026-01-01T00:00:00Z,2026-01-01T02:00:00Z,1h59m59.877s,38h0m0.123s,"1,234,567","12,345,678,901",999,1,false,"cluster=a,replica=0",0s,sidecar,-
01KDVC00000000000000000003,2026-01-01T00:00:00Z,2026-01-02T16:00:00Z,40h0m0s,0s,1,2,1,3,true,"cluster=b,x,q=say ""hi""	there",0s,compactor,out_of_order
01KDVC00000000000000000004,2026-01-01T00:00:00Z,2026-01-03T00:00:00Z,48h0m0s,-8h0m0s,1,2,1,4,false,cluster=b,0s,sidecar,-
01KDVC00000000000000000005,2026-01-01T00:00:00Z,2026-01-03T00:00:00Z,48h0m0s,192h0m0s,1,2,1,4,false,cluster=b,5m0s,sidecar,-
01KDVC00000000000000000006,2026-01-01T00:00:00Z,2026-01-15T00:00:00Z,336h0m0s,-,1,2,1,4,false,cluster=b,1h0m0s,sidecar,-
01KDVC00000000000000000007,2026-01-01T00:00:00Z,2026-01-15T00:00:00Z,336h0m0s,-96h0m0s,1,2,1,4,false,cluster=b,5m0s,sidecar,-
01KDVC00000000000000000002,2026-01-01T02:00:00Z,2026-01-01T04:00:00Z,2h0m0s,38h0m0s,1,2,1,1,false,"cluster=a,replica=0",0s,sidecar,-
"#;

#[test]
fn inspect_has_the_cells_of_thanos() {
    let bucket = many();
    let csv = bucket.run(&["inspect", "-o", "csv"]);
    assert_eq!((csv.code, csv.stdout.as_str()), (Some(3), CELLS), "{csv:?}");
    assert!(csv.stderr.contains(&name(21)), "{csv:?}");
    assert!(
        csv.stderr.contains("blocks without meta.json are left out") && csv.stderr.contains("blocks=1"),
        "{csv:?}"
    );
    let tsv = bucket.run(&[
        "inspect",
        "--output=tsv",
        "-l",
        "cluster=~\"a|b,x\"",
        "--max-time=2026-01-01T01:00:00Z",
    ]);
    assert_eq!(
        tsv.stdout.lines().skip(1).collect::<Vec<_>>(),
        [
            "01KDVC00000000000000000001\t2026-01-01T00:00:00Z\t2026-01-01T02:00:00Z\t1h59m59.877s\t38h0m0.123s\t\
             1,234,567\t12,345,678,901\t999\t1\tfalse\tcluster=a,replica=0\t0s\tsidecar\t-",
            "01KDVC00000000000000000003\t2026-01-01T00:00:00Z\t2026-01-02T16:00:00Z\t40h0m0s\t0s\t1\t2\t1\t3\ttrue\t\
             \"cluster=b,x,q=say \"\"hi\"\"\tthere\"\t0s\tcompactor\tout_of_order",
        ]
    );
}

#[test]
fn inspect_sorts_and_shows() {
    let bucket = many();
    let sorted = |args: &[&str]| {
        let run = bucket.run(&[&["inspect", "-o", "json"], args].concat());
        let rows = run.json();
        let numbers = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["ulid"].as_str().unwrap()[25..].to_owned());
        numbers.collect::<String>()
    };
    assert_eq!(sorted(&[]), "81345672");
    assert_eq!(sorted(&["--sort-by=ULID"]), "12345678");
    // As numbers, not as texts.
    assert_eq!(sorted(&["--sort-by=#SAMPLES", "--sort-by=RANGE"]), "82345671");
    assert_eq!(sorted(&["--sort-by=UNTIL-DOWN"]), "74321856");
    assert_eq!(sorted(&["--sort-by=LABELS"]), "12456738");
    assert_eq!(sorted(&["-l", "{cluster=\"a\"}", "-l", "{replica!=\"0\"}"]), "");
    let rows = bucket.run(&["inspect", "-o", "json", "-l", "cluster=a"]).json();
    assert_eq!(
        rows[0],
        json!({
            "ulid": name(1), "from": T + 123, "until": T + 2 * H, "range": 7_199_877, "until_down": 136_800_123,
            "series": 1_234_567, "samples": 12_345_678_901_u64, "chunks": 999, "level": 1, "failed": false,
            "labels": {"cluster": "a", "replica": "0"}, "resolution": 0, "source": "sidecar", "content": [],
        })
    );
    let table = bucket.run(&["inspect", "-l", "cluster=~\"b,x\""]);
    assert_eq!(
        table.stdout,
        "ULID                        FROM                  UNTIL                 RANGE    UNTIL-DOWN  #SERIES  #SAMPLES  \
         #CHUNKS  COMP-LEVEL  COMP-FAILED  LABELS                         RESOLUTION  SOURCE     CONTENT\n\
         01KDVC00000000000000000003  2026-01-01T00:00:00Z  2026-01-02T16:00:00Z  40h0m0s  0s                1         2  \
         \x20     1           3  true         cluster=b,x,q=say \"hi\"\\tthere  0s          compactor  out_of_order\n"
    );
}

#[test]
fn ls_names_the_blocks() {
    let bucket = many();
    let names = |args: &[&str]| {
        let run = bucket.run(&[&["ls"], args].concat());
        assert_eq!(run.code, Some(3), "a block is left out: {run:?}");
        run.stdout.lines().map(|line| line[25..].to_owned()).collect::<String>()
    };
    assert_eq!(names(&[]), "34567812");
    assert_eq!(names(&["--exclude-delete"]), "3456781");
    assert_eq!(names(&["--selector={cluster=~\"a|c\"}", "--timeout=0"]), "812");
    // A block that touches the range is in it.
    assert_eq!(names(&["--min-time=2026-01-03T00:00:00Z"]), "4567");
    assert_eq!(names(&["--max-time=2026-01-01T00:00:00Z"]), "34567");
    let wide = bucket.run(&["ls", "-o", "wide", "-l", "cluster=a"]);
    assert_eq!(
        wide.stdout,
        "ULID                        FROM                  UNTIL                 DIFF          LEVEL  RESOLUTION  SOURCE\n\
         01KDVC00000000000000000001  2026-01-01T00:00:00Z  2026-01-01T02:00:00Z  1h59m59.877s      1  0s          sidecar\n\
         01KDVC00000000000000000002  2026-01-01T02:00:00Z  2026-01-01T04:00:00Z  2h0m0s            1  0s          sidecar\n"
    );
}

#[test]
fn ls_prints_whole_documents() {
    let run = many().run(&["ls", "--output=json", "-l", "cluster=a"]);
    assert!(run.stdout.contains("\"x_new\": 12345678901234567890"), "{run:?}");
    let documents: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&run.stdout).into_iter().collect();
    let documents = documents.unwrap();
    assert_eq!(documents.len(), 2);
    assert_eq!(
        documents[1],
        meta(2, (T + 2 * H, T + 4 * H), json!({"cluster": "a", "replica": "0"}))
    );
}

#[test]
fn an_empty_bucket_is_an_empty_list() {
    let bucket = Bucket::new();
    for (args, want) in [
        (&["ls"][..], ""),
        (&["ls", "-o", "json"], ""),
        (&["inspect", "-o", "json"], "[]\n"),
    ] {
        let run = bucket.run(args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), want), "{args:?}");
    }
}

#[test]
fn a_mistake_is_told() {
    let bucket = Bucket::new();
    let run = bucket.run(&[
        "ls",
        "--min-time=2026-01-02T00:00:00Z",
        "--max-time=2026-01-01T00:00:00Z",
    ]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("--min-time is after --max-time"), "{run:?}");
}

#[test]
fn a_store_that_does_not_answer_is_given_up() {
    // Connections are taken by the kernel, and nobody reads them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "type: S3\nconfig:\n  bucket: b\n  endpoint: {}\n  insecure: true\n  region: us-east-1\n  access_key: a\n  \
         secret_key: b\n",
        silent.local_addr().unwrap()
    );
    for command in ["ls", "inspect"] {
        let run = run_on(&config, &[command, "--timeout=1s"]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:?}");
        let want = "the blocks of the bucket could not be read within 1s; --timeout sets another limit";
        assert!(run.stderr.contains(want), "{run:?}");
    }
}
