//! What is done when the kernel cannot give a page of a map: the file was cut, its disk fails, or the memory does.
//!
//! The kernel says so with the signal `SIGBUS`, which ends the process unless it is handled. Here it is: if the page is one of
//! a map, empty ones take the place of all of that map, and the map is marked, so that whoever reads it gets an error from then on.
//! Any other `SIGBUS` goes to who had it before.

use std::{
    ffi::{c_int, c_void},
    ops::{Range, RangeInclusive},
    ptr,
    sync::OnceLock,
};

use super::slot::Slot;

/// Codes of the signal (`si_code`) of a place that cannot be read: there is no such place, the object fails, the memory fails. The
/// first is Linux' for a place that is not aligned, which a copy of bytes does not know, and gVisor's for any.
const BAD_PLACE: RangeInclusive<c_int> = 1..=4;

/// What was done on the signal before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Handles the signal from now on. Returns how large a page is (bytes), or `None` if nothing may be mapped: the signal cannot be handled,
/// or there is a limit to the process's addresses, which others need more.
pub(super) fn handled() -> Option<usize> {
    let (addresses, _) = rlimit::Resource::AS.get().ok()?;
    if cfg!(not(target_pointer_width = "64")) || addresses != rlimit::INFINITY {
        return None;
    }
    // Each time: what was done before may have put itself in the place of this one.
    handle().then(rustix::param::page_size)
}

fn handle() -> bool {
    // SAFETY: all zeros are such a value: nothing is masked, and no flag is set. The kernel reads the one and writes the other before it
    // returns. The handler does only what it may: it looks at atomics and calls the kernel.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) != 0 {
            return false;
        }
        let ours = on_bus_error as *const () as usize;
        if before.sa_sigaction == ours {
            return true;
        }
        BEFORE.get_or_init(|| before);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ours;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) == 0
    }
}

extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: a handler with SA_SIGINFO is handed a valid one.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    if BAD_PLACE.contains(&code)
        && let Some((slot, pages)) = Slot::with(address)
        // Once more, with empty pages there, it is something else.
        && slot.mark_broken()
        && put_empty_pages(pages)
    {
        return;
    }
    pass_on(signal, info, context);
}

/// Puts empty pages in the place of these of a map; whether that worked.
fn put_empty_pages(pages: Range<usize>) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: these pages are of the map that this thread reads, which lives until its copy is done. What was going on here
    // finds `errno` as it left it.
    unsafe {
        let errno = *libc::__errno_location();
        let place = ptr::with_exposed_provenance_mut(pages.start);
        let put = libc::mmap(place, pages.len(), libc::PROT_READ, flags, -1, 0);
        *libc::__errno_location() = errno;
        put != libc::MAP_FAILED
    }
}

/// Does what was done on the signal before.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
    let is_handler = |before: &&libc::sigaction| {
        before.sa_flags & libc::SA_SIGINFO != 0 && ![libc::SIG_DFL, libc::SIG_IGN].contains(&before.sa_sigaction)
    };
    match BEFORE.get().filter(is_handler) {
        Some(before) => {
            // SAFETY: the address of a handler with SA_SIGINFO is that of such a function.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(before.sa_sigaction) };
            handler(signal, info, context);
        }
        None => {
            // SAFETY: nothing is handed over. What went wrong is done again, and ends the process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}
