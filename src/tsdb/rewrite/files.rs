//! The files that come out: the index, and one segment after another, each summed up and handed on in pieces.

use std::mem;

use sha2::{Digest as _, Sha256};

use super::{
    super::check::{SEGMENT_MAGIC, SEGMENT_VERSION, full::Digest},
    Error, Options, OutFile, Output,
};

/// What is handed on at once (bytes).
const PIECE: usize = 256 << 10;

/// The index and the segment that are being written.
pub(super) struct Files<'a> {
    out: &'a mut dyn Output,
    options: &'a Options<'a>,
    index: Open,
    segment: Open,
    /// The number of that segment.
    number: u32,
    /// Those that are finished.
    done: Vec<Digest>,
}

/// A file that is being written.
struct Open {
    file: OutFile,
    /// What was not handed on yet.
    buffer: Vec<u8>,
    /// How many bytes were (and all of the next are of those only).
    len: u64,
    crc32c: u32,
    sha256: Option<Sha256>,
}

impl<'a> Files<'a> {
    pub(super) fn new(out: &'a mut dyn Output, options: &'a Options<'a>) -> Self {
        Self {
            out,
            options,
            index: Open::new(OutFile::Index, options),
            segment: segment(1, options),
            number: 1,
            done: Vec::new(),
        }
    }

    /// An error, if the pass is to stop.
    #[inline]
    pub(super) fn go_on(&self) -> Result<(), Error> {
        self.options.go_on()
    }

    /// How long the index is (bytes).
    pub(super) fn index_len(&self) -> u64 {
        self.index.written()
    }

    /// Adds to the index.
    #[inline]
    pub(super) fn index(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.index.add(bytes, self.out)
    }

    /// Fills the index up with zeros, to a multiple of so many bytes.
    #[inline]
    pub(super) fn pad_index(&mut self, multiple: u64) -> Result<(), Error> {
        const ZEROS: [u8; 16] = [0; 16];
        let len = self.index_len();
        // Only multiples of 4 and 16 are asked for.
        let count = (len.next_multiple_of(multiple) - len).min(16) as usize;
        self.index(&ZEROS[..count])
    }

    /// The number of the segment, from 1 on.
    pub(super) fn segment_number(&self) -> u32 {
        self.number
    }

    /// How long the segment is (bytes).
    #[inline]
    pub(super) fn segment_len(&self) -> u64 {
        self.segment.written()
    }

    /// Adds to the segment.
    #[inline]
    pub(super) fn segment(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.segment.add(bytes, self.out)
    }

    /// Ends the segment and begins the next.
    pub(super) fn next_segment(&mut self) -> Result<(), Error> {
        self.number += 1;
        let before = mem::replace(&mut self.segment, segment(self.number, self.options));
        self.done.push(before.finish(self.out)?);
        Ok(())
    }

    /// Ends the last segment and the index.
    pub(super) fn finish(mut self) -> Result<Vec<Digest>, Error> {
        for open in [self.segment, self.index] {
            self.done.push(open.finish(self.out)?);
        }
        Ok(self.done)
    }
}

/// A segment with its header.
fn segment(number: u32, options: &Options<'_>) -> Open {
    let mut open = Open::new(OutFile::Segment(number), options);
    open.buffer.extend(SEGMENT_MAGIC);
    open.buffer.extend([SEGMENT_VERSION, 0, 0, 0]);
    open
}

impl Open {
    fn new(file: OutFile, options: &Options<'_>) -> Self {
        Self {
            file,
            buffer: Vec::new(),
            len: 0,
            crc32c: 0,
            sha256: options.sha256.then(Sha256::new),
        }
    }

    #[inline]
    fn written(&self) -> u64 {
        self.len + self.buffer.len() as u64
    }

    #[inline]
    fn add(&mut self, bytes: &[u8], out: &mut dyn Output) -> Result<(), Error> {
        if self.buffer.len() + bytes.len() > PIECE {
            return self.overflow(bytes, out);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Adds bytes that do not fit into the buffer, of which all pieces but the last are one [`PIECE`].
    #[cold]
    fn overflow(&mut self, mut bytes: &[u8], out: &mut dyn Output) -> Result<(), Error> {
        while self.buffer.len() + bytes.len() > PIECE {
            let (now, later) = bytes.split_at(PIECE - self.buffer.len());
            self.buffer.extend_from_slice(now);
            self.hand_on(out)?;
            bytes = later;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn hand_on(&mut self, out: &mut dyn Output) -> Result<(), Error> {
        self.crc32c = crc32c::crc32c_append(self.crc32c, &self.buffer);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(&self.buffer);
        }
        self.len += self.buffer.len() as u64;
        out.write(self.file, &self.buffer).map_err(Error::Output)?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, out: &mut dyn Output) -> Result<Digest, Error> {
        if !self.buffer.is_empty() {
            self.hand_on(out)?;
        }
        out.finish(self.file).map_err(Error::Output)?;
        let rel_path = self.file.rel_path();
        Ok(Digest::new(&rel_path, self.len, self.crc32c, self.sha256))
    }
}
