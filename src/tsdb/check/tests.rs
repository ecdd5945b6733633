use proptest::prelude::*;

use super::*;
use crate::tsdb::{Block, testing};

const ID: &str = "01K4ABCDEFGHJKMNPQRSTVWXYZ";

/// Opens and checks, as the shipper does.
fn check(block: &Block) -> Result<(), Broken> {
    match Pinned::open(block) {
        Ok(pinned) => quick(&pinned, Depth::Sample).map(drop),
        Err(crate::tsdb::PinError::Broken { reason, detail }) => Err(Broken { reason, detail }),
        Err(other) => panic!("{other}"),
    }
}

/// What is wrong with the real block after `change` was done to its directory.
fn after(change: impl Fn(&std::path::Path)) -> (Reason, String) {
    let (_data, block) = testing::real_block();
    check(&block).unwrap();
    change(&block.dir);
    let broken = check(&block).unwrap_err();
    (broken.reason, broken.detail)
}

fn edit(file: std::path::PathBuf, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs_err::read(&file).unwrap();
    change(&mut bytes);
    fs_err::write(&file, bytes).unwrap();
}

#[test]
fn made_blocks_are_whole() {
    let data = tempfile::tempdir().unwrap();
    for version in [1, 2] {
        for (series, chunks, segments) in [(1, 1, 1), (7, 5, 1), (100, 30, 3), (5, 1, 5), (1, 200_000, 2)] {
            let shape = testing::Shape {
                series,
                chunks,
                segments,
                version,
            };
            let block = testing::write_block(data.path(), ID, shape);
            assert_eq!(check(&block), Ok(()), "{shape:?}");
            fs_err::remove_dir_all(&block.dir).unwrap();
        }
    }
}

#[test]
fn says_what_is_wrong_with_an_index() {
    use Reason::Index;
    let cut = "index is cut off or damaged: wrong checksum of its table of contents";
    let index = |change: fn(&mut Vec<u8>)| after(|dir| edit(dir.join("index"), change));
    assert_eq!(
        index(Vec::clear),
        (Index, "index has 0 bytes, too few for any index".into())
    );
    assert_eq!(index(|bytes| bytes.truncate(500)), (Index, cut.into()));
    assert_eq!(
        index(|bytes| bytes[0] ^= 1),
        (Index, "index does not begin as one".into())
    );
    assert_eq!(
        index(|bytes| bytes[4] = 3),
        (Index, "index has the format 3, and only 1 and 2 can be read".into())
    );
    let flip_toc = |bytes: &mut Vec<u8>| {
        let at = bytes.len() - 30;
        bytes[at] ^= 0x40;
    };
    assert_eq!(index(flip_toc), (Index, cut.into()));
    let symbols = "index is damaged: wrong checksum of its symbols at byte 5";
    assert_eq!(index(|bytes| bytes[15] ^= 1), (Index, symbols.into()));
    let outside = |bytes: &mut Vec<u8>| {
        bytes.truncate(bytes.len() - 52);
        testing::toc(bytes, [5, 200, 0, 0, 1 << 40, 300]);
    };
    let (reason, detail) = index(outside);
    assert_eq!(reason, Index);
    assert!(
        detail.starts_with("index has a section at byte 1099511627776, outside of its "),
        "{detail}"
    );
    let gone = after(|dir| fs_err::remove_file(dir.join("index")).unwrap());
    assert_eq!(gone, (Index, "index is missing".into()));
}

#[test]
fn says_what_is_wrong_with_a_segment() {
    let first = |change: fn(&mut Vec<u8>)| after(|dir| edit(dir.join("chunks/000001"), change));
    let (reason, detail) = first(|bytes| bytes.truncate(bytes.len() - 1));
    assert_eq!(reason, Reason::ShortSegment);
    assert!(
        detail.starts_with("chunks/000001 has ") && detail.contains("ends within its chunk at byte"),
        "{detail}"
    );
    let empty = (
        Reason::ShortSegment,
        "chunks/000001 has 0 bytes, fewer than its header".into(),
    );
    assert_eq!(first(Vec::clear), empty);
    assert_eq!(first(|bytes| bytes.truncate(8)).0, Reason::ShortSegment);
    let magic = (
        Reason::Segment,
        "chunks/000001 does not begin as a chunk segment".into(),
    );
    assert_eq!(first(|bytes| bytes[3] ^= 1), magic);
    assert_eq!(first(|bytes| bytes[4] = 2).0, Reason::Segment);
    let zeros = |bytes: &mut Vec<u8>| {
        let half = bytes.len() / 2;
        bytes[half..].fill(0);
    };
    assert_eq!(first(zeros).0, Reason::Segment);
    let gone = after(|dir| fs_err::remove_file(dir.join("chunks/000001")).unwrap());
    assert_eq!(gone, (Reason::MissingSegment, "chunks/ holds no segment".into()));
    let renamed = after(|dir| fs_err::rename(dir.join("chunks/000001"), dir.join("chunks/000002")).unwrap());
    assert_eq!(
        renamed,
        (
            Reason::MissingSegment,
            "chunks/000001 is missing, and chunks/000002 is there".into()
        )
    );
    let gone = after(|dir| fs_err::remove_dir_all(dir.join("chunks")).unwrap());
    assert_eq!(gone, (Reason::MissingSegment, "chunks/ is missing".into()));
}

#[test]
fn a_segment_that_only_the_index_knows_of_is_missing() {
    let data = tempfile::tempdir().unwrap();
    let block = testing::write_block(
        data.path(),
        ID,
        testing::Shape {
            segments: 3,
            ..Default::default()
        },
    );
    fs_err::remove_file(block.dir.join("chunks/000003")).unwrap();
    let broken = check(&block).unwrap_err();
    assert_eq!(broken.reason, Reason::MissingSegment);
    assert_eq!(broken.detail, "chunks/000003 is missing: the index refers to it");
}

#[test]
fn a_segment_with_room_at_its_end_is_whole() {
    let (_data, block) = testing::real_block();
    edit(block.dir.join("chunks/000001"), |bytes| {
        bytes.resize(bytes.len() + 4096, 0)
    });
    assert_eq!(check(&block), Ok(()));
}

#[test]
fn any_cut_of_the_real_block_is_found() {
    let (_data, block) = testing::real_block();
    for (name, reasons) in [
        ("index", &[Reason::Index][..]),
        ("chunks/000001", &[Reason::ShortSegment]),
    ] {
        let path = block.dir.join(name);
        let whole = fs_err::read(&path).unwrap();
        for len in 0..whole.len() {
            fs_err::write(&path, &whole[..len]).unwrap();
            let broken = check(&block).unwrap_err();
            assert!(reasons.contains(&broken.reason), "{name} cut to {len}: {broken:?}");
        }
        fs_err::write(&path, &whole).unwrap();
    }
    check(&block).unwrap();
}

#[test]
fn any_flipped_bit_in_a_series_is_found() {
    let (_data, block) = testing::real_block();
    let path = block.dir.join("index");
    let whole = fs_err::read(&path).unwrap();
    let toc = &whole[whole.len() - 52..];
    let offset = |n: usize| u64::from_be_bytes(toc[8 * n..8 * n + 8].try_into().unwrap()) as usize;
    let (start, end) = (offset(1).next_multiple_of(16), offset(2));
    let mut found = 0;
    for at in start..end {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs_err::write(&path, &bytes).unwrap();
        found += usize::from(check(&block).is_err());
    }
    // What is not found is padding: fewer than 16 bytes for each of the three series.
    assert!(end - start - found < 3 * 16, "{found} of {}", end - start);
}

#[test]
fn memory_stays_bounded_whatever_lengths_are_claimed() {
    for len in [u64::MAX, u64::MAX - 14, 1 << 62, u64::from(u32::MAX), LONGEST_PLUS, 0] {
        let mut bytes = vec![0xba, 0xaa, 0xd7, 0x00, 2];
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.resize(16, 0);
        testing::uvarint(&mut bytes, len);
        bytes.resize(64, 7);
        testing::toc(&mut bytes, [5, 16, 0, 0, 0, 5]);
        let (_dir, file) = testing::pinned_file("index", &bytes);
        let broken = index::last_chunks(&file, 1).unwrap_err();
        assert!(broken.detail.contains("there is no series at byte 16"), "{broken}");
    }
}

const LONGEST_PLUS: u64 = (16 << 20) + 1;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_as_an_index_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (_dir, file) = testing::pinned_file("index", &bytes);
        prop_assert!(index::last_chunks(&file, 2).is_err());
    }

    /// The same behind a table of contents that is in order, so that the rest is looked at, too.
    #[test]
    fn any_bytes_behind_a_sound_table_of_contents_never_panic(
        bytes in proptest::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..200),
        series in 13..120_u64,
        others in proptest::array::uniform3(0..250_u64),
        version in 1..3_u8,
    ) {
        let mut index = vec![0xba, 0xaa, 0xd7, 0x00, version, 0, 0, 0, 0, 0, 0, 0, 0];
        index.extend(bytes);
        testing::toc(&mut index, [5, series, others[0], others[1], others[2], 5]);
        let (_dir, file) = testing::pinned_file("index", &index);
        let _ = index::last_chunks(&file, 2);
    }

    /// And with series whose checksum is right.
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
        testing::toc(&mut bytes, [5, 13, 0, 0, 0, 5]);
        let (_dir, file) = testing::pinned_file("index", &bytes);
        let _ = index::last_chunks(&file, 2);
    }

    #[test]
    fn any_reference_into_a_segment_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), offset in prop_oneof![0..310_u32, any::<u32>()]
    ) {
        let (_dir, file) = testing::pinned_file("chunks/000001", &bytes);
        let _ = chunk(&mut Window::new(&file), &file, offset);
    }

    #[test]
    fn any_cut_of_a_made_block_is_found(series in 1..20_u32, chunks in 1..9_u32, segments in 1..4_u32, cut in 1..5000_usize) {
        let data = tempfile::tempdir().unwrap();
        let segments = segments.min(series * chunks);
        let block = testing::write_block(data.path(), ID, testing::Shape { series, chunks, segments, version: 2 });
        for file in Pinned::open(&block).unwrap().files {
            let whole = fs_err::read(&file.path).unwrap();
            fs_err::write(&file.path, &whole[..whole.len() - 1 - cut % whole.len()]).unwrap();
            prop_assert!(check(&block).is_err(), "{}", file.rel_path);
            fs_err::write(&file.path, &whole).unwrap();
        }
        prop_assert_eq!(check(&block), Ok(()));
    }
}
