//! Symbols that are read here and there, so that they are mapped.

use super::{super::map, *};

/// So many series, whose labels stand in no order among the symbols.
const SERIES: u64 = 5000;

fn scattered() -> Vec<MadeSeries> {
    let series = |at: u64| {
        // Multiplied by a number that has no factor in common with the count, each comes once.
        let value = |factor: u64| format!("value {:07}", at * factor % SERIES);
        let (a, b, c) = (format!("{at:06}"), value(2741), value(1009) + " of another label");
        MadeSeries::new(&[("a", &a), ("b", &b), ("c", &c)], vec![chunk(1, 2)])
    };
    (0..SERIES).map(series).collect()
}

/// How many maps of `path` the process has.
fn maps(path: &std::path::Path) -> usize {
    let maps = fs_err::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter(|line| line.ends_with(path.to_str().unwrap()))
        .count()
}

#[test]
fn symbols_that_stand_anywhere_are_mapped_and_right() {
    let _alone = map::tests::needed();
    let series = scattered();
    let opened = open_series(&series);
    assert_read(&opened, &series, &[]);

    let path = opened.dir.path().join("index");
    let selector = Selector::new(&[]).unwrap();
    let progress = Progress::default();
    let mut reader = SeriesReader::new(&[opened.wanted(ALWAYS)], &selector, false, &progress).unwrap();
    assert!(matches!(reader.next_series(), Ok(Next::Series(_))));
    assert_eq!(maps(&path), 0, "few are read by position");
    for _ in 0..1000 {
        assert!(matches!(reader.next_series(), Ok(Next::Series(_))));
    }
    assert_eq!(maps(&path), 1);
    // Cut while it is read: not a wrong label, and not the end of the process.
    let file = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(0).unwrap();
    let mut left = 0;
    let error = loop {
        match reader.next_series() {
            Ok(Next::Series(_)) => left += 1,
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(left < 10 && error.contains("it was cut"), "{left}: {error}");
    drop(reader);
    assert_eq!(maps(&path), 0);
}
