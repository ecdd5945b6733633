//! kill -9 at random moments: never a block that is not whole under its own name, at most what was in flight is fetched
//! again, and in the end everything is as after an undisturbed run.

use std::{collections::BTreeMap, path::Path, time::Duration};

use fs_err as fs;
use rand::{SeedableRng, rngs::StdRng};

use crate::rig::{
    BucketView, Fault, Rule, S3Server,
    blocks::{self, Spec},
    one_shot::{self, narthex},
    prometheus::sealed,
    tools::temp_dir,
    wait::random_moment,
};

/// Objects that are fetched at once, unless --concurrency says something else.
const AT_ONCE: usize = 4;
const BLOCKS: u64 = 4;
/// Objects of one small block beside `meta.json`.
const OBJECTS: usize = 2;
/// Kills of each round; then it may end.
const KILLS: usize = 5;
const ALL: usize = 40;

/// Every file below a directory, by its path in it.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, name: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{name}/{}", entry.file_name().to_str().unwrap());
            match entry.file_type().unwrap().is_dir() {
                true => walk(&entry.path(), &name, found),
                false => drop(found.insert(name, fs::read(entry.path()).unwrap())),
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, "", &mut found);
    found
}

fn words(bucket: &BucketView, to: &Path) -> [String; 4] {
    [
        "restore".to_owned(),
        format!("--objstore.config={}", bucket.config()),
        format!("--to={}", to.display()),
        "--selector={cluster=\"eu\"}".to_owned(),
    ]
}

fn restore(bucket: &BucketView, to: &Path) {
    let words = words(bucket, to);
    narthex(&words.each_ref().map(String::as_str)).ended(0);
}

/// Starts a restore and kills it at some moment, told by how many objects it has `fetched`; whether it was still at work.
async fn killed(bucket: &BucketView, to: &Path, moments: &mut StdRng, fetched: impl Fn() -> usize) -> bool {
    let (log, words) = (temp_dir("log"), words(bucket, to));
    let process = one_shot::start(&words.each_ref().map(String::as_str), &log.path().join("log"));
    let due = BLOCKS as usize * OBJECTS;
    random_moment(moments, due, async || fetched(), || process.exited().is_some()).await;
    !process.kill().success()
}

/// What is there under the name of a block is that block, whole.
fn visible_is_whole(to: &Path, expected: &BTreeMap<String, Vec<u8>>) {
    for id in sealed(to) {
        let whole: Vec<&String> = expected
            .keys()
            .filter(|name| name.starts_with(&format!("/{id}/")))
            .collect();
        assert!(!whole.is_empty(), "{id} was never sent");
        for name in whole {
            let there = fs::read(to.join(&name[1..])).unwrap_or_default();
            assert!(there == expected[name], "{name} is not as it was sent");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_forty_times_at_most_what_was_in_flight_is_fetched_again() {
    let (server, source, dir) = (S3Server::start(), temp_dir("blocks"), temp_dir("restored"));
    for slot in 0..BLOCKS {
        blocks::place(&blocks::generate(Spec::small(slot)), source.path());
    }
    let bucket = server.bucket("restore");
    let path = format!("--path={}", source.path().display());
    let config = format!("--objstore.config={}", bucket.config());
    narthex(&["backfill", "--label=cluster=eu", &path, &config]).ended(0);

    // So that most of a life is spent fetching, also on a busy machine.
    server.fault(Rule::on("GET", "*/chunks/*", Fault::Delay(Duration::from_millis(30))));
    restore(&bucket, &dir.path().join("undisturbed"));
    let expected = files(&dir.path().join("undisturbed"));
    let data = |name: &str| name.ends_with("index") || name.contains("/chunks/");
    let gets = || server.count(|seen| seen.method == "GET" && data(&seen.key));
    let due = BLOCKS as usize * OBJECTS;
    let mut moments = StdRng::from_rng(&mut rand::rng());
    let (mut hits, mut halves, mut round) = (0, 0, 0);
    while hits < ALL {
        round += 1;
        let to = dir.path().join(format!("round-{round}"));
        let (before, mut hit) = (gets(), 0);
        for _ in 0..KILLS {
            hit += usize::from(killed(&bucket, &to, &mut moments, gets).await);
            if fs::metadata(&to).is_ok() {
                visible_is_whole(&to, &expected);
                let entries = fs::read_dir(&to).unwrap().count();
                halves += usize::from(entries > sealed(&to).len());
            }
        }
        restore(&bucket, &to);
        assert!(
            files(&to) == expected,
            "round {round} ended otherwise than an undisturbed run"
        );
        let fetched = gets() - before;
        assert!(
            fetched <= due + hit * AT_ONCE,
            "{fetched} objects were fetched for {due}, with {hit} kills"
        );
        hits += hit;
    }
    assert!(
        halves > 3,
        "only {halves} kills left a block half done: the moments show nothing"
    );
}
