//! One pass over a chunk segment: header, and chunks one after another to the end, each
//! `uvarint length | encoding (1 byte) | data | CRC-32C of the latter two`. No chunk has to fit into memory: of its data
//! only the beginning, which counts the samples, and the checksum matter.

use std::io::Read;

use super::{
    super::{
        Broken, Reason, SEGMENT_HEADER, begins_as_segment, cut_chunk, damaged_chunk, long_enough,
        window::{CHECKSUM, LONGEST_UVARINT, uvarint},
    },
    Digest, SegmentFacts,
    stream::{Fault, Stream},
};

/// The longest chunk that is looked at in one piece (bytes), encoding and checksum included; an ordinary one has some
/// hundred.
const ONE_PIECE: usize = 64 << 10;

pub(super) fn walk<R: Read>(name: &str, len: u64, mut stream: Stream<'_, R>) -> Result<(SegmentFacts, Digest), Fault> {
    long_enough(name, len)?;
    let header = *stream
        .need(SEGMENT_HEADER as usize)?
        .first_chunk()
        .ok_or_else(|| cut_chunk(name, len, 0))?;
    begins_as_segment(name, header)?;
    if header[5..] != [0; 3] {
        let what = format_args!("{name} is damaged: the last three bytes of its header are not zero");
        return Err(Broken::new(Reason::Segment, what).into());
    }
    stream.skip(header.len());
    let mut facts = SegmentFacts::default();
    while stream.position() < len {
        chunk(name, len, &mut stream, &mut facts)?;
    }
    Ok((facts, stream.digest(name)))
}

/// Checks the next chunk and counts it.
#[inline]
fn chunk<R: Read>(name: &str, len: u64, stream: &mut Stream<'_, R>, facts: &mut SegmentFacts) -> Result<(), Fault> {
    let offset = stream.position();
    let bytes = stream.need(LONGEST_UVARINT)?;
    let Some((data, head)) = uvarint(bytes) else {
        if bytes.len() < LONGEST_UVARINT {
            return Err(cut_chunk(name, len, offset).into());
        }
        let what = format_args!("{name} is damaged: it has no chunk at byte {offset}, where one is due");
        return Err(Broken::new(Reason::Segment, what).into());
    };
    let rest = len - offset - head as u64;
    if data.checked_add(1 + CHECKSUM).is_none_or(|due| due > rest) {
        return Err(cut_chunk(name, len, offset).into());
    }
    stream.skip(head);
    let mut beginning = [0; 3];
    let known = beginning.len().min(1 + data as usize);
    let sound = if data <= ONE_PIECE as u64 {
        let summed = 1 + data as usize;
        let bytes = stream.need(summed + CHECKSUM as usize)?;
        let (Some(content), Some(sum)) = (bytes.get(..summed), bytes.get(summed..)) else {
            return Err(cut_chunk(name, len, offset).into());
        };
        beginning[..known].copy_from_slice(&content[..known]);
        let sound = sum.starts_with(&crc32c::crc32c(content).to_be_bytes());
        stream.skip(summed + CHECKSUM as usize);
        sound
    } else {
        if let Some(first) = stream.need(beginning.len())?.first_chunk() {
            beginning = *first;
        }
        stream.is_sound(1 + data, |_| ())?
    };
    if !sound {
        return Err(damaged_chunk(name, offset).into());
    }
    facts.references.add(offset);
    facts.count(name, offset, &beginning[..known])?;
    Ok(())
}
