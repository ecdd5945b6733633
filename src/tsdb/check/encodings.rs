//! Of which encodings the chunks of a block are, looked at while the block is checked.
//!
//! Most blocks have nothing but the encodings that every reader knows, and must not be read twice to learn that. So a look
//! goes to the first and the last chunk of up to [`SERIES`] series, spread evenly over the index: a setting that Prometheus
//! is given takes effect from some moment on, in all series alike, so that it shows at one of these two ends. What only a
//! few series have, such as histograms, may be missed by that; where anything speaks for newer chunks, the frames of all
//! chunks are read ([`all`]). A chunk that is looked at has its checksum checked as well.
//!
//! Memory: 32 bytes for each series that is looked at, and 256 KiB.

use std::collections::BTreeMap;

use super::{
    super::PinnedFile,
    AGGREGATES, Broken, Reason, SEGMENT_HEADER, SEGMENT_MAGIC, chunk,
    window::{CHECKSUM, LONGEST_UVARINT, Window, uvarint},
};
use crate::chunk::Encoding;

/// The most series that are looked at.
const SERIES: usize = 256;

/// How closely a block is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Some chunks of some series; all chunks, if these show any newer encoding.
    Sample,
    /// All chunks.
    All,
}

/// How many chunks were seen of each encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encodings {
    /// By the encoding's byte.
    pub chunks: BTreeMap<u8, u64>,
    /// Whether all chunks were looked at.
    pub complete: bool,
}

impl Encodings {
    /// The chunks in an encoding that readers of today refuse and that can be rewritten: XOR2 and those with start
    /// timestamps.
    pub fn newer(&self) -> u64 {
        self.count(|byte| Encoding::from_prometheus(byte.into()).is_some_and(|known| known.storeapi().is_none()))
    }

    /// The names of the encodings that readers of today refuse, and of those that are not known here; empty without any.
    pub fn refused(&self) -> String {
        let name = |byte: &u8| match Encoding::from_prometheus((*byte).into()) {
            Some(known) => known.storeapi().is_none().then(|| known.name().to_owned()),
            None => (*byte != AGGREGATES).then(|| format!("encoding {byte}")),
        };
        self.chunks.keys().filter_map(name).collect::<Vec<_>>().join(" and ")
    }

    /// The chunks in an encoding that is not known here.
    pub fn unknown(&self) -> u64 {
        self.count(|byte| byte != AGGREGATES && Encoding::from_prometheus(byte.into()).is_none())
    }

    fn count(&self, which: impl Fn(u8) -> bool) -> u64 {
        self.chunks
            .iter()
            .filter(|(byte, _)| which(**byte))
            .map(|(_, count)| count)
            .sum()
    }

    fn add(&mut self, byte: u8) {
        *self.chunks.entry(byte).or_default() += 1;
    }
}

/// The first and the last chunk of some of the series of an index, spread evenly, while it is walked.
#[derive(Debug)]
pub(super) struct Sample {
    /// Every so many series one is taken.
    every: u64,
    seen: u64,
    ends: Vec<(u64, u64)>,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            every: 1,
            seen: 0,
            ends: Vec::new(),
        }
    }
}

impl Sample {
    /// Takes the references of the first and the last chunk of the next series.
    #[inline]
    pub(super) fn push(&mut self, first: u64, last: u64) {
        let taken = self.seen.is_multiple_of(self.every);
        self.seen += 1;
        if !taken {
            return;
        }
        if self.ends.len() == SERIES {
            let mut place = 0;
            self.ends.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.every *= 2;
            // This one stands at an even place of the new distance, since `SERIES` is even.
        }
        self.ends.push((first, last));
    }

    /// The references, in the order of the segments, each once.
    fn references(self) -> Vec<u64> {
        let mut references: Vec<u64> = self.ends.into_iter().flat_map(|(first, last)| [first, last]).collect();
        references.sort_unstable();
        references.dedup();
        references
    }
}

/// The encodings of the chunks in a sample, each of which is checked.
pub(super) fn of_sample(sample: Sample, segments: &[&PinnedFile]) -> Result<Encodings, Broken> {
    let mut found = Encodings::default();
    for reference in sample.references() {
        // The walk has found a segment for each.
        let Some(segment) = segments.get((reference >> 32) as usize) else {
            continue;
        };
        let mut window = Window::new(segment);
        let content = chunk(&mut window, segment, reference as u32)?;
        if let Some(byte) = window.at(content.start, 1)?.first() {
            found.add(*byte);
        }
    }
    Ok(found)
}

/// The encodings of the chunks that are within the first bytes of a segment: those of its first series. For a first look: what
/// makes no sense, or has another checksum, is left out.
pub fn at_start_of_segment(start: &[u8]) -> Encodings {
    let mut found = Encodings::default();
    let mut rest = match start.starts_with(&SEGMENT_MAGIC) {
        true => start.get(SEGMENT_HEADER as usize..).unwrap_or_default(),
        false => &[],
    };
    while let Some((len, head)) = uvarint(rest)
        && let Some(end) = usize::try_from(len).ok().and_then(|len| len.checked_add(head + 1))
        && let (Some(content), Some(behind)) = (rest.get(head..end), rest.get(end..))
        && let Some((sum, next)) = behind.split_at_checked(CHECKSUM as usize)
    {
        if let Some(byte) = content.first().filter(|_| sum == crc32c::crc32c(content).to_be_bytes()) {
            found.add(*byte);
        }
        rest = next;
    }
    found
}

/// The encodings of all chunks: their frames are read one after another, up to the last one that a series refers to.
pub(super) fn all(segments: &[&PinnedFile], last_chunks: &[Option<u32>]) -> Result<Encodings, Broken> {
    let mut found = Encodings {
        complete: true,
        ..Encodings::default()
    };
    for (segment, last) in segments.iter().zip(last_chunks) {
        let Some(last) = last.map(u64::from) else { continue };
        let (mut window, mut at) = (Window::new(segment), SEGMENT_HEADER);
        while at <= last {
            let bytes = window.at(at, LONGEST_UVARINT + 1)?;
            let frame = uvarint(bytes).and_then(|(len, head)| Some((len, head, *bytes.get(head)?)));
            let Some((len, head, byte)) = frame else {
                let name = &segment.rel_path;
                let what = format_args!("{name} is damaged: it has no chunk at byte {at}, where one is due");
                return Err(Broken::new(Reason::Segment, what));
            };
            found.add(byte);
            // A length that leads out of the segment ends the walk; the last chunk was checked for that.
            at = at.saturating_add(len).saturating_add(head as u64 + 1 + CHECKSUM);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsdb::{
        Pinned,
        check::quick,
        testing::{self, Shape},
    };

    /// A block of so many series with so many chunks each, in two segments; `encoding` tells that of a chunk by its series
    /// and its place there.
    fn block(series: u32, chunks: u32, encoding: impl Fn(u32, u32) -> u8) -> (tempfile::TempDir, Pinned) {
        let data = tempfile::tempdir().unwrap();
        let shape = Shape {
            series,
            chunks,
            segments: 2,
            version: 2,
        };
        let block = testing::write_block(data.path(), "01K4ABCDEFGHJKMNPQRSTVWXYZ", shape);
        let mut segments = [(); 2].map(|()| vec![0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0]);
        let mut references = Vec::new();
        for one in 0..series {
            for place in 0..chunks {
                let segment = u64::from(one >= series / 2);
                let bytes = &mut segments[segment as usize];
                references.push(segment << 32 | bytes.len() as u64);
                let data = vec![7; 2 + (one as usize % 300)];
                testing::one_chunk(bytes, encoding(one, place), &data);
            }
        }
        for (name, bytes) in ["000001", "000002"].iter().zip(segments) {
            fs_err::write(block.dir.join("chunks").join(name), bytes).unwrap();
        }
        fs_err::write(block.dir.join("index"), testing::index(shape, &references)).unwrap();
        let pinned = Pinned::open(&block).unwrap();
        (data, pinned)
    }

    fn counts(pairs: &[(u8, u64)]) -> BTreeMap<u8, u64> {
        pairs.iter().copied().collect()
    }

    #[test]
    fn plain_blocks_are_sampled_and_all_chunks_are_counted_when_that_is_wanted() {
        let (_data, pinned) = block(1000, 3, |series, _| if series % 5 == 0 { 2 } else { 1 });
        let sampled = quick(&pinned, Depth::Sample).unwrap();
        assert!(!sampled.complete && sampled.newer() + sampled.unknown() == 0);
        let seen: u64 = sampled.chunks.values().sum();
        // Two chunks each of 250 series, every fourth of them.
        assert_eq!(seen, 500);
        let all = quick(&pinned, Depth::All).unwrap();
        assert_eq!((all.complete, all.chunks), (true, counts(&[(1, 2400), (2, 600)])));
    }

    #[test]
    fn a_setting_that_was_changed_within_the_block_is_seen_and_then_all_chunks_are_counted() {
        // Switched on for the last chunks, and switched off for all but the first.
        for switched in [|place: u32| place == 4, |place: u32| place == 0] {
            let (_data, pinned) = block(700, 5, |_, place| if switched(place) { 4 } else { 1 });
            let found = quick(&pinned, Depth::Sample).unwrap();
            assert_eq!((found.complete, found.newer()), (true, 700));
            assert_eq!(found.chunks, counts(&[(1, 2800), (4, 700)]));
        }
    }

    #[test]
    fn what_a_few_series_have_is_found_when_all_chunks_are_looked_at() {
        let (_data, pinned) = block(700, 3, |series, place| if (series, place) == (333, 1) { 9 } else { 5 });
        let found = quick(&pinned, Depth::All).unwrap();
        assert_eq!((found.newer(), found.unknown()), (2099, 1));
        assert_eq!(found.refused(), "HISTOGRAM_ST and encoding 9");
        let plain: BTreeMap<u8, u64> = [1, 2, 3, AGGREGATES].map(|byte| (byte, 1)).into();
        let plain = Encodings {
            chunks: plain,
            complete: true,
        };
        assert_eq!(plain.refused(), "");
        let (_data, pinned) = block(700, 3, |series, place| if (series, place) == (333, 1) { 9 } else { 1 });
        assert_eq!(quick(&pinned, Depth::Sample).unwrap().unknown(), 0);
        assert_eq!(quick(&pinned, Depth::All).unwrap().unknown(), 1);
    }

    #[test]
    fn the_sample_is_spread_evenly_and_bounded() {
        for series in [0, 1, 255, 256, 257, 5000, 1 << 20] {
            let mut sample = Sample::default();
            for one in 0..series {
                sample.push(one, one);
            }
            let taken = sample.references();
            assert!(
                taken.len() <= SERIES && taken.len() as u64 >= series.min(SERIES as u64 / 2),
                "{series}"
            );
            let gaps: Vec<u64> = taken.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(gaps.windows(2).all(|pair| pair[0] == pair[1]), "{series}");
            assert!(taken.first().is_none_or(|first| *first == 0));
        }
    }

    #[test]
    fn the_first_bytes_of_a_segment_tell_of_the_chunks_that_begin_there() {
        let (_data, pinned) = block(4, 3, |_, place| if place == 2 { 4 } else { 1 });
        let segment = pinned.segments().next().unwrap();
        let bytes = fs_err::read(&segment.path).unwrap();
        // Two series of three chunks: 1 + 1 + 2 + 4 bytes each of the first one.
        assert_eq!(at_start_of_segment(&bytes).chunks, counts(&[(1, 4), (4, 2)]));
        let third = &bytes[..8 + 3 * 8];
        assert_eq!(at_start_of_segment(third).chunks, counts(&[(1, 2), (4, 1)]));
        assert_eq!(at_start_of_segment(&third[..third.len() - 1]).chunks, counts(&[(1, 2)]));
        let mut damaged = third.to_vec();
        damaged[8 + 1] = 7;
        assert_eq!(at_start_of_segment(&damaged).chunks, counts(&[(1, 1), (4, 1)]));
        for odd in [&b""[..], b"\x85\xbd\x40\xdd\x01\0\0\0", b"no segment of chunks"] {
            assert_eq!(at_start_of_segment(odd).chunks, counts(&[]));
        }
        let endless = [&bytes[..8], &[0xff; 9], &[1, 4]].concat();
        assert_eq!(at_start_of_segment(&endless).chunks, counts(&[]));
    }

    #[test]
    fn frames_that_make_no_sense_are_an_error_and_no_panic() {
        let (_data, pinned) = block(10, 3, |_, _| 4);
        let segments: Vec<&PinnedFile> = pinned.segments().collect();
        let mut bytes = fs_err::read(&segments[0].path).unwrap();
        // A length without an end.
        bytes[8..20].fill(0xff);
        let (_dir, file) = testing::pinned_file("chunks/000001", &bytes);
        let broken = all(&[&file], &[Some(50)]).unwrap_err();
        assert_eq!(broken.reason, Reason::Segment);
        assert_eq!(
            broken.detail,
            "chunks/000001 is damaged: it has no chunk at byte 8, where one is due"
        );
        assert_eq!(all(&[&file], &[None]).unwrap().chunks, counts(&[]));
    }
}
