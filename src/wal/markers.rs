//! The markers of `wbl/`, taken out of a segment.
//!
//! Prometheus notes there which samples it has mapped to `chunks_head/`, and drops what the log has before a marker when it
//! replays it. A log that comes without `chunks_head/` has samples that are nowhere else, and must not have markers. Other
//! records are passed on as they are, also where they are compressed: only the first byte of each is looked at, which says what it
//! is. Sources: Prometheus' `tsdb/record` (type 5) and `tsdb/head_wal.go`.
//!
//! Memory: one record, of which none is larger than a segment.

use std::io::{self, Read, Write};

use super::records::{Fragment, HEAD, Kind, PAGE, fragments};

/// The type of a record that holds markers.
const MARKERS: u8 = 5;

/// How the bytes of a record are compressed: the bits of a fragment's kind that say so.
const SNAPPY: u8 = 8;
const ZSTD: u8 = 16;

/// Writes a segment anew, to the end of its last whole record, without markers; how many records were left out.
///
/// # Errors
/// It cannot be read or written. Damage is [`io::ErrorKind::InvalidData`].
pub fn without_markers(from: &mut impl Read, to: impl Write) -> io::Result<u64> {
    let mut records = Records { to, at: 0 };
    let (mut record, mut compression, mut left_out) = (Vec::new(), 0, 0);
    let mut page = vec![0; PAGE];
    let mut is_open = false;
    loop {
        let filled = super::records::fill(from, &mut page)?;
        let mut written = Ok(());
        let each = |fragment: Fragment<'_>| {
            if matches!(fragment.kind, Kind::Whole | Kind::First) {
                record.clear();
                compression = fragment.compression;
            }
            record.extend_from_slice(fragment.data);
            if matches!(fragment.kind, Kind::Whole | Kind::Last) && written.is_ok() {
                match first_byte(&record, compression) {
                    Ok(Some(MARKERS)) => left_out += 1,
                    Ok(_) => written = records.put(&record, compression),
                    Err(error) => written = Err(error),
                }
            }
        };
        fragments(&page[..filled], &mut is_open, each)
            .map_err(|(at, why)| io::Error::new(io::ErrorKind::InvalidData, format!("{why} at byte {at} of a page")))?;
        written?;
        if filled < PAGE {
            records.to.flush()?;
            return Ok(left_out);
        }
    }
}

/// The first byte of a record; `None` if it has none.
fn first_byte(record: &[u8], compression: u8) -> io::Result<Option<u8>> {
    let mut byte = [0];
    let damaged = |error: String| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a record cannot be decompressed: {error}"),
        )
    };
    match compression {
        0 => Ok(record.first().copied()),
        SNAPPY => {
            let all = snap::raw::Decoder::new().decompress_vec(record);
            Ok(all.map_err(|error| damaged(error.to_string()))?.first().copied())
        }
        ZSTD => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(record);
            let mut decoder = decoder.map_err(|error| damaged(error.to_string()))?;
            let read = decoder.read(&mut byte).map_err(|error| damaged(error.to_string()))?;
            Ok((read == 1).then_some(byte[0]))
        }
        other => Err(damaged(format!("its compression {other} is not known"))),
    }
}

/// Writes records as Prometheus does: in fragments that do not cross pages.
struct Records<W> {
    to: W,
    /// How far the page is filled.
    at: usize,
}

impl<W: Write> Records<W> {
    fn put(&mut self, record: &[u8], compression: u8) -> io::Result<()> {
        let (mut rest, mut is_first) = (record, true);
        loop {
            if PAGE - self.at < HEAD {
                self.to.write_all(&[0; HEAD][..PAGE - self.at])?;
                self.at = 0;
            }
            let (data, more) = rest.split_at(rest.len().min(PAGE - self.at - HEAD));
            let kind = match (is_first, more.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            let len = u16::try_from(data.len()).map_err(io::Error::other)?;
            self.to.write_all(&[kind | compression])?;
            self.to.write_all(&len.to_be_bytes())?;
            self.to.write_all(&crc32c::crc32c(data).to_be_bytes())?;
            self.to.write_all(data)?;
            self.at = (self.at + HEAD + data.len()) % PAGE;
            (rest, is_first) = (more, false);
            if rest.is_empty() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of a segment, with their compression.
    fn read(segment: &[u8]) -> Vec<(Vec<u8>, u8)> {
        let (mut all, mut is_open) = (Vec::new(), false);
        for page in segment.chunks(PAGE) {
            let each = |fragment: Fragment<'_>| match fragment.kind {
                Kind::Whole | Kind::First => all.push((fragment.data.to_vec(), fragment.compression)),
                Kind::Middle | Kind::Last => all.last_mut().unwrap().0.extend_from_slice(fragment.data),
            };
            fragments(page, &mut is_open, each).unwrap();
        }
        all
    }

    fn segment(records: &[(Vec<u8>, u8)]) -> Vec<u8> {
        let mut segment = Vec::new();
        let mut to = Records {
            to: &mut segment,
            at: 0,
        };
        for (record, compression) in records {
            to.put(record, *compression).unwrap();
        }
        segment
    }

    /// Records of these types and lengths, as they are and compressed.
    fn records(types: &[(u8, usize)]) -> Vec<(Vec<u8>, u8)> {
        let record = |(kind, len): &(u8, usize)| {
            let plain: Vec<u8> = std::iter::once(*kind)
                .chain((1..*len).map(|i| (i * 31 % 251) as u8))
                .collect();
            let snappy = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
            let zstd = ruzstd::encoding::compress_to_vec(&*plain, ruzstd::encoding::CompressionLevel::Fastest);
            [(plain, 0), (snappy, SNAPPY), (zstd, ZSTD)]
        };
        types.iter().flat_map(record).collect()
    }

    #[test]
    fn markers_are_left_out_and_every_other_record_stays_byte_for_byte() {
        // Short ones, one that fills several pages, and one that leaves no room for a head.
        let others = records(&[(2, 30), (9, 1), (10, 3 * PAGE), (2, PAGE - 3 * HEAD), (4, 200)]);
        let markers = records(&[(5, 17), (5, 400), (5, 2 * PAGE)]);
        let mut mixed = others.clone();
        for (place, marker) in markers.iter().enumerate() {
            mixed.insert(place * 2, marker.clone());
        }
        let bytes = segment(&mixed);
        assert_eq!(read(&bytes), mixed);
        let mut without = Vec::new();
        assert_eq!(
            without_markers(&mut &*bytes, &mut without).unwrap(),
            markers.len() as u64
        );
        assert_eq!(read(&without), others);
        assert_eq!(without, segment(&others));
    }

    #[test]
    fn a_segment_without_markers_is_written_as_it_was_up_to_its_last_whole_record() {
        let all = records(&[(2, 30), (7, 5000), (10, 40_000)]);
        let bytes = segment(&all);
        for cut in [bytes.len(), bytes.len() - 1, 20, 0] {
            let mut written = Vec::new();
            assert_eq!(without_markers(&mut &bytes[..cut], &mut written).unwrap(), 0);
            assert!(bytes.starts_with(&written), "{cut}");
            let whole = super::super::records::extent(&mut &bytes[..cut]).unwrap().whole;
            assert_eq!(written.len() as u64, whole, "{cut}");
        }
    }

    #[test]
    fn damage_is_an_error() {
        let mut bytes = segment(&records(&[(2, 30), (5, 30)]));
        bytes[HEAD + 3] ^= 1;
        let error = without_markers(&mut &*bytes, io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        for (garbage, compression) in [
            (vec![0xff; 20], SNAPPY),
            (vec![0xff; 20], ZSTD),
            (vec![2], SNAPPY | ZSTD),
        ] {
            let bytes = segment(&[(garbage, compression)]);
            let error = without_markers(&mut &*bytes, io::sink()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{compression}");
        }
    }
}
