//! What of a block is there, and what is not.

use super::*;

const ID: &str = "01K4ABCDEFGHJKMNPQRSTVWXYZ";
const LISTED: &str = r#""files":[{"rel_path":"chunks/000001","size_bytes":214},{"rel_path":"chunks/000002"},
    {"rel_path":"index","size_bytes":512,"hash":{"hashFunc":"SHA256","value":"ab12"}},{"rel_path":"meta.json"}]"#;

/// A block whose `thanos` section has these members.
fn meta(thanos: &str) -> Meta {
    let text = format!(r#"{{"ulid":"{ID}","version":1,"stats":{{"numChunks":5}},"thanos":{{{thanos}}}}}"#);
    Meta::parse(text.as_bytes()).unwrap()
}

fn objects(names: &[(&str, u64)]) -> Vec<Object> {
    let object = |(name, size): &(&str, u64)| Object {
        key: format!("{ID}/{name}"),
        size: *size,
    };
    names.iter().map(object).collect()
}

fn faults(thanos: &str, there: &[(&str, u64)]) -> Vec<String> {
    let listed = check_objects(&meta(thanos), &objects(there));
    listed.faults.iter().map(ToString::to_string).collect()
}

#[test]
fn a_whole_block_has_no_faults() {
    let there = [
        ("chunks/000001", 214),
        ("chunks/000002", 0),
        ("deletion-mark.json", 90),
        ("index", 512),
        ("index.cache.json", 1),
        ("meta.json", 777),
        ("no-compact-mark.json", 3),
        ("tombstones", 9),
    ];
    let listed = check_objects(&meta(LISTED), &objects(&there));
    assert_eq!((listed.objects, listed.bytes, listed.marked), (8, 1606, true));
    assert_eq!(listed.faults, []);
    let files: Vec<_> = listed
        .files
        .iter()
        .map(|file| (file.rel_path.as_str(), file.size, file.sha256.as_deref()))
        .collect();
    assert_eq!(
        files,
        [
            ("chunks/000001", Some(214), None),
            ("chunks/000002", Some(0), None),
            ("index", Some(512), Some("ab12"))
        ]
    );
}

#[test]
fn what_differs_from_the_list_is_told() {
    let meta_json = ("meta.json", 1);
    for (there, want) in [
        (
            vec![("chunks/000001", 214), ("index", 512), meta_json],
            vec!["chunks/000002 is missing"],
        ),
        (
            vec![("chunks/000001", 213), ("chunks/000002", 0), ("index", 0), meta_json],
            vec![
                "chunks/000001 has 213 bytes, and meta.json says 214",
                "index has 0 bytes, and meta.json says 512",
            ],
        ),
        (
            vec![
                ("chunks/000001", 214),
                ("chunks/000002", 0),
                ("chunks/000003", 9),
                ("index", 512),
                ("index.bak", 4),
                meta_json,
                ("tombstones", 30),
            ],
            vec![
                "chunks/000003 (9 bytes) does not belong to the block according to its meta.json",
                "index.bak (4 bytes) does not belong to the block according to its meta.json",
                "tombstones (30 bytes) does not belong to the block according to its meta.json",
            ],
        ),
    ] {
        assert_eq!(faults(LISTED, &there), want);
    }
}

#[test]
fn a_block_without_a_list_has_an_index_and_consecutive_segments() {
    let named = r#""segment_files":["000001","000002"]"#;
    for (thanos, there, want) in [
        ("", vec![("chunks/000001", 1), ("index", 1)], vec![]),
        (r#""files":[]"#, vec![("chunks/000001", 1), ("index", 1)], vec![]),
        (
            "",
            vec![("chunks/000001", 1), ("chunks/000002", 1), ("index", 1)],
            vec![],
        ),
        ("", vec![], vec!["chunks/000001 is missing", "index is missing"]),
        (
            "",
            vec![
                ("chunks/000001", 1),
                ("chunks/000003", 1),
                ("index", 1),
                ("chunks/3", 1),
            ],
            vec![
                "chunks/000002 is missing",
                "chunks/3 (1 bytes) does not belong to the block according to its meta.json",
            ],
        ),
        (
            named,
            vec![("chunks/000001", 1), ("chunks/000002", 1), ("index", 1)],
            vec![],
        ),
        (
            named,
            vec![("chunks/000001", 1), ("index", 1)],
            vec!["chunks/000002 is missing"],
        ),
    ] {
        assert_eq!(faults(thanos, &there), want, "{thanos} {there:?}");
    }
    // A stray name does not make a million faults.
    let stray = faults("", &[("chunks/999999", 1), ("index", 1)]);
    assert_eq!(stray.len(), 11, "{stray:?}");
}

#[test]
fn an_empty_block_needs_no_segments() {
    let text = format!(r#"{{"ulid":"{ID}","version":1}}"#);
    let listed = check_objects(&Meta::parse(text.as_bytes()).unwrap(), &objects(&[("index", 9)]));
    assert_eq!((listed.faults, listed.files.len()), (vec![], 1));
}

#[test]
fn lists_that_cannot_be_right_are_told() {
    for (thanos, want) in [
        (r#""files":3"#, "meta.json: thanos.files must be an array, and is 3"),
        (
            r#""files":[{"rel_path":"chunks/000001"}]"#,
            "meta.json: thanos.files does not name the index",
        ),
        (
            r#""files":[{"rel_path":"chunks/000002"},{"rel_path":"index"}]"#,
            "meta.json: it names chunks/000002 as a file of the block, and not chunks/000001",
        ),
        (
            r#""segment_files":["000001","000004"]"#,
            "meta.json: it names chunks/000004 as a file of the block, and not chunks/000002",
        ),
    ] {
        assert_eq!(faults(thanos, &[]), [want]);
    }
}

#[test]
fn what_is_left_of_a_block_is_counted() {
    let there = objects(&[("chunks/000001", 5), ("deletion-mark.json", 1)]);
    let id = BlockId::parse(ID).unwrap();
    let listed = count_objects(id, &there);
    assert_eq!(
        (listed.objects, listed.bytes, listed.marked, listed.faults),
        (2, 6, true, vec![])
    );
}
