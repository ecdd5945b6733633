//! Every byte of a small block damaged, and every way to cut it off: an error, or exactly the right series.

use std::{fs::File, os::unix::fs::FileExt};

use super::*;
use crate::tsdb::testing::summed::{repair, summed};

/// The selectors that all of it is read with: lists alone, joined, intersected, and looks at each series.
fn selections() -> Vec<Vec<Matcher>> {
    vec![
        vec![],
        vec![matcher("job", Op::Equal, "owl")],
        vec![matcher("job", Op::Regex, "owl|fox"), matcher("n", Op::Regex, "[12]")],
        vec![matcher("n", Op::NotEqual, "1")],
        vec![matcher("n", Op::Equal, "3"), matcher("job", Op::Regex, "f.*")],
        vec![matcher("n", Op::NotRegex, "1.*|4")],
    ]
}

/// Six series in two segments.
fn series() -> Vec<MadeSeries> {
    let labels = [("owl", "1"), ("owl", "2"), ("fox", "3"), ("fox", "1"), ("hen", "4")];
    let mut series: Vec<MadeSeries> = labels
        .iter()
        .map(|(job, n)| MadeSeries::new(&[("job", job), ("n", n)], vec![chunk(0, 9), chunk(10, 19)]))
        .collect();
    series.push(MadeSeries::new(&[("job", "owl")], vec![chunk(5, 15)]));
    series[3].chunks[1].cut = true;
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series
}

/// A block that is damaged on disk, and what it held before.
struct Damaged {
    opened: Opened,
    files: Pinned,
    made: MadeBlock,
    want: Vec<Vec<ReadSeries>>,
}

impl Damaged {
    fn new() -> Self {
        let series = series();
        let made = MadeBlock::of(&series);
        assert_eq!(made.segments.len(), 2);
        let opened = open(&made).unwrap();
        let files = made.pinned(opened.dir.path());
        let want = selections()
            .iter()
            .map(|matchers| expected(&[&series], &ALWAYS, matchers, true))
            .collect();
        Self {
            opened,
            files,
            made,
            want,
        }
    }

    fn bytes(&self, name: &str) -> &[u8] {
        match name {
            "index" => &self.made.index,
            "chunks/000001" => &self.made.segments[0],
            _ => &self.made.segments[1],
        }
    }

    fn writable(&self, name: &str) -> File {
        let path = self.opened.dir.path().join(name);
        fs_err::OpenOptions::new().write(true).open(path).unwrap().into_file()
    }

    /// The files, of which one has another length.
    fn files_with(&self, name: &str, len: usize) -> Pinned {
        let mut files = self.files.clone();
        let file = files.files.iter_mut().find(|file| file.rel_path == name).unwrap();
        file.len = len as u64;
        files
    }

    /// Reads everything; returns how many of the selections end with an error.
    fn assert_refused_or_right(&self, files: Pinned, tables: Option<&Arc<Tables>>, what: &str) -> usize {
        let opened = match tables {
            Some(tables) => OpenBlock::new(files, Arc::clone(tables)),
            None => open_files(files),
        };
        let Ok(block) = opened else { return self.want.len() };
        let mut refused = 0;
        for (matchers, want) in selections().iter().zip(&self.want) {
            let range = ALWAYS;
            let block = block.clone();
            match read(&[Wanted { block, range }], matchers, true) {
                Ok(found) => assert_eq!(&found, want, "{what}: {matchers:?}"),
                Err(_) => refused += 1,
            }
        }
        refused
    }
}

#[test]
fn a_flipped_bit_is_refused_or_harmless() {
    let damaged = Damaged::new();
    for name in ["index", "chunks/000001", "chunks/000002"] {
        let (file, bytes) = (damaged.writable(name), damaged.bytes(name));
        let mut refused = 0;
        for (at, byte) in bytes.iter().enumerate() {
            for mask in [0x01, 0x02, 0x80, 0xff] {
                file.write_all_at(&[byte ^ mask], at as u64).unwrap();
                let files = damaged.files.clone();
                let what = format!("{name} byte {at} ^ {mask:#x}");
                refused += damaged.assert_refused_or_right(files, None, &what);
            }
            file.write_all_at(&[*byte], at as u64).unwrap();
        }
        assert!(refused > bytes.len(), "{name}: {refused}");
    }
    let files = damaged.files.clone();
    assert_eq!(damaged.assert_refused_or_right(files, None, "whole"), 0);
}

#[test]
fn a_file_that_is_cut_off_is_refused() {
    let damaged = Damaged::new();
    let tables = Arc::clone(&damaged.opened.block.tables);
    for name in ["index", "chunks/000002", "chunks/000001"] {
        let (file, bytes) = (damaged.writable(name), damaged.bytes(name));
        for len in (0..bytes.len()).rev() {
            file.set_len(len as u64).unwrap();
            let what = format!("{name} cut to {len}");
            // Before it was opened, after that, and after its tables were read.
            let cut = damaged.files_with(name, len);
            let refused = damaged.assert_refused_or_right(cut, None, &what);
            assert!(name != "index" || refused == damaged.want.len(), "{what}");
            damaged.assert_refused_or_right(damaged.files.clone(), None, &what);
            damaged.assert_refused_or_right(damaged.files.clone(), Some(&tables), &what);
        }
        file.write_all_at(bytes, 0).unwrap();
    }
    assert_eq!(damaged.assert_refused_or_right(damaged.files.clone(), None, "whole"), 0);
}

/// What is read after the tables were is not held against the checksums of the tables again: it may be wrong, and no more.
#[test]
fn an_index_that_changes_behind_its_tables_is_no_panic() {
    let damaged = Damaged::new();
    let tables = Arc::clone(&damaged.opened.block.tables);
    let file = damaged.writable("index");
    let size = damaged.made.index.len();
    for at in 0..size {
        for len in [1, 10] {
            let ones = vec![0xff; len.min(size - at)];
            file.write_all_at(&ones, at as u64).unwrap();
            let block = OpenBlock::new(damaged.files.clone(), Arc::clone(&tables)).unwrap();
            for matchers in selections() {
                let (block, range) = (block.clone(), ALWAYS);
                let _ = read(&[Wanted { block, range }], &matchers, true);
            }
            file.write_all_at(&damaged.made.index, 0).unwrap();
        }
    }
}

/// Nonsense with right checksums: any answer will do, but none that never ends.
#[test]
fn no_byte_with_a_right_checksum_is_a_panic() {
    let damaged = Damaged::new();
    let file = damaged.writable("index");
    let mut index = damaged.made.index.clone();
    for part in summed(&damaged.made.index) {
        for at in part.clone() {
            let before = index[at];
            for byte in [0, 1, 0x7f, 0x80, 0xff, before.wrapping_add(1), before ^ 0x40] {
                index[at] = byte;
                repair(&mut index, &part);
                file.write_all_at(&index, 0).unwrap();
                let Ok(block) = open_files(damaged.files.clone()) else {
                    continue;
                };
                for matchers in selections() {
                    let (block, range) = (block.clone(), ALWAYS);
                    let _ = read(&[Wanted { block, range }], &matchers, true);
                }
            }
            index[at] = before;
        }
        repair(&mut index, &part);
    }
    assert_eq!(index, damaged.made.index);
}
