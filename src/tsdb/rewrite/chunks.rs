//! The chunks: read from the old segments, rewritten where they must be, written to the new ones.
//!
//! Chunks mostly stand in the order of their series, so that each segment is read once from its beginning to its end; one
//! that stands elsewhere is read there. A new segment begins where Prometheus begins one: it plans with lengths in five
//! bytes, however short they are, from the place at which the series began.

use std::fmt;

use super::{
    super::{
        Broken, PinnedFile, Reason,
        check::{LONGEST_CHUNK, SEGMENT_HEADER, chunk, cut_chunk, missing_segment, segment_header},
        window::{CHECKSUM, Window},
    },
    Error, Options, Rewritten,
    files::Files,
};
use crate::{
    chunk::{Encoding, to_plain},
    model::uvarint::put_uvarint,
};

/// No new block has more segments.
const MOST_SEGMENTS: u32 = 1 << 16;
/// The encoding of chunks that Thanos downsampled.
const AGGREGATES: u8 = 0xff;
/// What Prometheus plans for the length of a chunk (bytes).
const PLANNED_LENGTH: u64 = 5;

/// The chunks of a block on their way.
pub(super) struct Chunks<'a> {
    source: Source<'a>,
    target: Target,
    /// The chunk that is being rewritten, from its encoding on.
    anew: Vec<u8>,
    /// Chunks by their encoding before.
    from: [u64; 7],
    samples: u64,
    started: u64,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(segments: Vec<&'a PinnedFile>, options: &Options<'_>) -> Result<Self, Error> {
        for segment in &segments {
            segment_header(segment)?;
        }
        let len = segments
            .iter()
            .fold(0_u64, |sum, segment| sum.saturating_add(segment.len));
        Ok(Self {
            source: Source {
                segments,
                window: None,
                budget: len.saturating_mul(2),
            },
            target: Target {
                // References have 32 bits for the place in a segment.
                limit: options.segment_limit.min(u32::MAX.into()),
                begun: SEGMENT_HEADER,
                planned: 0,
                of_series: 0,
                length: Vec::new(),
            },
            anew: Vec::new(),
            from: [0; 7],
            samples: 0,
            started: 0,
        })
    }

    /// What is known at the end.
    pub(super) fn counts(&self) -> Rewritten {
        let counted = (0..).zip(self.from).filter(|(_, count)| *count > 0);
        Rewritten {
            from: counted.collect(),
            chunks: self.from.iter().sum(),
            samples: self.samples,
            start_timestamps_dropped: self.started,
            ..Rewritten::default()
        }
    }

    /// The next chunk is the first of a series.
    pub(super) fn begin_series(&mut self, files: &Files<'_>) {
        self.target.begun = files.segment_len();
        self.target.planned = 0;
        self.target.of_series = 0;
    }

    /// Writes the chunk at `reference` anew, and returns the reference to where it is now.
    pub(super) fn copy(&mut self, reference: u64, files: &mut Files<'_>) -> Result<u64, Error> {
        files.go_on()?;
        let found = self.source.read(reference)?;
        let encoding = found.encoding()?;
        let data = found.data();
        let samples = encoding
            .samples(data)
            .ok_or_else(|| found.broken("that is too short for any sample"))?;
        self.from[encoding as usize] += 1;
        self.samples += u64::from(samples);
        let plain = encoding.plain();
        if plain == encoding {
            return self.target.write(found.content, found.sum, files);
        }
        self.anew.clear();
        self.anew.push(plain as u8);
        let started = to_plain(encoding, data, &mut self.anew).map_err(|error| {
            found.broken(format_args!(
                "of the encoding {encoding} that cannot be decoded: {error}"
            ))
        })?;
        self.started += u64::from(started);
        let sum = crc32c::crc32c(&self.anew).to_be_bytes();
        self.target.write(&self.anew, sum, files)
    }
}

/// The old segments.
struct Source<'a> {
    segments: Vec<&'a PinnedFile>,
    /// The segment that was read last.
    window: Option<(usize, Window)>,
    /// How many bytes of chunks may still be read.
    budget: u64,
}

/// A chunk in an old segment, which has the right checksum.
struct Found<'a> {
    segment: &'a PinnedFile,
    offset: u32,
    /// Its encoding, and behind that its data.
    content: &'a [u8],
    sum: [u8; CHECKSUM as usize],
}

impl Source<'_> {
    fn read(&mut self, reference: u64) -> Result<Found<'_>, Error> {
        let (number, offset) = ((reference >> 32) as usize, reference as u32);
        let segment = *self.segments.get(number).ok_or_else(|| missing_segment(number))?;
        if self.window.as_ref().is_none_or(|(last, _)| *last != number) {
            self.window = Some((number, Window::new(segment)));
        }
        let Some((_, window)) = &mut self.window else {
            return Err(missing_segment(number).into());
        };
        let whole = chunk(window, segment, offset)?;
        let len = whole.end - whole.start;
        if len > LONGEST_CHUNK {
            let name = &segment.rel_path;
            let what = format_args!("{name} has a chunk of {len} bytes at byte {offset}, more than {LONGEST_CHUNK}");
            return Err(Error::refused(what));
        }
        self.budget = self.budget.checked_sub(len).ok_or_else(|| {
            let what = "the index refers to more than twice as many bytes of chunks as the segments have";
            Broken::new(Reason::Chunk, what)
        })?;
        let bytes = window.at(whole.start, (len + CHECKSUM) as usize)?;
        let content = bytes.get(..len as usize);
        let sum = bytes.get(len as usize..).and_then(|rest| rest.first_chunk());
        let (Some(content), Some(sum)) = (content, sum) else {
            return Err(cut_chunk(&segment.rel_path, segment.len, offset.into()).into());
        };
        Ok(Found {
            segment,
            offset,
            content,
            sum: *sum,
        })
    }
}

impl<'a> Found<'a> {
    fn encoding(&self) -> Result<Encoding, Error> {
        let byte = self.content.first().copied().unwrap_or_default();
        if byte == AGGREGATES {
            let what = format_args!(
                "its chunk at byte {} of {} is downsampled",
                self.offset, self.segment.rel_path
            );
            return Err(Error::refused(what));
        }
        Encoding::from_prometheus(byte.into()).ok_or_else(|| {
            self.broken(format_args!("of the encoding {byte}, which is not known here"))
                .into()
        })
    }

    fn data(&self) -> &'a [u8] {
        self.content.get(1..).unwrap_or_default()
    }

    fn broken(&self, what: impl fmt::Display) -> Broken {
        let (name, offset) = (&self.segment.rel_path, self.offset);
        Broken::new(
            Reason::Chunk,
            format_args!("{name} has a chunk at byte {offset} {what}"),
        )
    }
}

/// Where the next chunk comes to stand in the new segments.
struct Target {
    /// How long a segment may become.
    limit: u64,
    /// How long the segment was when the series began; or when it began itself, if that was later.
    begun: u64,
    /// What was planned for the series' chunks since then (bytes).
    planned: u64,
    /// How many of its chunks came.
    of_series: u64,
    /// The length of a chunk as it is written.
    length: Vec<u8>,
}

impl Target {
    /// Writes a chunk, of which `content` is the encoding and the data; returns the reference to it.
    fn write(&mut self, content: &[u8], sum: [u8; CHECKSUM as usize], files: &mut Files<'_>) -> Result<u64, Error> {
        let planned = PLANNED_LENGTH + content.len() as u64 + CHECKSUM;
        self.planned += planned;
        let empty = self.begun == SEGMENT_HEADER && self.of_series == 0;
        if !empty && self.begun + self.planned > self.limit {
            if files.segment_number() >= MOST_SEGMENTS {
                let what = format_args!(
                    "it would have more than {MOST_SEGMENTS} segments of {} bytes",
                    self.limit
                );
                return Err(Error::refused(what));
            }
            files.next_segment()?;
            (self.begun, self.planned) = (SEGMENT_HEADER, planned);
        }
        self.of_series += 1;
        // Of what goes into a segment together all begins below the limit.
        let reference = u64::from(files.segment_number() - 1) << 32 | files.segment_len();
        self.length.clear();
        put_uvarint(&mut self.length, content.len() as u64 - 1);
        files.segment(&self.length)?;
        files.segment(content)?;
        files.segment(&sum)?;
        Ok(reference)
    }
}
