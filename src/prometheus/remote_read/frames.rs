//! Assembles the frames of a streamed remote-read response from whatever pieces the connection delivers.
//!
//! `frame := uvarint(len(payload)) | crc32c(payload), 4 bytes big-endian | payload`; the stream ends with the body. A
//! payload within one piece is a slice of that piece; only one that spans pieces is copied, once. Pure: no I/O, no
//! panics, and no more memory than what has arrived. Any truncation, also right behind a length or a checksum, is an
//! error.

use bytes::{Buf, Bytes, BytesMut};

use crate::model::uvarint::{LONGEST_UVARINT, uvarint};

/// Longest payload, in bytes; Thanos' reader has the same limit. Prometheus sends about 1 MiB.
pub const PAYLOAD_MAX: usize = 50_000_000;

/// Bytes of the checksum.
const CHECKSUM: usize = 4;
/// How much of what is no frame is shown, in bytes.
const SHOWN: usize = 200;

/// A stream that is no whole row of whole frames.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The stream ended within a frame.
    #[error("the answer ends in the middle of frame {frame}{}", found_text(.text))]
    Cut {
        /// The frame, counted from 0.
        frame: u64,
        /// What stood in its place, if that is text: Prometheus writes late errors there.
        text: String,
    },
    /// A frame is longer than any that Prometheus sends.
    #[error("frame {frame} claims {length} bytes, more than {PAYLOAD_MAX}{}", found_text(.text))]
    TooLong {
        /// The frame, counted from 0.
        frame: u64,
        /// Its length in bytes, as claimed.
        length: u64,
        /// What stood in its place, if that is text.
        text: String,
    },
    /// The length is no number of at most 64 bits.
    #[error("the length of frame {frame} is not readable")]
    BadLength {
        /// The frame, counted from 0.
        frame: u64,
    },
    /// The checksum does not fit the payload.
    #[error("the checksum of frame {frame} is wrong: {wanted:08x} was sent, the payload has {found:08x}{}", found_text(.text))]
    Checksum {
        /// The frame, counted from 0.
        frame: u64,
        /// The checksum that was sent.
        wanted: u32,
        /// The checksum of what arrived.
        found: u32,
        /// What stood in its place, if that is text.
        text: String,
    },
}

fn found_text(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!("; in its place stands: {text}"),
    }
}

/// Puts frames together: [`FrameReader::push`] a piece, then [`FrameReader::next`] until it wants more.
#[derive(Debug, Default)]
pub struct FrameReader {
    piece: Bytes,
    /// The bytes of length and checksum that came so far.
    head: [u8; LONGEST_UVARINT + CHECKSUM],
    head_len: usize,
    /// The payload that is being read.
    body: Option<Payload>,
    frames: u64,
}

#[derive(Debug)]
struct Payload {
    length: usize,
    checksum: u32,
    /// What came of a torn one.
    torn: BytesMut,
}

impl FrameReader {
    /// Adds the next piece of the body. What is left of the piece before must have been asked for with `next`.
    pub fn push(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty(), "a piece is pushed before the last one is read");
        self.piece = piece;
    }

    /// The payload of the next frame; `None` when more is needed.
    ///
    /// # Errors
    /// Anything that is not a whole frame; the stream is of no use after it.
    #[allow(
        clippy::should_implement_trait,
        reason = "it is no iterator: after None there may be more"
    )]
    pub fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.body.is_none() && !self.read_head()? {
            return Ok(None);
        }
        let Some(body) = &mut self.body else { return Ok(None) };
        let payload = if body.torn.is_empty() && self.piece.len() >= body.length {
            self.piece.split_to(body.length)
        } else {
            let missing = (body.length - body.torn.len()).min(self.piece.len());
            body.torn.extend_from_slice(&self.piece[..missing]);
            self.piece.advance(missing);
            if body.torn.len() < body.length {
                return Ok(None);
            }
            body.torn.split().freeze()
        };
        let (wanted, found) = (body.checksum, crc32c::crc32c(&payload));
        if wanted != found {
            // A text has no length: what follows may be the rest of it.
            let text = self.text(&[&payload, &self.piece]);
            return Err(FrameError::Checksum {
                frame: self.frames,
                wanted,
                found,
                text,
            });
        }
        self.body = None;
        self.head_len = 0;
        self.frames += 1;
        Ok(Some(payload))
    }

    /// To be asked when the body has ended.
    ///
    /// # Errors
    /// [`FrameError::Cut`] if it ended within a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.head_len == 0 && self.piece.is_empty() {
            return Ok(());
        }
        let torn: &[u8] = self.body.as_ref().map_or(&[], |body| &body.torn);
        Err(FrameError::Cut {
            frame: self.frames,
            text: self.text(&[torn]),
        })
    }

    /// Bytes of a frame that has not come whole yet.
    pub fn torn_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.torn.len())
    }

    /// How many whole frames there were.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Reads length and checksum; whether both are there.
    fn read_head(&mut self) -> Result<bool, FrameError> {
        loop {
            if let Some((length, size)) = uvarint(&self.head[..self.head_len])
                && self.head_len == size + CHECKSUM
            {
                let checksum = &self.head[size..self.head_len];
                let checksum = checksum.iter().fold(0, |sum, byte| (sum << 8) | u32::from(*byte));
                let length = match usize::try_from(length) {
                    Ok(length) if length <= PAYLOAD_MAX => length,
                    _ => {
                        let text = self.text(&[&self.piece]);
                        let frame = self.frames;
                        return Err(FrameError::TooLong { frame, length, text });
                    }
                };
                let torn = BytesMut::new();
                self.body = Some(Payload { length, checksum, torn });
                return Ok(true);
            }
            if self.head_len >= LONGEST_UVARINT && uvarint(&self.head[..self.head_len]).is_none() {
                return Err(FrameError::BadLength { frame: self.frames });
            }
            let Some((&byte, rest)) = self.piece.split_first() else {
                return Ok(false);
            };
            let left = rest.len();
            self.head[self.head_len] = byte;
            self.head_len += 1;
            self.piece.advance(self.piece.len() - left);
        }
    }

    /// The text in place of a frame, if it is text.
    fn text(&self, after: &[&[u8]]) -> String {
        let after = after.iter().copied().flatten();
        let bytes: Vec<u8> = self.head[..self.head_len]
            .iter()
            .chain(after)
            .copied()
            .take(SHOWN)
            .collect();
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            // Truncated within a character, here or by the sender.
            Err(error) if error.error_len().is_none() => {
                std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => return String::new(),
        };
        if text.chars().any(|char| char.is_control() && !char.is_whitespace()) {
            return String::new();
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Contract vector: one series of `up`.
    const FRAME: &str = "4675c877d60a440a0e0a085f5f6e616d655f5f120275700a0b0a036a6f6212046e6f64650a0c0a06726567696f6e12\
                         0265751217 0880d095ffbc311080d095ffbc31180122050001000000";

    fn frame() -> Vec<u8> {
        let digits: Vec<char> = FRAME.chars().filter(char::is_ascii_hexdigit).collect();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// Reads all payloads of `stream`, which arrives in pieces of these sizes, the last size again and again.
    fn read(stream: &[u8], sizes: &[usize]) -> Result<Vec<Bytes>, FrameError> {
        let (mut reader, mut found, mut rest) = (FrameReader::default(), Vec::new(), Bytes::copy_from_slice(stream));
        let mut sizes = sizes.iter().copied();
        let mut size = 1;
        while !rest.is_empty() {
            size = sizes.next().unwrap_or(size).max(1);
            reader.push(rest.split_to(size.min(rest.len())));
            while let Some(payload) = reader.next()? {
                found.push(payload);
            }
        }
        reader.finish()?;
        Ok(found)
    }

    #[test]
    fn the_vector_is_read_wherever_it_is_torn() {
        let one = frame();
        let stream = [&one[..], &one, &one].concat();
        for size in 1..=stream.len() {
            let found = read(&stream, &[size]).unwrap();
            assert_eq!(found, vec![Bytes::copy_from_slice(&one[5..]); 3], "pieces of {size}");
        }
    }

    #[test]
    fn a_payload_in_one_piece_is_not_copied() {
        let piece = Bytes::from(frame());
        let mut reader = FrameReader::default();
        reader.push(piece.clone());
        let payload = reader.next().unwrap().unwrap();
        assert_eq!(payload.as_ptr(), piece[5..].as_ptr());
    }

    #[test]
    fn a_cut_anywhere_is_an_error_and_only_the_end_of_a_frame_is_none() {
        let one = frame();
        let stream = [&one[..], &one].concat();
        for cut in 0..stream.len() {
            let result = read(&stream[..cut], &[7]);
            match cut % one.len() {
                0 => assert_eq!(result.unwrap().len(), cut / one.len()),
                _ => assert!(matches!(result, Err(FrameError::Cut { .. })), "cut at {cut}"),
            }
        }
    }

    #[test]
    fn one_wrong_bit_is_found_wherever_it_is() {
        let one = frame();
        for bit in 0..one.len() * 8 {
            let mut wrong = one.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&wrong, &[9]).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn text_in_the_body_is_told() {
        let mut stream = frame();
        stream.extend_from_slice(b"expanding series: context canceled\n");
        let error = read(&stream, &[1000]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("frame 1; in its place stands: expanding series: context canceled"),
            "{error}"
        );
    }

    #[test]
    fn a_text_is_told_beyond_what_its_first_letter_takes_for_a_length_and_cut_between_characters() {
        // The first letter claims 101 bytes.
        let text = format!(
            "expanding series: {}é is not known, says the store behind it",
            "x".repeat(110)
        );
        let error = read(text.as_bytes(), &[1000]).unwrap_err();
        assert!(error.to_string().ends_with(&text), "{error}");
        for length in 1..3 {
            let text = format!("{}{}", "e".repeat(length), "é".repeat(150));
            let error = read(text.as_bytes(), &[1000]).unwrap_err().to_string();
            assert!(error.contains("stands: ee") || error.contains("stands: eé"), "{error}");
        }
    }

    #[test]
    fn lengths_that_nobody_sends_are_refused_before_memory_is_taken() {
        let long = [0x81, 0xe1, 0xeb, 0x17, 0, 0, 0, 0];
        assert!(matches!(
            read(&long, &[8]),
            Err(FrameError::TooLong { length: 50_000_001, .. })
        ));
        assert!(matches!(
            read(&[0xff; 14], &[14]),
            Err(FrameError::BadLength { frame: 0 })
        ));
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_makes_it_panic(stream in proptest::collection::vec(any::<u8>(), 0..200), size in 1_usize..40) {
            let _ = read(&stream, &[size]);
        }
    }
}
