use std::{
    os::unix::fs::FileExt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::*;
use crate::tsdb::testing;

const LEN: usize = 1 << 20;

static NEEDED: Mutex<()> = Mutex::new(());

/// To be held by tests that need maps: one of them takes all.
pub(in crate::tsdb::read) fn needed() -> MutexGuard<'static, ()> {
    NEEDED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes() -> Vec<u8> {
    (0..LEN).map(|at| (at / 7 % 251) as u8).collect()
}

/// A map of the middle of a file, which begins at no border of a page.
fn map(file: &PinnedFile) -> Map {
    Map::new(file, 5000..LEN as u64 - 100).expect("there is a map to be had")
}

#[test]
fn the_bytes_of_a_file_are_read_and_those_of_one_that_was_cut_are_an_error() {
    let _alone = needed();
    let bytes = bytes();
    let (_dir, file) = testing::pinned_file("index", &bytes);
    let (_other_dir, other) = testing::pinned_file("index", &bytes);
    let (cut, whole) = (map(&file), map(&other));
    let mut buffer = vec![0; 10_000];
    for offset in [5000, 5001, 8192, 70_000, LEN - 10_100] {
        assert_eq!(cut.read_at(&mut buffer, offset as u64).unwrap(), 10_000);
        assert_eq!(buffer, bytes[offset..offset + 10_000], "at {offset}");
    }
    assert_eq!(cut.read_at(&mut buffer, LEN as u64 - 150).unwrap(), 50);
    assert_eq!(cut.read_at(&mut buffer, LEN as u64 - 100).unwrap(), 0);
    assert_eq!(cut.read_at(&mut buffer, 0).unwrap(), 0);

    let writable = std::fs::OpenOptions::new().write(true).open(&file.path).unwrap();
    writable.set_len(20_000).unwrap();
    // Pages are either there or not: the rest of the last one is empty.
    assert_eq!(cut.read_at(&mut buffer, 9000).unwrap(), 10_000);
    for offset in [15_000, 500_000, 5000] {
        let error = cut.read_at(&mut buffer, offset).unwrap_err();
        assert!(error.to_string().contains("it was cut"), "{error}");
    }
    assert_eq!(whole.read_at(&mut buffer, 500_000).unwrap(), 10_000);
    assert_eq!(buffer, bytes[500_000..510_000]);
    drop(cut);

    // Cut to nothing, and by several threads at once.
    writable.set_len(LEN as u64).unwrap();
    writable.write_all_at(&bytes, 0).unwrap();
    let maps: Vec<Map> = (0..4).map(|_| map(&file)).collect();
    for map in &maps {
        assert_eq!(map.read_at(&mut buffer, 300_000).unwrap(), 10_000);
        assert_eq!(buffer, bytes[300_000..310_000]);
    }
    writable.set_len(0).unwrap();
    std::thread::scope(|scope| {
        for map in &maps {
            scope.spawn(|| map.read_at(&mut vec![0; 10_000], 300_000).unwrap_err());
        }
    });
    assert_eq!(whole.read_at(&mut buffer, 500_000).unwrap(), 10_000);
}

#[test]
fn there_are_only_so_many_maps_and_those_that_are_dropped_make_room() {
    let _alone = needed();
    let (_dir, file) = testing::pinned_file("index", &bytes());
    let mut maps: Vec<Map> = std::iter::from_fn(|| Map::new(&file, 0..100))
        .take(slot::MAPS + 1)
        .collect();
    assert!((1..=slot::MAPS).contains(&maps.len()), "{}", maps.len());
    drop(maps.pop());
    let mut buffer = [0; 10];
    assert_eq!(maps.first().map(|map| map.read_at(&mut buffer, 0).unwrap()), Some(10));
}
