//! gzip, RFC 1952.

use bytes::{BufMut as _, BytesMut};
use flate2::{Compress, Compression, Crc, FlushCompress, Status as Progress, bufread::MultiGzDecoder};

use super::encoder::{self, Broken, broken, read_all};

/// Deflate, no extra fields, no time, an unknown system.
const HEAD: &[u8; 10] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff";
/// The size of the buffer for compressed bytes.
const ROOM: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Encoder {
    deflate: Compress,
    crc: Crc,
    room: Vec<u8>,
}

impl Encoder {
    /// Fast rather than small, as clients are near.
    pub(super) fn new() -> Self {
        Self {
            deflate: Compress::new(Compression::fast(), false),
            crc: Crc::new(),
            room: vec![0; ROOM],
        }
    }

    fn run(&mut self, bytes: &[u8], flush: FlushCompress, out: &mut BytesMut) -> Result<Progress, Broken> {
        let before = self.deflate.total_out();
        let progress = self
            .deflate
            .compress(bytes, &mut self.room, flush)
            .map_err(|error| broken(error.to_string()))?;
        out.put_slice(&self.room[..(self.deflate.total_out() - before) as usize]);
        Ok(progress)
    }
}

impl encoder::Encoder for Encoder {
    fn begin(&mut self, out: &mut BytesMut) {
        self.deflate.reset();
        self.crc.reset();
        out.put_slice(HEAD);
    }

    fn write(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Broken> {
        self.crc.update(bytes);
        let mut left = bytes;
        while !left.is_empty() {
            let before = self.deflate.total_in();
            self.run(left, FlushCompress::None, out)?;
            // At most the length of `left`.
            left = &left[(self.deflate.total_in() - before) as usize..];
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<(), Broken> {
        while self.run(&[], FlushCompress::Finish, out)? != Progress::StreamEnd {}
        out.put_u32_le(self.crc.sum());
        out.put_u32_le(self.crc.amount());
        Ok(())
    }
}

pub(super) fn decompress(message: &[u8], limit: usize, out: &mut BytesMut) -> Result<(), Broken> {
    read_all(MultiGzDecoder::new(message), limit, out)
}
