//! Damaged blocks: refused, and never a panic.

use std::{cell::RefCell, ops::Range};

use proptest::prelude::*;

use super::*;
use crate::tsdb::{
    Reason,
    testing::summed::{repair, summed},
};

/// A block whose files can be changed.
struct Changed {
    dir: tempfile::TempDir,
    pinned: Pinned,
    files: BTreeMap<OutFile, Vec<u8>>,
}

impl Changed {
    fn of(source: &Block) -> Self {
        let files = files_of(source);
        let (dir, block) = put_down(source, &files);
        let pinned = Pinned::open(&block).unwrap();
        Self { dir, pinned, files }
    }

    /// The result with these bytes for a file.
    fn with(&self, file: OutFile, bytes: &[u8]) -> Result<Rewritten, Error> {
        let path = self.dir.path().join(file.rel_path());
        // The file that is open is written anew.
        fs_err::write(&path, bytes).unwrap();
        let mut files = self.pinned.files.clone();
        let changed = files.iter_mut().find(|open| open.rel_path == file.rel_path());
        changed.unwrap().len = bytes.len() as u64;
        let id = self.pinned.id;
        let result = block(&Pinned { id, files }, &options(SEGMENT_LIMIT), &mut Kept::default());
        fs_err::write(&path, &self.files[&file]).unwrap();
        result
    }
}

/// Blocks with a small index: with and without label indices.
fn small() -> [Changed; 2] {
    let (_dir, real) = testing::real_block();
    [Changed::of(&real), Changed::of(&case("segments").source)]
}

#[test]
fn every_flipped_byte_of_an_index_is_found() {
    for changed in small() {
        let index = &changed.files[&OutFile::Index];
        for at in 0..index.len() {
            let mut bytes = index.clone();
            bytes[at] ^= 1 << (at % 8);
            match changed.with(OutFile::Index, &bytes) {
                Err(Error::Broken(_) | Error::Refused(_)) => {}
                other => panic!("byte {at}: {other:?}"),
            }
        }
        for length in 0..index.len() {
            match changed.with(OutFile::Index, &index[..length]) {
                Err(Error::Broken(broken)) => assert_eq!(broken.reason, Reason::Index),
                other => panic!("{length} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn flipped_bytes_with_right_checksums_never_panic() {
    for changed in small() {
        let index = &changed.files[&OutFile::Index];
        let parts = summed(index);
        assert!(parts.len() > 10);
        let (mut good, mut bad) = (0, 0);
        for part in &parts {
            for at in part.clone() {
                for value in [index[at] ^ 1, index[at] ^ 0x80, 0xff] {
                    let mut bytes = index.clone();
                    bytes[at] = value;
                    repair(&mut bytes, part);
                    match changed.with(OutFile::Index, &bytes) {
                        Ok(_) => good += 1,
                        Err(Error::Broken(_) | Error::Refused(_)) => bad += 1,
                        Err(other) => panic!("byte {at} is {value}: {other}"),
                    }
                }
            }
        }
        // Other letters in a symbol are no damage; another place of a list is.
        assert!(good > 100 && bad > 500, "{good} {bad}");
    }
}

#[test]
fn segments_that_are_cut_or_flipped_are_found() {
    let changed = Changed::of(&case("segments").source);
    let first = OutFile::Segment(1);
    let segment = &changed.files[&first];
    for length in 0..segment.len() {
        match changed.with(first, &segment[..length]) {
            Err(Error::Broken(broken)) => assert_eq!(broken.reason, Reason::ShortSegment, "{length}: {broken}"),
            other => panic!("{length}: {other:?}"),
        }
    }
    for at in (0..segment.len()).filter(|at| !(5..8).contains(at)) {
        let mut bytes = segment.clone();
        bytes[at] ^= 0x10;
        let result = changed.with(first, &bytes);
        assert!(matches!(result, Err(Error::Broken(_))), "{at}: {result:?}");
    }
}

#[test]
fn odd_postings_and_tables_are_errors_that_name_the_byte() {
    let [changed, _] = small();
    let index = &changed.files[&OutFile::Index];
    let with = |part: &Range<usize>, change: &dyn Fn(&mut [u8])| {
        let mut bytes = index.clone();
        change(&mut bytes[part.clone()]);
        repair(&mut bytes, part);
        match changed.with(OutFile::Index, &bytes) {
            Err(Error::Broken(broken)) => {
                assert_eq!(broken.reason, Reason::Index);
                broken.detail
            }
            other => panic!("{other:?}"),
        }
    };
    let (words, _) = index[index.len() - 52..].as_chunks::<8>();
    let offset = |i: usize| u64::from_be_bytes(words[i]) as usize;
    let parts = summed(index);
    let part = |start: usize| parts.iter().find(|part| part.start == start + 4).unwrap();
    let postings = offset(4).next_multiple_of(4);
    // The list of all series: count, and then their places.
    let text = with(part(postings), &|list| list[4..8].copy_from_slice(&6_u32.to_be_bytes()));
    let due =
        format!("index is damaged: its postings at byte {postings} name a series at byte 96, where there is none");
    assert_eq!(text, due);
    let due = format!("index is damaged: its postings at byte {postings} do not list series");
    let swapped = |list: &mut [u8]| {
        let (first, second) = list[4..12].split_at_mut(4);
        first.swap_with_slice(second);
    };
    assert_eq!(with(part(postings), &swapped), due);
    assert_eq!(with(part(postings), &|list| list[3] += 1), due);
    assert_eq!(with(part(postings), &|list| list[3] -= 1), due);
    for (start, name) in [(offset(3), "label table"), (offset(5), "postings table")] {
        let text = with(part(start), &|table| table[3] += 1);
        assert!(text.contains(&format!("its {name} have no entry at byte")), "{text}");
        let text = with(part(start), &|table| table[3] -= 1);
        assert!(text.contains(&format!("its {name} have no entry at byte")), "{text}");
        // The place of the last list.
        let text = with(part(start), &|table| *table.last_mut().unwrap() = 0x7f);
        assert!(text.contains(&format!("its {name} have the place")), "{text}");
    }
    // Sections in another order than they stand.
    for (i, j) in [(0, 1), (1, 4), (2, 4), (3, 5), (4, 5)] {
        let toc = index.len() - 52..index.len() - 4;
        let text = with(&toc, &|toc| {
            for byte in 0..8 {
                toc.swap(8 * i + byte, 8 * j + byte);
            }
        });
        assert!(text.starts_with("index is damaged: "), "{text}");
    }
}

thread_local! {
    static CHANGED: RefCell<Option<Changed>> = const { RefCell::new(None) };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Several changes at once, in the index and in a segment, with right checksums over the index' parts.
    #[test]
    fn any_garbage_is_rewritten_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        CHANGED.with_borrow_mut(|changed| {
            let changed = changed.get_or_insert_with(|| {
                let (_dir, real) = testing::real_block();
                Changed::of(&real)
            });
            let mut index = changed.files[&OutFile::Index].clone();
            let parts = summed(&index);
            for (at, value, right) in &changes {
                let at = at.index(index.len());
                index[at] = *value;
                if let Some(part) = parts.iter().find(|part| *right && part.contains(&at)) {
                    repair(&mut index, part);
                }
            }
            if let Some(cut) = cut {
                index.truncate(cut.index(index.len()));
            }
            let result = changed.with(OutFile::Index, &index);
            prop_assert!(matches!(result, Ok(_) | Err(Error::Broken(_) | Error::Refused(_))));
            Ok(())
        })?;
    }
}
