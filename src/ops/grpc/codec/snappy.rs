//! The framed format of Snappy: a fixed start, then chunks with a checksum each.
//!
//! Reading is the decoder of the crate `snap`, looked at piece by piece. Writing is not its encoder: that writes one
//! stream and cannot begin another, so that each message would pay anew for the 220 KiB of tables and buffers that are
//! kept here from one message to the next.

use std::cmp::min;

use bytes::{BufMut as _, BytesMut};
use snap::{raw, read::FrameDecoder};

use super::encoder::{self, Broken, broken, read_all};

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

impl encoder::Encoder for Encoder {
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

pub(super) fn decompress(message: &[u8], limit: usize, out: &mut BytesMut) -> Result<(), Broken> {
    read_all(FrameDecoder::new(message), limit, out)
}
