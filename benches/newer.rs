//! A block with XOR2 chunks, made here: no program at hand writes them. Prometheus chooses windows a little differently; what
//! comes out is read back with `chunk::xor2::decode`.

use std::path::Path;

use fs_err as fs;
use narthex::{chunk::xor2, model::uvarint::put_uvarint};
use rand::{RngExt as _, SeedableRng, rngs::StdRng};

/// Samples of a chunk, and chunks of a series: two hours, one each 15 s.
const SAMPLES: usize = 120;
const CHUNKS: i64 = 4;

/// What the block holds.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) samples: u64,
    /// Of the chunks' data.
    pub(crate) bytes: u64,
}

/// Bits, written one by one.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn put(&mut self, value: u64, count: u32) {
        for bit in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) as u8) << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }

    fn whole(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.put(u64::from(*byte), 8));
    }

    /// A value that differs in these bits, behind a prefix of which the last bit says whether it has a window of its own.
    fn difference(&mut self, window: &mut Option<(u32, u32)>, difference: u64, prefixes: [(u64, u32); 2]) {
        let (leading, trailing) = (difference.leading_zeros().min(31), difference.trailing_zeros());
        let known = window.filter(|(known, behind)| leading >= *known && trailing >= *behind);
        let (leading, trailing) = known.unwrap_or((leading, trailing));
        let width = 64 - leading - trailing;
        let (prefix, length) = prefixes[usize::from(known.is_none())];
        self.put(prefix, length);
        if known.is_none() {
            self.put(u64::from(leading << 6 | width & 63), 11);
            *window = Some((leading, trailing));
        }
        self.put(difference >> trailing, width);
    }
}

/// A chunk without start timestamps, of at least three samples.
fn encode(samples: &[(i64, f64)]) -> Vec<u8> {
    let mut out = Bits::default();
    out.whole(&[(samples.len() >> 8) as u8, samples.len() as u8, 0]);
    let (mut window, mut delta) = (None, 0);
    for (i, (time, value)) in samples.iter().enumerate() {
        let mut number = Vec::new();
        if i == 0 {
            put_uvarint(&mut number, (time << 1) as u64);
            out.whole(&number);
            out.put(value.to_bits(), 64);
            continue;
        }
        let (before, last) = samples[i - 1];
        let difference = value.to_bits() ^ last.to_bits();
        let more = (time - before) - delta;
        delta = time - before;
        if i == 1 {
            put_uvarint(&mut number, delta as u64);
            out.whole(&number);
        } else if more == 0 {
            match difference {
                0 => out.put(0, 1),
                _ => out.difference(&mut window, difference, [(0b100, 3), (0b101, 3)]),
            }
            continue;
        } else {
            out.put(0b110, 3);
            out.put(more as u64, 13);
        }
        match difference {
            0 => out.put(0, 1),
            _ => out.difference(&mut window, difference, [(0b10, 2), (0b110, 3)]),
        }
    }
    let read: Vec<(i64, f64)> = xor2::decode(&out.bytes)
        .map(|sample| sample.expect("it is whole"))
        .collect();
    assert_eq!(read, samples);
    out.bytes
}

/// The next value of a series of one of ten kinds.
fn next(random: &mut StdRng, kind: u64, value: f64) -> f64 {
    match kind {
        // Constants; counters that are busy, and counters that mostly stand still.
        0..3 => value,
        3..5 => value + f64::from(random.random_range(0..500)),
        5..7 if random.random_ratio(1, 4) => value + f64::from(random.random_range(1..4)),
        5..7 => value,
        // Gauges of two decimals, and of any.
        7..9 => (value * 100.0 + f64::from(random.random_range(-1000..1000))).round() / 100.0,
        _ => random.random_range(-1000.0..1000.0),
    }
}

/// Writes a block of `series` series into `dir`.
pub(crate) fn write(dir: &Path, series: u64) -> Made {
    let (mut made, mut random) = (Made::default(), StdRng::seed_from_u64(7));
    let mut segment = vec![0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];
    let mut all = Vec::new();
    for number in 0..series {
        let mut value = f64::from(random.random_range(0..1 << 20));
        let mut time = 1_700_000_000_000 + random.random_range(0..15_000);
        let mut chunks = Vec::new();
        for _ in 0..CHUNKS {
            let mut samples = Vec::new();
            for _ in 0..SAMPLES {
                value = next(&mut random, number % 10, value);
                let late = if random.random_ratio(1, 40) {
                    random.random_range(0..15)
                } else {
                    0
                };
                samples.push((time + late, value));
                time += 15_000;
            }
            let data = encode(&samples);
            chunks.push((samples[0].0, samples[SAMPLES - 1].0, segment.len() as u64));
            made.samples += SAMPLES as u64;
            made.bytes += data.len() as u64;
            put_uvarint(&mut segment, data.len() as u64);
            let content = [&[4], &data[..]].concat();
            segment.extend(&content);
            segment.extend(crc32c::crc32c(&content).to_be_bytes());
        }
        all.push(chunks);
    }
    fs::create_dir_all(dir.join("chunks")).expect("the directory can be made");
    fs::write(dir.join("chunks/000001"), segment).expect("the segment can be written");
    fs::write(dir.join("index"), index(&all)).expect("the index can be written");
    let ulid = "01M8REWRYTE000000000000009";
    let stats = format!(
        r#"{{"numSeries":{series},"numChunks":{},"numSamples":{}}}"#,
        series * CHUNKS as u64,
        made.samples
    );
    let meta = format!(
        r#"{{"ulid":"{ulid}","minTime":1700000000000,"maxTime":1700007300000,"stats":{stats},"compaction":{{"level":1,"sources":["{ulid}"]}},"version":1}}"#
    );
    fs::write(dir.join("meta.json"), meta).expect("meta.json can be written");
    made
}

fn section(out: &mut Vec<u8>, content: &[u8]) {
    out.extend((content.len() as u32).to_be_bytes());
    out.extend(content);
    out.extend(crc32c::crc32c(content).to_be_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    put_uvarint(out, text.len() as u64);
    out.extend(text.bytes());
}

/// The index of series `{n="…"}`, of which each chunk has its first and last time and its place in the only segment.
fn index(all: &[Vec<(i64, i64, u64)>]) -> Vec<u8> {
    let mut out = vec![0xba, 0xaa, 0xd7, 0, 2];
    let mut symbols = (1 + all.len() as u32).to_be_bytes().to_vec();
    let value = |number: usize| format!("{number:08}");
    (0..all.len()).for_each(|number| text(&mut symbols, &value(number)));
    text(&mut symbols, "n");
    section(&mut out, &symbols);
    let series = out.len();
    let mut places = Vec::new();
    for (number, chunks) in all.iter().enumerate() {
        out.resize(out.len().next_multiple_of(16), 0);
        places.push((out.len() / 16) as u32);
        let mut entry = vec![1];
        put_uvarint(&mut entry, all.len() as u64);
        put_uvarint(&mut entry, number as u64);
        put_uvarint(&mut entry, chunks.len() as u64);
        for (i, (first, last, place)) in chunks.iter().enumerate() {
            let (start, reference) = match i.checked_sub(1).map(|before| chunks[before]) {
                None => (first << 1, *place),
                Some((_, end, before)) => (first - end, (place - before) << 1),
            };
            put_uvarint(&mut entry, start as u64);
            put_uvarint(&mut entry, (last - first) as u64);
            put_uvarint(&mut entry, reference);
        }
        put_uvarint(&mut out, entry.len() as u64);
        out.extend(&entry);
        out.extend(crc32c::crc32c(&entry).to_be_bytes());
    }
    let end = out.len();
    out.resize(end.next_multiple_of(4), 0);
    let mut table = (1 + all.len() as u32).to_be_bytes().to_vec();
    let lists = std::iter::once((String::new(), String::new(), &places[..])).chain(
        places
            .iter()
            .enumerate()
            .map(|(number, place)| ("n".to_owned(), value(number), std::slice::from_ref(place))),
    );
    for (name, value, list) in lists {
        table.push(2);
        text(&mut table, &name);
        text(&mut table, &value);
        put_uvarint(&mut table, out.len() as u64);
        let mut content = (list.len() as u32).to_be_bytes().to_vec();
        content.extend(list.iter().flat_map(|place| place.to_be_bytes()));
        section(&mut out, &content);
    }
    let tables = out.len();
    section(&mut out, &table);
    let toc: Vec<u8> = [5, series, end, tables, end, tables]
        .iter()
        .flat_map(|offset| (*offset as u64).to_be_bytes())
        .collect();
    out.extend(&toc);
    out.extend(crc32c::crc32c(&toc).to_be_bytes());
    out
}
