//! The framed format of Snappy: a fixed start, then chunks with a checksum each.

use std::cmp::min;

use bytes::{BufMut as _, BytesMut};
use snap::raw;

use super::{Broken, broken};

/// The chunk that every stream starts with.
const START: &[u8; 10] = b"\xff\x06\x00\x00sNaPpY";
/// The most bytes of content in a chunk.
const CHUNK: usize = 64 << 10;
/// The type and length of a chunk, then the checksum of its content.
const HEAD: usize = 4;
const CHECKSUM: usize = 4;
const TYPE_COMPRESSED: u8 = 0x00;
const TYPE_PLAIN: u8 = 0x01;

/// CRC32C as the format stores it.
fn masked(content: &[u8]) -> u32 {
    crc32c::crc32c(content).rotate_right(15).wrapping_add(0xa282_ead8)
}

pub(super) struct Encoder {
    raw: raw::Encoder,
    /// The beginning of a chunk, less than [`CHUNK`] bytes.
    held: Vec<u8>,
    packed: Vec<u8>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self {
            raw: raw::Encoder::new(),
            held: Vec::new(),
            packed: Vec::new(),
        }
    }

    fn chunk_held(&mut self, out: &mut BytesMut) -> Result<(), Broken> {
        chunk_of(&mut self.raw, &mut self.packed, &self.held, out)?;
        self.held.clear();
        Ok(())
    }
}

impl super::Encoder for Encoder {
    fn begin(&mut self, out: &mut BytesMut) {
        self.held.clear();
        out.put_slice(START);
    }

    fn write(&mut self, mut bytes: &[u8], out: &mut BytesMut) -> Result<(), Broken> {
        if !self.held.is_empty() {
            let (now, rest) = bytes.split_at(min(CHUNK - self.held.len(), bytes.len()));
            self.held.extend_from_slice(now);
            bytes = rest;
            if self.held.len() < CHUNK {
                return Ok(());
            }
            self.chunk_held(out)?;
        }
        while let Some((chunk, rest)) = bytes.split_at_checked(CHUNK) {
            chunk_of(&mut self.raw, &mut self.packed, chunk, out)?;
            bytes = rest;
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<(), Broken> {
        if self.held.is_empty() {
            Ok(())
        } else {
            self.chunk_held(out)
        }
    }
}

fn chunk_of(raw: &mut raw::Encoder, packed: &mut Vec<u8>, content: &[u8], out: &mut BytesMut) -> Result<(), Broken> {
    let room = snap::raw::max_compress_len(content.len());
    if packed.len() < room {
        packed.resize(room, 0);
    }
    let length = raw
        .compress(content, packed)
        .map_err(|error| broken(error.to_string()))?;
    // What hardly shrinks is not worth the reader's time.
    let (kind, data) = if length < content.len() - content.len() / 8 {
        (TYPE_COMPRESSED, &packed[..length])
    } else {
        (TYPE_PLAIN, content)
    };
    out.reserve(HEAD + CHECKSUM + data.len());
    // At most 64 KiB and a few bytes: it fits into the three bytes of the length.
    out.put_u32_le(u32::from(kind) | ((CHECKSUM + data.len()) as u32) << 8);
    out.put_u32_le(masked(content));
    out.put_slice(data);
    Ok(())
}

pub(super) fn decompress(mut message: &[u8], limit: usize, out: &mut BytesMut) -> Result<(), Broken> {
    let begun = out.len();
    message = message
        .strip_prefix(START)
        .ok_or_else(|| broken("it does not start as the framed format of Snappy does"))?;
    let mut raw = raw::Decoder::new();
    while !message.is_empty() {
        let (kind, chunk) = next_chunk(&mut message)?;
        match kind {
            TYPE_COMPRESSED | TYPE_PLAIN => {
                let (checksum, data) = chunk
                    .split_first_chunk::<CHECKSUM>()
                    .ok_or_else(|| broken("a chunk has no checksum"))?;
                let at = out.len();
                let length = content_length(kind, data)?;
                if at - begun + length > limit {
                    return Err(Broken::TooLarge(limit));
                }
                if kind == TYPE_PLAIN {
                    out.put_slice(data);
                } else {
                    out.put_bytes(0, length);
                    raw.decompress(data, &mut out[at..])
                        .map_err(|error| broken(error.to_string()))?;
                }
                if masked(&out[at..]).to_le_bytes() != *checksum {
                    return Err(broken("a chunk's checksum is wrong"));
                }
            }
            // Padding, what readers may skip, and the start of another stream.
            0x80..=0xfe => {}
            0xff if chunk == &START[HEAD..] => {}
            other => return Err(broken(format!("a chunk has the unknown type {other:#04x}"))),
        }
    }
    Ok(())
}

fn next_chunk<'a>(message: &mut &'a [u8]) -> Result<(u8, &'a [u8]), Broken> {
    let cut = || broken("it is cut");
    let (&[kind, a, b, c], rest) = message.split_first_chunk::<HEAD>().ok_or_else(cut)?;
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    let (chunk, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
    *message = rest;
    Ok((kind, chunk))
}

fn content_length(kind: u8, data: &[u8]) -> Result<usize, Broken> {
    let length = if kind == TYPE_PLAIN {
        data.len()
    } else {
        raw::decompress_len(data).map_err(|error| broken(error.to_string()))?
    };
    if length > CHUNK {
        return Err(broken("a chunk is longer than the format allows"));
    }
    Ok(length)
}
