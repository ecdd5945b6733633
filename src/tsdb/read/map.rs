//! A part of a file in memory, to be read here and there without a call each time.
//!
//! **Guarantees.**
//! - What is read is a copy. It is an error if the file was cut or cannot be read, as with reading by position.
//! - There are only so many maps at once ([`slot`]), and none in a process whose addresses have a limit; where none is to be had, files are
//!   read by position.
//! - The memory is the kernel's own copy of the file, which it takes back when it needs room.
//!
//! Dropping a map takes it out of memory; a crash leaves nothing behind.

#![allow(
    unsafe_code,
    reason = "no safe call maps a file, or handles the signal of one that was cut"
)]

#[cfg(target_os = "linux")]
mod bus_error;
mod slot;
#[cfg(all(test, target_os = "linux"))]
pub(super) mod tests;

use std::{
    io,
    ops::Range,
    os::fd::AsRawFd,
    ptr,
    sync::atomic::{Ordering, compiler_fence},
};

use self::slot::Slot;
use super::super::PinnedFile;

/// What the processor fetches at once (bytes).
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;
/// No more of these are asked for at once.
#[cfg(target_arch = "x86_64")]
const LINES: usize = 8;

/// A part of a file. Used by one thread at a time.
#[derive(Debug)]
pub(super) struct Map {
    /// Where it is in memory.
    start: usize,
    len: usize,
    /// Where it begins in the file.
    offset: u64,
    slot: &'static Slot,
}

impl Map {
    /// The bytes `range` of `file`; `None` if they cannot be mapped.
    pub(super) fn new(file: &PinnedFile, range: Range<u64>) -> Option<Self> {
        let page = page_size()?;
        let offset = range.start - range.start % page as u64;
        let len = usize::try_from(range.end.checked_sub(offset)?).ok()?;
        let (from, pages) = (libc::off_t::try_from(offset).ok()?, len.checked_next_multiple_of(page)?);
        let slot = Slot::take()?;
        let fd = file.file.as_raw_fd();
        // SAFETY: the kernel chooses the place, so that nothing is replaced; the descriptor is open, and not needed later.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, fd, from) };
        if start == libc::MAP_FAILED {
            slot.give_back();
            return None;
        }
        let start = start.expose_provenance();
        slot.show(start..start + pages);
        Some(Self {
            start,
            len,
            offset,
            slot,
        })
    }

    /// Copies the bytes from `offset` in the file on to `buffer`: all of them, or as many as the map has. Returns how many.
    ///
    /// # Errors
    /// The file was cut, or cannot be read.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check()?;
        let Some(skip) = self.skip(offset) else {
            return Ok(0);
        };
        let len = buffer.len().min(self.len - skip);
        // SAFETY: `skip + len` is not more than `self.len`, and so many bytes are mapped from `start` on as long as `self` lives; where
        // the file has such a page no more the handler of the signal puts one. The buffer is elsewhere. No reference is made
        // to what is mapped, since others may write to the file.
        unsafe {
            let from = ptr::with_exposed_provenance::<u8>(self.start).add(skip);
            ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), len);
        }
        // If the handler has run, it was in the midst of the copy.
        compiler_fence(Ordering::SeqCst);
        self.check()?;
        Ok(len)
    }

    /// Has the processor fetch the bytes from `offset` in the file on, as far as it may be asked to.
    pub(super) fn prefetch(&self, offset: u64, len: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(skip) = self.skip(offset) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

            for line in (0..len.min(LINE * LINES)).step_by(LINE) {
                // SAFETY: a hint, which may be given for any address, and does nothing where there is no page.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(ptr::without_provenance(self.start.wrapping_add(skip + line))) };
            }
        }
    }

    /// Where the byte at `offset` in the file is in the map; `None` if it is not.
    fn skip(&self, offset: u64) -> Option<usize> {
        let skip = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        (skip < self.len).then_some(skip)
    }

    fn check(&self) -> io::Result<()> {
        match self.slot.is_broken() {
            true => Err(io::Error::other("a part of it is gone: it was cut, or its disk fails")),
            false => Ok(()),
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        self.slot.hide();
        // SAFETY: these pages are of this map, and nobody reads them any more. Failing leaves them, which does no harm.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(self.start), self.len) };
        self.slot.give_back();
    }
}

/// How large a page is (bytes); `None` where nothing may be mapped, as the signal cannot be handled.
fn page_size() -> Option<usize> {
    #[cfg(target_os = "linux")]
    return bus_error::handled();
    #[cfg(not(target_os = "linux"))]
    None
}
