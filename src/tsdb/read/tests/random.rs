//! Random worlds of a few labels, random matchers, random ranges.

use proptest::{collection::vec, option, prelude::*};

use super::*;

const NAMES: [&str; 5] = ["__name__", "a", "job", "ärger", "z"];
const VALUES: [&str; 8] = ["x", "xa", "xab", "x|y", "y", "é", "éa", "X"];
/// Names of matchers beside those.
const OTHER_NAMES: [&str; 3] = ["", "missing", "x"];
const TEXTS: [&str; 26] = [
    "", "x", "xa", "x|y", "xa|é", "x|", "|", ".+", ".*", "x.*", "x.+", "xa.*", "xab?", "x[ab]+", "(?i:x)", "é", "é.*",
    "é?", "nope", "nope|x", "nope.*", "x.*|y", "[^x].*", "x\\|y", "(x|y)?", "...",
];
/// Chunks of a series in a block, at most.
const SLOTS: i64 = 6;

/// For each name, which value a series has.
type Values = [Option<usize>; 5];

fn labels(values: &Values) -> Labels {
    let pairs = NAMES.iter().zip(values);
    let mut labels: Labels = pairs
        .filter_map(|(name, value)| Some((name.as_bytes().to_vec(), VALUES[(*value)?].into())))
        .collect();
    labels.sort();
    labels
}

/// From when to when the chunk in a slot reaches (ms).
fn times(block: i64, slot: i64) -> (i64, i64) {
    let min = 1000 * block + 100 * slot;
    (min, min + slot * 13 % 3 * 30)
}

/// The series of a block; for each of `held`, in which slots it has chunks, if it is in it.
fn series(block: i64, pool: &[Values], held: &[Option<u8>]) -> Vec<MadeSeries> {
    let mut made = BTreeMap::new();
    for (number, (values, slots)) in pool.iter().zip(held).enumerate() {
        let Some(slots) = slots else { continue };
        let chunks = (0..SLOTS).filter(|slot| slots >> slot & 1 == 1).map(|slot| {
            let (min_ms, max_ms) = times(block, slot);
            let seed = number * 7 + block as usize + slot as usize;
            MadeChunk {
                min_ms,
                max_ms,
                encoding: 1 + slot as u8,
                data: vec![seed as u8; seed % 50],
                cut: seed.is_multiple_of(5),
            }
        });
        made.insert(labels(values), chunks.collect());
    }
    let series = |(labels, chunks)| MadeSeries { labels, chunks };
    made.into_iter().map(series).collect()
}

fn pool() -> impl Strategy<Value = Vec<Values>> {
    let one = [0; 5].map(|_: i32| option::weighted(0.6, 0..VALUES.len()));
    vec(one, 0..30)
}

fn blocks() -> impl Strategy<Value = Vec<Vec<Option<u8>>>> {
    vec(vec(option::weighted(0.7, 0_u8..1 << SLOTS), 30), 0..4)
}

fn matchers() -> impl Strategy<Value = Vec<Matcher>> {
    let names: Vec<&str> = NAMES.iter().chain(&NAMES).chain(&OTHER_NAMES).copied().collect();
    let op = prop::sample::select(vec![Op::Equal, Op::NotEqual, Op::Regex, Op::NotRegex]);
    let one = (op, prop::sample::select(names), prop::sample::select(&TEXTS[..]));
    vec(one.prop_map(|(op, name, text)| matcher(name, op, text)), 0..4)
}

/// A time beside chunks: the first of one, the last of one, or right behind the last.
fn border(is_start: bool) -> impl Strategy<Value = i64> {
    let at = move |(block, slot, choice): (i64, i64, u8)| {
        let (min, max) = times(block, slot);
        match (choice, is_start) {
            (0, true) => min,
            (0, false) => max,
            (1, true) => max + 1,
            (1, false) => min - 1,
            (_, true) => i64::MIN,
            (_, false) => i64::MAX,
        }
    };
    (0..3_i64, 0..SLOTS, 0_u8..3).prop_map(at)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn exactly_what_the_matchers_take_is_read(
        pool in pool(),
        held in blocks(),
        matchers in matchers(),
        (start, end) in (border(true), border(false)),
        shifts in (0..100_i64, 0..100_i64),
    ) {
        let worlds: Vec<Vec<MadeSeries>> = held.iter().zip(0..).map(|(held, at)| series(at, &pool, held)).collect();
        let models: Vec<&[MadeSeries]> = worlds.iter().map(Vec::as_slice).collect();
        let opened: Vec<Opened> = worlds.iter().map(|series| open_series(series)).collect();
        let anywhere = start.saturating_add(shifts.0)..=end.saturating_sub(shifts.1);
        for (range, with_chunks) in [(start..=end, true), (start..=end, false), (anywhere, false)] {
            let wanted: Vec<Wanted> = opened.iter().map(|opened| opened.wanted(range.clone())).collect();
            let found = read(&wanted, &matchers, with_chunks);
            prop_assert_eq!(found, Ok(expected(&models, &range, &matchers, with_chunks)));
        }
    }
}
