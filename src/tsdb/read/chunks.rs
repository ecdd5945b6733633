//! Chunks by their references.

use std::{collections::VecDeque, ops::RangeInclusive, sync::Arc};

use bytes::Bytes;

use super::{
    super::{
        PinnedFile, Reason,
        check::{Broken, LONGEST_CHUNK, SEGMENT_HEADER, chunk, missing_segment},
        window::Window,
    },
    entry::ChunkEntry,
};
use crate::{
    chunk::{Encoding, trim},
    model::ReadChunk,
};

/// The chunks of a series that have more bytes come in several parts, as those of Prometheus do, which are larger.
pub(super) const PART: usize = 256 << 10;

/// Most series have no more chunks.
const USUAL: usize = 64;

/// Reads the chunks of a block; those that follow one another are read from one window.
#[derive(Debug)]
pub(super) struct Segments {
    segments: Arc<[Arc<PinnedFile>]>,
    /// The segment that was read last.
    window: Option<(usize, Window)>,
    width: usize,
    /// Bytes of the large buffers of the windows before this one.
    large_before: u64,
}

impl Segments {
    pub(super) fn new(segments: &Arc<[Arc<PinnedFile>]>, width: usize) -> Self {
        Self {
            segments: Arc::clone(segments),
            window: None,
            width,
            large_before: 0,
        }
    }

    /// How many bytes were read that are kept as long as any chunk in them is.
    pub(super) fn large_bytes(&self) -> u64 {
        self.large_before + self.window.as_ref().map_or(0, |(_, window)| window.large_bytes())
    }

    /// Takes chunks off `entries` and reads them with the samples in `range`, until they are `part` bytes.
    ///
    /// # Errors
    /// One is damaged or of an unknown encoding.
    pub(super) fn read_some(
        &mut self,
        entries: &mut VecDeque<ChunkEntry>,
        range: &RangeInclusive<i64>,
        part: usize,
    ) -> Result<Vec<ReadChunk>, Broken> {
        let (mut chunks, mut bytes) = (Vec::with_capacity(entries.len().min(USUAL)), 0);
        while bytes < part
            && let Some(entry) = entries.pop_front()
        {
            if let Some(chunk) = self.read(entry, range)? {
                bytes += chunk.data.len();
                chunks.push(chunk);
            }
        }
        Ok(chunks)
    }

    fn read(&mut self, entry: ChunkEntry, range: &RangeInclusive<i64>) -> Result<Option<ReadChunk>, Broken> {
        let (number, offset) = ((entry.reference >> 32) as usize, entry.reference as u32);
        let segment = self.segments.get(number).ok_or_else(|| missing_segment(number))?;
        if self.window.as_ref().is_none_or(|(last, _)| *last != number) {
            self.large_before = self.large_bytes();
            self.window = Some((number, Window::of_width(segment, self.width)));
        }
        let Some((_, window)) = &mut self.window else {
            return Err(missing_segment(number));
        };
        let broken = |what: &dyn std::fmt::Display| {
            let name = &segment.rel_path;
            Broken::new(
                Reason::Chunk,
                format_args!("{name} has a chunk at byte {offset} {what}"),
            )
        };
        if u64::from(offset) < SEGMENT_HEADER {
            return Err(broken(&"by the index, where its header is"));
        }
        let place = chunk(window, segment, offset)?;
        let len = place.end - place.start;
        if len > LONGEST_CHUNK {
            return Err(broken(&format_args!("of {len} bytes, more than {LONGEST_CHUNK}")));
        }
        // All of it at once: behind it the window may be elsewhere after the look at its checksum.
        let number = window
            .at(place.start, len as usize)?
            .first()
            .copied()
            .unwrap_or_default();
        let (start, len) = (place.start + 1, (len as usize).saturating_sub(1));
        let data = match window.is_small() {
            // One of a few that are wanted would keep all of the buffer.
            true => {
                let data = window.at(start, len)?;
                Bytes::copy_from_slice(&data[..len.min(data.len())])
            }
            false => window.slice(start, len)?,
        };
        let encoding = Encoding::from_prometheus(number.into());
        let encoding = encoding.ok_or_else(|| broken(&format_args!("of the unknown encoding {number}")))?;
        if range.contains(&entry.min_ms) && range.contains(&entry.max_ms) {
            return Ok(Some(ReadChunk {
                min_ms: entry.min_ms,
                max_ms: entry.max_ms,
                encoding: number.into(),
                data,
            }));
        }
        let trimmed = trim(encoding, &data, range.clone());
        let trimmed = trimmed.map_err(|error| broken(&format_args!("that cannot be decoded: {error}")))?;
        Ok(trimmed.map(|trimmed| ReadChunk {
            min_ms: trimmed.min_time_ms,
            max_ms: trimmed.max_time_ms,
            encoding: trimmed.encoding as i32,
            data: trimmed.data.into(),
        }))
    }
}
