//! Blocks with much of something, or with next to nothing.

use Op::{Equal, NotEqual, Regex};

use super::{
    super::{index::IndexReader, tables::Tables},
    *,
};
use crate::tsdb::window::WIDTH;

/// A real block of three series: see `testdata/blocks/make.sh`.
#[test]
fn the_real_block_has_its_series() {
    let (_dir, block) = testing::real_block();
    let opened = open_files(Pinned::open(&block).unwrap()).unwrap();
    let read = |matchers: &[Matcher], range: RangeInclusive<i64>| {
        let block = opened.clone();
        let wanted = Wanted { block, range };
        let texts = |series: &ReadSeries| -> Vec<String> {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let labels = series.labels.iter();
            labels
                .map(|(name, value)| format!("{}={}", text(name), text(value)))
                .collect()
        };
        let found = super::read(&[wanted], matchers, true).unwrap();
        for series in &found {
            let samples = series.chunks.iter().flat_map(|chunk| {
                let samples: Vec<_> = crate::chunk::xor::decode(&chunk.data).map(Result::unwrap).collect();
                assert_eq!(samples.first().unwrap().0, chunk.min_ms);
                assert_eq!(samples.last().unwrap().0, chunk.max_ms);
                samples
            });
            let times: Vec<i64> = samples.map(|(time, _)| time).collect();
            let due: Vec<i64> = (0..480).map(|at| (1_767_225_600 + at * 15) * 1000).collect();
            assert_eq!(times, due);
        }
        found.iter().map(texts).collect::<Vec<_>>()
    };
    let [f0, f1] =
        ["f0", "f1"].map(|forest| vec!["__name__=owl_sightings_total".to_owned(), format!("forest={forest}")]);
    let weight = vec!["__name__=owl_weight_grams".to_owned()];
    assert_eq!(read(&[], ALWAYS), [f0.clone(), f1.clone(), weight.clone()]);
    let (start, end) = (1_767_225_600_000, 1_767_225_600_000 + 479 * 15_000);
    assert_eq!(read(&[], start..=end).len(), 3);
    assert!(read(&[], i64::MIN..=start - 1).is_empty());
    assert!(read(&[], end + 1..=i64::MAX).is_empty());
    let cases = [
        (matcher("forest", Equal, "f1"), vec![f1.clone()]),
        (matcher("forest", NotEqual, "f1"), vec![f0.clone(), weight.clone()]),
        (matcher("forest", Regex, "f.+"), vec![f0, f1]),
        (matcher("forest", Equal, ""), vec![weight.clone()]),
        (matcher("__name__", Regex, "owl_w.*"), vec![weight]),
    ];
    for (matcher, want) in cases {
        assert_eq!(read(&[matcher], ALWAYS), want);
    }
}

#[test]
fn no_series_and_one_series_are_blocks_too() {
    let one = [MadeSeries::new(&[("a", "b")], vec![chunk(3, 9)])];
    for series in [&one[..0], &one] {
        let opened = open_series(series);
        assert_read(&opened, series, &[]);
        for op in [Equal, NotEqual, Regex, Op::NotRegex] {
            for value in ["", "b", "b.*", "c"] {
                assert_read(&opened, series, &[matcher("a", op, value)]);
            }
        }
    }
    // A series without any label, which nobody writes.
    let bare = [MadeSeries::new(&[], vec![chunk(3, 9)])];
    assert_read(&open_series(&bare), &bare, &[]);
    assert_eq!(read(&[], &[], true), Ok(Vec::new()));
}

#[test]
fn a_range_holds_its_first_and_its_last_millisecond() {
    let series = [MadeSeries::new(&[("a", "b")], vec![chunk(10, 20), chunk(30, 30)])];
    let opened = open_series(&series);
    let times = |range: RangeInclusive<i64>| {
        let found = read(&[opened.wanted(range)], &[], true).unwrap();
        let chunks = found.into_iter().flat_map(|series| series.chunks);
        chunks.map(|chunk| (chunk.min_ms, chunk.max_ms)).collect::<Vec<_>>()
    };
    assert_eq!(times(10..=20), [(10, 20)]);
    assert_eq!(times(i64::MIN..=20), [(10, 20)]);
    assert_eq!(times(30..=30), [(30, 30)]);
    assert_eq!(times(10..=30), [(10, 20), (30, 30)]);
    for nothing in [i64::MIN..=9, 21..=29, 31..=i64::MAX] {
        assert_eq!(times(nothing), []);
    }
    let none = |range: RangeInclusive<i64>| read(&[opened.wanted(range)], &[], false).unwrap().is_empty();
    assert!(!none(20..=20) && !none(15..=15) && none(21..=29));
    // Ends before it begins, inside of a chunk.
    let empty = RangeInclusive::new(16, 15);
    assert!(none(empty.clone()) && times(empty).is_empty());
}

#[test]
fn each_of_thousands_of_values_is_found_between_its_neighbours() {
    let value = |at: i64| format!("v{at:04}");
    let series: Vec<MadeSeries> = (0..3000)
        .map(|at| MadeSeries::new(&[("a", "x"), ("id", &value(at)), ("z", "x")], vec![chunk(at, at)]))
        .collect();
    let opened = open_series(&series);
    let tables = &opened.block.tables;
    let (id, entries) = tables.name(b"id").unwrap();
    assert_eq!(id.values, 3000);
    assert!(entries.samples() < 3000 / 30, "most entries are not kept");
    let mut index = IndexReader::new(&opened.block.index, tables, WIDTH, &Progress::default());
    let mut last = 0;
    for at in 0..3000 {
        let text = value(at);
        let place = index.postings_table.find(b"id", text.as_bytes()).unwrap().unwrap();
        assert!(place > last);
        last = place;
        for near in [format!("{text}!"), text[..4].to_owned()] {
            assert_eq!(
                index.postings_table.find(b"id", near.as_bytes()).unwrap(),
                None,
                "{near}"
            );
        }
        // The text of every symbol is where it is looked for.
        let number = index.symbols.find(text.as_bytes()).unwrap().unwrap();
        assert_eq!(index.symbols.get(number).unwrap(), text.as_bytes());
    }
    for text in ["v0000", "v0031", "v0032", "v2999", "v3000", ""] {
        assert_read(&opened, &series, &[matcher("id", Equal, text)]);
    }
    assert_read(&opened, &series, &[matcher("id", Regex, "v1[12].*")]);
}

#[test]
fn values_longer_than_any_window_are_read() {
    let long = |text: &str, len: usize| text.repeat(len);
    let values = [
        long("x", 70_000),
        long("y", WIDTH + 5),
        long("xy", WIDTH),
        long("x", 70_001),
    ];
    let mut series: Vec<MadeSeries> = Vec::new();
    for (at, value) in values.iter().enumerate() {
        let labels = [("a", "short"), ("long", value), ("z", "short")];
        series.push(MadeSeries::new(&labels, vec![chunk(at as i64, 10)]));
    }
    let mut large = chunk(0, 5);
    large.data = vec![7; 2 * WIDTH];
    series.push(MadeSeries::new(&[(&long("n", 70_000), "x")], vec![large, chunk(7, 8)]));
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    let opened = open_series(&series);
    assert_read(&opened, &series, &[]);
    for value in &values {
        assert_read(&opened, &series, &[matcher("long", Equal, value)]);
        assert_read(
            &opened,
            &series,
            &[matcher("long", NotEqual, value), matcher("a", Equal, "short")],
        );
    }
    for pattern in ["x.*", "xy.*", ".*y", "y+", ".{0,3}"] {
        assert_read(&opened, &series, &[matcher("long", Regex, pattern)]);
    }
    assert_read(&opened, &series, &[matcher(&long("n", 70_000), Equal, "x")]);
    // Many blocks have narrow windows.
    let wanted = vec![opened.wanted(ALWAYS); 40];
    let models = vec![&series[..]; 40];
    assert!(read(&wanted, &[], true).unwrap() == expected(&models, &ALWAYS, &[], true));
}

#[test]
fn chunks_are_read_from_the_segments_that_they_are_in() {
    // Each series has its chunks in three segments, and the segments have those of all series.
    let series: Vec<MadeSeries> = ["a", "b", "c"]
        .map(|value| {
            let mut chunks: Vec<MadeChunk> = (0..6).map(|at| chunk(10 * at, 10 * at + 9)).collect();
            (chunks[2].cut, chunks[4].cut) = (true, true);
            MadeSeries::new(&[("l", value)], chunks)
        })
        .into();
    let made = MadeBlock::of(&series);
    assert_eq!(made.segments.len(), 7);
    let opened = open(&made).unwrap();
    assert_read(&opened, &series, &[]);
    assert_read(&opened, &series, &[matcher("l", Equal, "b")]);
    let range = 10..=39;
    let found = read(&[opened.wanted(range.clone())], &[], true);
    assert_eq!(found, Ok(expected(&[&series], &range, &[], true)));
    // A descriptor is enough.
    let Opened { dir, block } = opened;
    dir.close().unwrap();
    let range = ALWAYS;
    let found = read(&[Wanted { block, range }], &[], true);
    assert_eq!(found, Ok(expected(&[&series], &ALWAYS, &[], true)));
}

#[test]
fn the_tables_of_an_index_stay_small() {
    let with_names = |count: usize| {
        let labels: Vec<String> = (0..count).map(|at| format!("name{at:06}")).collect();
        let labels: Vec<(&str, &str)> = labels.iter().map(|name| (&name[..], "x")).collect();
        let made = MadeBlock::of(&[MadeSeries::new(&labels, vec![chunk(0, 1)])]);
        let (_dir, file) = testing::pinned_file("index", &made.index);
        Tables::read(&file).map(|tables| tables.bytes())
    };
    assert!(with_names(10_000).unwrap() <= Tables::LARGEST);
    let broken = with_names(30_000).unwrap_err();
    assert_eq!(broken.detail, "index has too many label names to be queried from disk");
}
