use std::{fs::Permissions, os::unix::fs::PermissionsExt};

use proptest::{prelude::*, sample::Index};

use super::*;
use crate::tsdb::Meta;

const A: &str = "01K4ABCDEFGHJKMNPQRSTVWXYZ";
const B: &str = "01K4ABCDEFGHJKMNPQRSTVWXZ0";
const C: &str = "01K4ABCDEFGHJKMNPQRSTVWXZ1";
const THANOS: &str = "{\n\t\"version\": 1,\n\t\"uploaded\": [\n\t\t\"01K4ABCDEFGHJKMNPQRSTVWXYZ\"\n\t]\n}\n";

fn id(name: &str) -> BlockId {
    BlockId::parse(name).unwrap()
}

fn opened(dir: &Path) -> (Ledger, Found) {
    Ledger::open(dir.join("thanos.shipper.json"), "file:///bucket", None)
}

/// A directory in which this stands in the place of the ledger.
fn beside(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("thanos.shipper.json"), text).unwrap();
    dir
}

fn text(dir: &Path, suffix: &str) -> Option<String> {
    fs_err::read_to_string(dir.join(format!("thanos.shipper.json{suffix}"))).ok()
}

fn mode(path: &Path) -> u32 {
    fs_err::metadata(path).unwrap().permissions().mode() & 0o777
}

fn meta(name: &str, sources: &[&str], max_time: i64) -> Meta {
    let sources = sources.join("\",\"");
    let text = format!(
        r#"{{"ulid":"{name}","minTime":0,"maxTime":{max_time},"stats":{{"numSamples":1}},"compaction":{{"level":2,"sources":["{sources}"]}},"version":1}}"#
    );
    Meta::parse(text.as_bytes()).unwrap()
}

fn local(meta: &Meta) -> LocalBlock<'_> {
    LocalBlock {
        id: meta.ulid,
        meta: Some(meta),
    }
}

fn unreadable(name: &str) -> LocalBlock<'static> {
    LocalBlock {
        id: id(name),
        meta: None,
    }
}

#[test]
fn what_is_never_shipped_is_listed_and_is_not_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = opened(dir.path());
    ledger.record(id(B), &Labels::default(), 1000);
    ledger.list_skipped([id(A), id(B)]);
    ledger.save().unwrap();
    for _ in 0..2 {
        let file: serde_json::Value = serde_json::from_str(&text(dir.path(), "").unwrap()).unwrap();
        assert_eq!(file["uploaded"], serde_json::json!([B, A]));
        assert_eq!(file["narthex"]["skipped"], serde_json::json!([A]));
        assert!(ledger.contains(id(B)) && !ledger.contains(id(A)) && !ledger.knows(id(A)));
        // A is the younger one by its name.
        assert_eq!((ledger.newest(), ledger.listed().count()), (Some(id(B)), 1));
        let (again, found) = opened(dir.path());
        assert_eq!(found, Found::Ours);
        ledger = again;
        ledger.save().unwrap();
    }
    // It turns out to be one that is shipped.
    ledger.record(id(A), &Labels::default(), 2000);
    ledger.save().unwrap();
    let (mut ledger, _) = opened(dir.path());
    assert!(ledger.contains(id(A)));
    ledger.list_skipped([]);
    ledger.save().unwrap();
    assert!(!text(dir.path(), "").unwrap().contains("skipped"));
}

#[test]
fn written_as_thanos_and_prometheus_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, found) = opened(dir.path());
    assert_eq!(found, Found::Missing);
    ledger.save().unwrap();
    assert!(ledger.confirm_incarnation("18:1f"));
    ledger.record(id(B), &Labels::from_pairs([("replica", "a")]), 2000);
    ledger.record(id(A), &Labels::from_pairs([("replica", "a")]), 1000);
    ledger.record_source(id(C));
    let (a, b) = (meta(A, &[A], 1000), meta(B, &[C], 2000));
    ledger.retain([local(&a), local(&b)]);
    ledger.save().unwrap();
    let expected = format!(
        "{{\n\t\"version\": 1,\n\t\"uploaded\": [\n\t\t\"{A}\",\n\t\t\"{B}\"\n\t],\n\t\"narthex\": {{\n\t\t\"bucket\": \
         \"file:///bucket\",\n\t\t\"incarnation\": \"18:1f\",\n\t\t\"labels\": {{\n\t\t\t\"replica\": \"a\"\n\t\t}},\n\t\t\
         \"sources\": [\n\t\t\t\"{C}\"\n\t\t],\n\t\t\"durable_until\": 2000\n\t}}\n}}\n"
    );
    assert_eq!(fs_err::read_to_string(ledger.path()).unwrap(), expected);
    assert_eq!(mode(ledger.path()), 0o644);

    let (again, found) = opened(dir.path());
    assert_eq!(found, Found::Ours);
    assert!(again.contains(id(A)) && again.contains(id(B)));
    assert!(again.knows(id(C)) && !again.contains(id(C)));
    assert_eq!(again.labels().get("replica"), Some("a"));
    assert_eq!(again.highest(), Some(2000));
    assert_eq!(again.newest(), Some(id(B)));
}

#[test]
fn a_ledger_of_an_earlier_or_a_later_version_of_ours_is_read() {
    let ours = |more: &str| {
        format!(
            "{{\"version\":1,\"uploaded\":[\"{A}\"],\"narthex\":{{\"bucket\":\"file:///bucket\"{more}}},\"later\":[1]}}"
        )
    };
    for more in ["", ",\"labels\":{\"a\":\"b\"}", ",\"later\":{\"x\":[null]}"] {
        let dir = beside(&ours(more));
        let (mut ledger, found) = opened(dir.path());
        assert_eq!(found, Found::Ours, "{more}");
        assert!(ledger.contains(id(A)), "{more}");
        assert_eq!(ledger.highest(), None);
        // The blocks that it lists tell until when they reach.
        ledger.retain([local(&meta(A, &[A], 1000))]);
        assert_eq!(ledger.highest(), Some(1000));
    }
}

#[test]
fn an_unchanged_ledger_is_not_written_again() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = opened(dir.path());
    ledger.record(id(A), &Labels::default(), 1000);
    ledger.save().unwrap();
    let inode = fs_err::metadata(ledger.path()).unwrap().ino();
    let (mut again, _) = opened(dir.path());
    again.retain([local(&meta(A, &[A], 1000))]);
    again.save().unwrap();
    assert_eq!(fs_err::metadata(again.path()).unwrap().ino(), inode);
}

#[test]
fn forgets_blocks_that_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = opened(dir.path());
    ledger.record(id(A), &Labels::default(), 1000);
    ledger.record(id(B), &Labels::default(), 2000);
    ledger.retain([local(&meta(B, &[B], 2000))]);
    assert!(!ledger.knows(id(A)) && ledger.contains(id(B)));
    ledger.retain([]);
    assert!(!ledger.knows(id(B)));
    assert_eq!(ledger.highest(), Some(2000), "what was durable stays so");
}

#[test]
fn a_durable_block_that_was_compacted_is_known_as_long_as_the_larger_block_is_local() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = opened(dir.path());
    ledger.record(id(A), &Labels::default(), 1000);
    ledger.save().unwrap();
    let merged = meta(C, &[A, B], 2000);
    // Whether it was seen to happen or not.
    let (mut again, _) = opened(dir.path());
    for ledger in [&mut ledger, &mut again] {
        ledger.retain([local(&merged)]);
        assert!(ledger.knows(id(A)) && !ledger.contains(id(A)));
        assert!(!ledger.knows(id(B)), "nobody said that it is durable");
        ledger.save().unwrap();
    }
    let (mut third, _) = opened(dir.path());
    third.record_source(id(B));
    third.retain([local(&merged)]);
    assert!(third.knows(id(A)) && third.knows(id(B)));
    third.retain([]);
    assert!(!third.knows(id(A)) && !third.knows(id(B)));
}

#[test]
fn nothing_durable_is_forgotten_while_a_block_that_cannot_be_read_may_name_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = opened(dir.path());
    ledger.record(id(A), &Labels::default(), 1000);
    ledger.retain([unreadable(C)]);
    assert!(ledger.knows(id(A)));
    ledger.retain([local(&meta(C, &[A], 1000))]);
    assert!(ledger.knows(id(A)));
}

#[test]
fn sources_are_bounded_and_the_oldest_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = opened(dir.path());
    let name = |n: usize| id(&format!("01K4ABCDEFGHJKMNPQRST{n:05}"));
    (0..MOST_SOURCES + 2).for_each(|n| ledger.record_source(name(n)));
    ledger.retain([unreadable(C)]);
    assert!(!ledger.knows(name(1)) && ledger.knows(name(2)) && ledger.knows(name(MOST_SOURCES + 1)));
    ledger.save().unwrap();
    let (again, found) = opened(dir.path());
    assert_eq!(found, Found::Ours);
    assert!(again.knows(name(2)));
}

#[test]
fn a_block_that_ends_in_the_future_does_not_say_until_when_all_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = opened(dir.path());
    ledger.record(id(A), &Labels::default(), 1000);
    ledger.record(id(B), &Labels::default(), i64::MAX);
    assert_eq!(ledger.highest(), Some(1000));
}

#[test]
fn what_proves_nothing_is_told_apart() {
    let found = |text: &str| {
        let dir = beside(text);
        let (ledger, found) = opened(dir.path());
        assert!(!ledger.knows(id(A)), "{text}");
        found
    };
    assert_eq!(found("{\"version\":1,\"uploaded\":null}"), Found::Unidentified);
    assert_eq!(found(THANOS), Found::Unidentified);
    let other = format!("{{\"version\":1,\"uploaded\":[\"{A}\"],\"narthex\":{{\"bucket\":\"s3://h/b\"}}}}");
    assert_eq!(found(&other), Found::OtherBucket("s3://h/b".into()));
    for bad in [
        "",
        "{\"version\":1,\"uplo",
        "[]",
        "{\"version\":2,\"uploaded\":[]}",
        "\0\0\0",
    ] {
        assert!(matches!(found(bad), Found::Bad(_)), "{bad}");
    }
    for odd in [
        "\"uploaded\":[\"x\"],\"narthex\":{\"bucket\":\"file:///bucket\"}",
        "\"uploaded\":[],\"narthex\":{\"bucket\":\"file:///bucket\",\"sources\":[\"x\"]}",
        "\"uploaded\":[],\"narthex\":{\"bucket\":\"file:///bucket\",\"durable_until\":\"x\"}",
    ] {
        assert!(
            matches!(found(&format!("{{\"version\":1,{odd}}}")), Found::Bad(_)),
            "{odd}"
        );
    }
}

#[test]
fn what_thanos_wrote_stays_until_it_is_confirmed_and_is_kept_beside() {
    let dir = beside(THANOS);
    let (mut ledger, _) = opened(dir.path());
    assert!(!ledger.is_confirmed());
    ledger.save().unwrap();
    ledger.record(id(B), &Labels::default(), 1000);
    ledger.retain([local(&meta(B, &[B], 1000))]);
    ledger.save().unwrap();
    assert_eq!(text(dir.path(), "").unwrap(), THANOS);
    assert_eq!(text(dir.path(), BEFORE), None);

    ledger.confirm();
    assert!(ledger.is_confirmed());
    ledger.save().unwrap();
    assert_eq!(text(dir.path(), BEFORE).unwrap(), THANOS);
    assert_eq!(mode(&dir.path().join("thanos.shipper.json.before-narthex")), 0o644);
    let (again, found) = opened(dir.path());
    assert_eq!(found, Found::Ours);
    assert!(again.contains(id(B)) && !again.knows(id(A)));
}

#[test]
fn what_thanos_wrote_is_put_back_when_it_is_removed_hidden_or_damaged_meanwhile() {
    let harms: [fn(&Path); 4] = [
        |ledger| fs_err::remove_file(ledger).unwrap(),
        |ledger| fs_err::write(ledger, "").unwrap(),
        |ledger| fs_err::write(ledger, "{\"version\": 1, \"uplo").unwrap(),
        |ledger| fs_err::set_permissions(ledger, Permissions::from_mode(0o600)).unwrap(),
    ];
    for harm in harms {
        let dir = beside(THANOS);
        let (mut ledger, _) = opened(dir.path());
        ledger.save().unwrap();
        harm(ledger.path());
        ledger.save().unwrap();
        assert_eq!(text(dir.path(), "").unwrap(), THANOS);
        assert_eq!(mode(ledger.path()), 0o644);
    }
}

#[test]
fn what_thanos_writes_meanwhile_is_what_is_kept() {
    let newer = THANOS.replace(A, B);
    // Before the next save, or only before it is confirmed.
    for save in [true, false] {
        let dir = beside(THANOS);
        let (mut ledger, _) = opened(dir.path());
        ledger.save().unwrap();
        fs_err::write(ledger.path(), &newer).unwrap();
        if save {
            ledger.save().unwrap();
            assert_eq!(text(dir.path(), "").unwrap(), newer);
            fs_err::remove_file(ledger.path()).unwrap();
        }
        ledger.confirm();
        ledger.save().unwrap();
        assert_eq!(text(dir.path(), BEFORE).unwrap(), newer);
    }
}

#[test]
fn what_thanos_wrote_is_not_replaced_while_it_cannot_be_kept() {
    let dir = beside(THANOS);
    // A directory in the place of the temporary file stops the write, also for root.
    let stop = dir.path().join("thanos.shipper.json.before-narthex.tmp");
    fs_err::create_dir(&stop).unwrap();
    let (mut ledger, _) = opened(dir.path());
    ledger.confirm();
    ledger.save().unwrap_err();
    assert_eq!(text(dir.path(), "").unwrap(), THANOS);
    fs_err::remove_dir(stop).unwrap();
    ledger.save().unwrap();
    assert_eq!(text(dir.path(), BEFORE).unwrap(), THANOS);
    assert_eq!(opened(dir.path()).1, Found::Ours);
}

#[test]
fn the_newest_word_of_thanos_is_kept_and_one_that_lists_nothing_does_not_push_it_out() {
    let dir = beside(THANOS);
    let newer = THANOS.replace(A, B);
    for (text_there, kept) in [
        (THANOS, THANOS),
        (newer.as_str(), newer.as_str()),
        ("{\"version\": 1, \"uploaded\": null}", newer.as_str()),
    ] {
        fs_err::write(dir.path().join("thanos.shipper.json"), text_there).unwrap();
        let (mut ledger, found) = opened(dir.path());
        assert_eq!(found, Found::Unidentified);
        ledger.confirm();
        ledger.save().unwrap();
        assert_eq!(text(dir.path(), BEFORE).unwrap(), kept);
    }
}

#[test]
fn what_is_of_no_use_is_replaced_at_once_and_kept_beside() {
    let other = format!("{{\"version\":1,\"uploaded\":[\"{A}\"],\"narthex\":{{\"bucket\":\"s3://h/b\"}}}}");
    let large = " ".repeat(usize::try_from(file::LARGEST).unwrap()) + "x";
    for there in [other.as_str(), "{\"version\": 1, \"uplo", &large] {
        let dir = beside(there);
        fs_err::write(dir.path().join("thanos.shipper.json.before-narthex"), THANOS).unwrap();
        let (mut ledger, _) = opened(dir.path());
        assert!(ledger.is_confirmed());
        ledger.save().unwrap();
        assert!(text(dir.path(), REPLACED).unwrap() == there);
        assert_eq!(text(dir.path(), BEFORE).unwrap(), THANOS);
        assert_eq!(opened(dir.path()).1, Found::Ours);
    }
    // What says nothing is not kept.
    for there in ["", "\0\0\0"] {
        let dir = beside(there);
        opened(dir.path()).0.save().unwrap();
        assert_eq!(text(dir.path(), REPLACED), None);
    }
}

#[test]
fn a_pipe_in_place_of_the_ledger_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("thanos.shipper.json");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let (mut ledger, found) = opened(dir.path());
    assert_eq!(found, Found::Bad("not a regular file".into()));
    ledger.save().unwrap();
    assert_eq!(opened(dir.path()).1, Found::Ours);
}

#[test]
fn what_cannot_be_kept_does_not_keep_a_bad_ledger_there() {
    let dir = beside("{\"version\": 1, \"uplo");
    fs_err::create_dir(dir.path().join("thanos.shipper.json.replaced.tmp")).unwrap();
    opened(dir.path()).0.save().unwrap();
    assert_eq!(opened(dir.path()).1, Found::Ours);
}

#[test]
fn a_ledger_of_another_place_at_the_same_address_proves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("thanos.shipper.json");
    let open = |incarnation| Ledger::open(path.clone(), "file:///bucket", incarnation);
    let (mut ledger, _) = open(Some("1"));
    ledger.record(id(A), &Labels::default(), 1000);
    ledger.save().unwrap();
    let old = text(dir.path(), "").unwrap();
    // Not asked yet: it counts, and is not forgotten.
    let (mut ledger, found) = open(None);
    assert_eq!(found, Found::Ours);
    ledger.save().unwrap();
    assert_eq!(text(dir.path(), "").unwrap(), old);
    assert!(ledger.confirm_incarnation("1") && ledger.contains(id(A)));
    assert!(!ledger.confirm_incarnation("2") && !ledger.contains(id(A)));
    assert_eq!(ledger.highest(), None);
    ledger.save().unwrap();
    assert_eq!(text(dir.path(), REPLACED).unwrap(), old);

    fs_err::write(&path, &old).unwrap();
    let (mut ledger, found) = open(Some("2"));
    assert_eq!(found, Found::OtherPlace("1".into()));
    assert!(!ledger.knows(id(A)));
    ledger.save().unwrap();
    assert_eq!(open(Some("2")).1, Found::Ours);
}

#[test]
fn a_distrusted_ledger_lists_nothing_and_the_old_one_is_kept_beside() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = opened(dir.path());
    ledger.record(id(A), &Labels::from_pairs([("replica", "a")]), 1000);
    ledger.record_source(id(B));
    ledger.save().unwrap();
    let old = text(dir.path(), "").unwrap();
    ledger.clear();
    assert!(!ledger.knows(id(A)) && !ledger.knows(id(B)));
    assert_eq!((ledger.highest(), ledger.newest()), (None, None));
    ledger.save().unwrap();
    assert_eq!(text(dir.path(), REPLACED).unwrap(), old);
    let (again, found) = opened(dir.path());
    assert_eq!(found, Found::Ours);
    assert!(!again.knows(id(A)));
    // Prometheus said them, not the bucket.
    assert_eq!(again.labels().get("replica"), Some("a"));
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = opened(dir.path());
    ledger.record(id(A), &Labels::default(), 1000);
    ledger.save().unwrap();
    // A directory in the place of the temporary file stops the write, also for root.
    fs_err::create_dir(dir.path().join("thanos.shipper.json.tmp")).unwrap();
    ledger.record(id(B), &Labels::default(), 1000);
    ledger.save().unwrap_err();
    let (again, found) = opened(dir.path());
    assert_eq!(found, Found::Ours);
    assert!(again.contains(id(A)) && !again.contains(id(B)));
}

/// Bytes, and ledgers of ours and of Thanos with a piece of them replaced.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let ours = format!(
        "{{\"version\":1,\"uploaded\":[\"{A}\",\"{B}\"],\"narthex\":{{\"bucket\":\"file:///bucket\",\"incarnation\":\"1\",\
         \"labels\":{{\"a\":\"b\"}},\"sources\":[\"{C}\"],\"durable_until\":1000,\"later\":{{}}}}}}"
    );
    let good = prop::sample::select(vec![ours, THANOS.to_owned()]);
    let piece = prop_oneof![
        any::<Vec<u8>>(),
        "(null|-?[0-9]{1,30}|\"[a-z]{0,3}\"|\\{\\}|\\[|\\]|,|:){0,3}".prop_map(String::into_bytes),
    ];
    let mended = (good, any::<Index>(), any::<Index>(), piece).prop_map(|(good, from, to, piece)| {
        let (from, to) = (from.index(good.len() + 1), to.index(good.len() + 1));
        let (from, to) = (from.min(to), from.max(to));
        [&good.as_bytes()[..from], &piece, &good.as_bytes()[to..]].concat()
    });
    prop_oneof![any::<Vec<u8>>(), mended]
}

proptest! {
    #[test]
    fn whatever_stands_there_the_next_ledger_is_a_good_one(bytes in anything()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("thanos.shipper.json");
        fs_err::write(&path, &bytes).unwrap();
        let (mut ledger, found) = opened(dir.path());
        let ours = found == Found::Ours;
        // Nothing but what the file says, and only if it is ours.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for block in [A, B, C] {
            prop_assert!(!ledger.knows(id(block)) || ours && text.contains(block));
        }
        prop_assert!(ledger.highest().is_none() || ours);
        ledger.save().unwrap();
        if found == Found::Unidentified {
            prop_assert_eq!(fs_err::read(&path).unwrap(), bytes);
            ledger.confirm();
            ledger.save().unwrap();
        }
        let (again, found) = opened(dir.path());
        prop_assert_eq!(found, Found::Ours);
        for block in [A, B, C] {
            prop_assert_eq!(again.knows(id(block)), ledger.knows(id(block)));
        }
        prop_assert_eq!(again.highest(), ledger.highest());
    }
}
