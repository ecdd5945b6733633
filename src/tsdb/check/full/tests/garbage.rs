//! Whatever the bytes are, nothing panics, and memory stays as small as it was promised to be.

use proptest::prelude::*;

use super::*;

const LONGEST_PLUS: u64 = (16 << 20) + 1;

#[test]
fn memory_stays_bounded_whatever_is_claimed() {
    for len in [u64::MAX, u64::MAX - 14, 1 << 62, u64::from(u32::MAX), LONGEST_PLUS, 0] {
        let mut bytes = vec![0xba, 0xaa, 0xd7, 0x00, 2];
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.resize(16, 0);
        testing::uvarint(&mut bytes, len);
        bytes.resize(64, 7);
        testing::toc(&mut bytes, [5, 16, 0, 0, 0, 64]);
        let toc = &bytes[64..];
        // Also if the file is as large as it claims.
        for claimed in [bytes.len() as u64, u64::MAX] {
            let broken = super::super::index(claimed, toc, RANGE, &bytes[..], &options(1)).unwrap();
            assert!(
                broken.unwrap_err().detail.contains("there is no series at byte 16"),
                "{len}"
            );
        }
        let mut bytes = vec![0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];
        testing::uvarint(&mut bytes, len);
        bytes.resize(100, 0);
        let result = segment("chunks/000001", u64::MAX, &bytes[..], &options(1));
        assert!(!matches!(result, Ok(Ok(_))), "{len}");
    }
}

#[test]
fn a_reference_to_a_segment_beyond_all_is_a_missing_one() {
    let shape = Shape {
        series: 1,
        chunks: 1,
        ..Shape::default()
    };
    let (_data, block) = made(shape);
    for (number, name) in [(1, "000002"), (0xfffe, "065535"), (0xffff_ffff, "4294967296")] {
        let index = testing::index(shape, &[number << 32 | 8]);
        fs_err::write(block.dir.join("index"), index).unwrap();
        let (reason, detail) = broken(&block);
        assert_eq!(reason, Reason::MissingSegment);
        // Of several that are missing, the first is named.
        let named = if number > 0xffff { name } else { "000002" };
        assert_eq!(detail, format!("chunks/{named} is missing: the index refers to it"));
    }
}

#[test]
fn series_must_be_in_order_and_no_chunk_may_end_before_it_begins() {
    let series = |labels: &[u8], chunks: &[u8]| [labels, chunks].concat();
    // One chunk at byte 8 of the first segment, from 0 to 1.
    let one: &[u8] = &[1, 0, 1, 8];
    let check = |list: &[Vec<u8>]| {
        let mut bytes = vec![0xba, 0xaa, 0xd7, 0x00, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        for content in list {
            testing::uvarint(&mut bytes, content.len() as u64);
            bytes.extend(content);
            bytes.extend(crc32c::crc32c(content).to_be_bytes());
        }
        let end = bytes.len() as u64;
        bytes.extend([0; 8]);
        testing::toc(&mut bytes, [5, 13, 0, 0, 0, end]);
        let toc = bytes[bytes.len() - TOC as usize..].to_vec();
        let found = super::super::index(bytes.len() as u64, &toc, RANGE, &bytes[..], &options(1)).unwrap();
        found.map(|(facts, _)| facts.series).map_err(|broken| broken.detail)
    };
    let labels: [&[u8]; 6] = [
        &[0],
        &[1, 1, 2],
        &[1, 1, 3],
        &[2, 1, 3, 4, 5],
        &[2, 1, 3, 5, 1],
        &[1, 2, 0],
    ];
    let ordered: Vec<_> = labels.iter().map(|labels| series(labels, one)).collect();
    assert_eq!(check(&ordered), Ok(6));
    for i in 1..labels.len() {
        for wrong in [&[labels[i], labels[i - 1]], &[labels[i], labels[i]]] {
            let list: Vec<_> = wrong.iter().map(|labels| series(labels, one)).collect();
            let detail = check(&list).unwrap_err();
            assert!(detail.contains("do not come after those before"), "{detail}");
        }
    }
    // The second chunk: 5 after the first ends; before the first ends (by wrapping), and before it begins. That is no damage.
    let two = |start: u64| {
        let mut bytes = vec![2, 20, 6, 8];
        testing::uvarint(&mut bytes, start);
        bytes.extend([1, 40]);
        check(&[series(&[0], &bytes)])
    };
    assert_eq!(two(5), Ok(1));
    assert_eq!(two(-6_i64 as u64), Ok(1));
    assert_eq!(two(-7_i64 as u64), Ok(1));
    let mut backward = vec![1, 0];
    testing::uvarint(&mut backward, u64::MAX);
    backward.push(8);
    let detail = check(&[series(&[0], &backward)]).unwrap_err();
    assert!(detail.contains("ends before it begins"), "{detail}");
    let spare = [one, &[0]].concat();
    let detail = check(&[series(&[0], &spare)]).unwrap_err();
    assert!(detail.contains("there is no series at byte 13"), "{detail}");
}

/// A change of a file: what, where, and by what.
fn mutate(bytes: &mut Vec<u8>, kind: u8, at: usize, value: u8) {
    let at = at % bytes.len();
    match kind {
        0 => bytes[at] = value,
        1 => bytes.truncate(at),
        2 => bytes.insert(at, value),
        _ => {
            bytes.remove(at);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let toc = &bytes[bytes.len().saturating_sub(TOC as usize)..];
        prop_assert!(super::super::index(bytes.len() as u64, toc, RANGE, &bytes[..], &options(1)).unwrap().is_err());
        prop_assert!(of_segment(0, &bytes).is_err());
    }

    #[test]
    fn any_bytes_behind_a_sound_table_of_contents_never_panic(
        bytes in proptest::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..200),
        series in 13..120_u64,
        others in proptest::array::uniform4(0..250_u64),
        version in 1..3_u8,
    ) {
        let mut index = vec![0xba, 0xaa, 0xd7, 0x00, version, 0, 0, 0, 0, 0, 0, 0, 0];
        index.extend(bytes);
        testing::toc(&mut index, [5, series, others[0], others[1], others[2], others[3]]);
        let toc = index[index.len() - TOC as usize..].to_vec();
        let _ = super::super::index(index.len() as u64, &toc, RANGE, &index[..], &options(1)).unwrap();
    }

    #[test]
    fn any_sound_series_never_panic(contents in proptest::collection::vec(
        proptest::collection::vec(prop_oneof![0..3_u8, any::<u8>()], 1..40), 1..6)
    ) {
        let mut bytes = vec![0xba, 0xaa, 0xd7, 0x00, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        for content in contents {
            testing::uvarint(&mut bytes, content.len() as u64);
            bytes.extend(&content);
            bytes.extend(crc32c::crc32c(&content).to_be_bytes());
        }
        let end = bytes.len() as u64;
        testing::toc(&mut bytes, [5, 13, 0, 0, 0, end]);
        let toc = bytes[bytes.len() - TOC as usize..].to_vec();
        let _ = super::super::index(bytes.len() as u64, &toc, RANGE, &bytes[..], &options(1)).unwrap();
    }

    #[test]
    fn any_chunks_never_panic(chunks in proptest::collection::vec(
        (prop_oneof![0..8_u8, any::<u8>()], proptest::collection::vec(any::<u8>(), 0..6)), 0..9)
    ) {
        let mut bytes = vec![0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];
        for (encoding, data) in &chunks {
            testing::one_chunk(&mut bytes, *encoding, data);
        }
        let known = |(encoding, data): &(u8, Vec<u8>)| match encoding {
            1..=6 => data.len() >= 2,
            _ => *encoding == AGGREGATES,
        };
        prop_assert_eq!(of_segment(0, &bytes).is_ok(), chunks.iter().all(known));
    }

    #[test]
    fn any_change_of_a_block_on_disk_is_found(
        (series, chunks, segments) in (1..20_u32, 1..9_u32, 1..4_u32),
        version in 1..3_u8,
        (file, kind, at, value) in (any::<usize>(), 0..4_u8, any::<usize>(), any::<u8>()),
    ) {
        let segments = segments.min(series * chunks);
        let (_data, block) = made(Shape { series, chunks, segments, version });
        prop_assert!(check(&block).is_ok());
        let files = Pinned::open(&block).unwrap().files;
        let file = &files[file % files.len()];
        let before = fs_err::read(&file.path).unwrap();
        let mut after = before.clone();
        mutate(&mut after, kind, at, value);
        fs_err::write(&file.path, &after).unwrap();
        prop_assert_eq!(check(&block).is_ok(), before == after, "{} at {}", file.rel_path, at % before.len());
    }
}
