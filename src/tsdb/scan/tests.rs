use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::tsdb::testing;

const A: &str = "01K4ABCDEFGHJKMNPQRSTVWXYZ";
const B: &str = "01K4ABCDEFGHJKMNPQRSTVWXZ0";
const C: &str = "01K4ABCDEFGHJKMNPQRSTVWXZ1";

fn meta(id: &str, min_time: i64) -> String {
    format!(r#"{{"ulid":"{id}","minTime":{min_time},"maxTime":9000,"version":1}}"#)
}

fn put(data: &Path, id: &str, meta: &str) {
    fs_err::create_dir_all(data.join(id)).unwrap();
    fs_err::write(data.join(id).join(META), meta).unwrap();
}

fn names(scan: &Scan) -> Vec<String> {
    scan.blocks.iter().map(|block| block.id.to_string()).collect()
}

fn only_detail(scan: &Scan) -> &str {
    assert_eq!((scan.blocks.len(), scan.corrupt.len()), (0, 1), "{scan:?}");
    &scan.corrupt[0].detail
}

#[test]
fn lists_blocks_by_time_and_leaves_all_else_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    put(data, A, &meta(A, 500));
    put(data, B, &meta(B, -500));
    put(data, C, &meta(C, 500));
    for other in [
        "wal",
        "thanos",
        "chunks_head",
        "snapshots",
        "01k4abcdefghjkmnpqrstvwxz2",
        "81BX5ZZKBKACTAV9WEVGEMMVRZ",
    ] {
        put(data, other, &meta(A, 0));
    }
    for suffix in ["tmp-for-creation", "tmp-for-deletion", "tmp"] {
        put(data, &format!("{A}.{suffix}"), "{");
    }
    fs_err::write(data.join("01K4ABCDEFGHJKMNPQRSTVWXZ3"), "a file").unwrap();
    symlink(data.join(A), data.join("01K4ABCDEFGHJKMNPQRSTVWXZ4")).unwrap();
    let scan = scan(data).unwrap();
    assert_eq!(names(&scan), [B, A, C]);
    assert_eq!(scan.corrupt, []);
    assert_eq!(*scan.blocks[1].dir, *data.join(A));
}

#[test]
fn says_what_is_wrong_with_a_block_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = |bytes: &str| {
        put(dir.path(), A, bytes);
        let scan = scan(dir.path()).unwrap();
        assert!(scan.corrupt[0].reason == Reason::Meta && scan.corrupt[0].is_block());
        only_detail(&scan).to_owned()
    };
    assert_eq!(wrong(""), "meta.json cannot be used: it is empty");
    assert_eq!(
        wrong("{"),
        "meta.json cannot be used: it is cut off: the JSON document does not end"
    );
    assert_eq!(wrong(&meta(B, 1)), format!("meta.json is that of the block {B}"));
    fs_err::remove_file(dir.path().join(A).join(META)).unwrap();
    let found = scan(dir.path()).unwrap();
    assert_eq!(only_detail(&found), "meta.json is missing");
    assert!(!found.corrupt[0].is_block());
    fs_err::create_dir(dir.path().join(A).join(META)).unwrap();
    assert_eq!(only_detail(&scan(dir.path()).unwrap()), "meta.json is not a file");
    put(dir.path(), B, &meta(B, 1));
    let scan = scan(dir.path()).unwrap();
    assert_eq!((names(&scan), scan.corrupt.len()), (vec![B.to_owned()], 1));
}

#[test]
fn a_huge_file_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), A, &meta(A, 1));
    let file = fs_err::OpenOptions::new()
        .write(true)
        .open(dir.path().join(A).join(META))
        .unwrap();
    file.set_len(1 << 40).unwrap();
    assert_eq!(
        only_detail(&scan(dir.path()).unwrap()),
        "meta.json is larger than 16777216 bytes"
    );
}

#[test]
fn what_is_wrong_is_told_in_few_words_however_long_the_file_is() {
    let dir = tempfile::tempdir().unwrap();
    let name = "é".repeat(1 << 20);
    let text = format!(r#"{{"ulid":"{A}","version":1,"thanos":{{"labels":{{"{name}":1}}}}}}"#);
    put(dir.path(), A, &text);
    let scan = scan(dir.path()).unwrap();
    let detail = only_detail(&scan);
    assert!(
        detail.starts_with("meta.json cannot be used: thanos.labels.éé"),
        "{detail}"
    );
    assert!(detail.len() <= 503 && detail.ends_with("é..."), "{}", detail.len());
}

#[test]
fn equal_labels_of_many_blocks_take_the_memory_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let labelled = |id: &str| {
        let more = r#","thanos":{"labels":{"cluster":"eu-1"}}}"#;
        meta(id, 1).replace('}', more)
    };
    put(dir.path(), A, &labelled(A));
    put(dir.path(), B, &labelled(B));
    let mut scanner = Scanner::default();
    scanner.scan(dir.path()).unwrap();
    // One that comes later.
    put(dir.path(), C, &labelled(C));
    let scan = scanner.scan(dir.path()).unwrap();
    let first = |block: &Block| std::ptr::from_ref(block.meta.thanos_labels.as_ref().unwrap().iter().next().unwrap());
    let places: HashSet<_> = scan.blocks.iter().map(first).collect();
    assert_eq!((scan.blocks.len(), places.len()), (3, 1));
}

#[test]
fn a_meta_json_that_is_read_once_more_is_the_one_of_now() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), A, &meta(A, 1));
    let block = scan(dir.path()).unwrap().blocks.remove(0);
    assert_eq!(*read_meta(&block).unwrap(), *block.meta);
    put(dir.path(), A, &meta(A, 2));
    assert_eq!(read_meta(&block).unwrap().min_time, 2);
    put(dir.path(), A, &meta(B, 1));
    assert!(matches!(
        read_meta(&block),
        Err(PinError::Broken {
            reason: Reason::Meta,
            ..
        })
    ));
    fs_err::remove_dir_all(&block.dir).unwrap();
    assert!(matches!(read_meta(&block), Err(PinError::Vanished)));
}

#[test]
fn an_unreadable_block_harms_no_other_and_an_unreadable_directory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), B, &meta(B, 1));
    // A link that ends in itself cannot be read by anybody, not even by root.
    put(dir.path(), A, "");
    fs_err::remove_file(dir.path().join(A).join(META)).unwrap();
    symlink(META, dir.path().join(A).join(META)).unwrap();
    let scan = scan(dir.path()).unwrap();
    assert_eq!(names(&scan), [B]);
    assert_eq!(
        (scan.corrupt[0].reason, scan.corrupt[0].id.to_string().as_str()),
        (Reason::Unreadable, A)
    );
    let missing = super::scan(&dir.path().join("nowhere")).unwrap_err().to_string();
    assert!(missing.contains("nowhere"), "{missing}");
}

#[test]
fn what_is_unchanged_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), A, &meta(A, 1));
    put(dir.path(), B, "{");
    let mut scanner = Scanner::default();
    let read = |scan: &Scan| Arc::as_ptr(&scan.blocks[0].meta);
    let first = scanner.scan(dir.path()).unwrap();
    let second = scanner.scan(dir.path()).unwrap();
    assert_eq!(read(&first), read(&second));
    assert_eq!(first.corrupt, second.corrupt);

    // As Prometheus replaces it: same size, other file.
    let new = dir.path().join(A).join("meta.json.tmp");
    fs_err::write(&new, meta(A, 2)).unwrap();
    fs_err::rename(&new, dir.path().join(A).join(META)).unwrap();
    put(dir.path(), B, &meta(B, 9));
    let third = scanner.scan(dir.path()).unwrap();
    assert_eq!(
        (third.blocks[0].meta.min_time, names(&third)),
        (2, vec![A.to_owned(), B.to_owned()])
    );

    // In place, with the time of modification set back.
    let path = dir.path().join(A).join(META);
    let modified = fs_err::metadata(&path).unwrap().modified().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs_err::write(&path, meta(A, 3)).unwrap();
    fs_err::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .file()
        .set_modified(modified)
        .unwrap();
    assert_eq!(scanner.scan(dir.path()).unwrap().blocks[0].meta.min_time, 3);

    fs_err::remove_dir_all(dir.path().join(A)).unwrap();
    assert_eq!(names(&scanner.scan(dir.path()).unwrap()), [B]);
    assert_eq!(scanner.known.len(), 1);
}

#[test]
fn blocks_that_come_and_go_meanwhile_are_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_owned();
    put(&data, B, &meta(B, 1));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (building, dying) = (format!("{A}.tmp-for-creation"), format!("{A}.tmp-for-deletion"));
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                put(&data, &building, &meta(A, 2));
                fs_err::rename(data.join(&building), data.join(A)).unwrap();
                fs_err::rename(data.join(A), data.join(&dying)).unwrap();
                fs_err::remove_dir_all(data.join(&dying)).unwrap();
            }
        });
        let mut scanner = Scanner::default();
        let mut seen = 0;
        for _ in 0..2000 {
            let scan = scanner.scan(&data);
            let listed = scan
                .as_ref()
                .map(|scan| (scan.corrupt.len(), names(scan).contains(&B.to_owned())));
            seen += scan.as_ref().map_or(0, |scan| scan.blocks.len() - 1);
            if !matches!(listed, Ok((0, true))) {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("{scan:?} after {seen}");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn the_real_block_is_read() {
    let (data, block) = testing::real_block();
    let scan = scan(data.path()).unwrap();
    assert_eq!(names(&scan), [block.id.to_string()]);
    let meta = &scan.blocks[0].meta;
    assert_eq!((meta.num_samples, meta.num_series, meta.level), (1440, 3, 1));
    assert_eq!(
        (meta.min_time, &meta.sources, &meta.thanos_labels),
        (1_767_225_600_000, &vec![block.id], &None)
    );
}

#[test]
fn a_directory_without_rights_is_an_error_of_the_scan() {
    let dir = tempfile::tempdir().unwrap();
    fs_err::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o000)).unwrap();
    match scan(dir.path()) {
        Ok(scan) => assert!(scan.blocks.is_empty(), "root reads it nevertheless"),
        Err(error) => assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}"),
    }
    fs_err::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
}
