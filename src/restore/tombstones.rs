//! Whether a file of deleted intervals is one that Prometheus reads; with one that it cannot read, it does not start.
//!
//! `magic (4 bytes) | version (1 byte) | intervals | CRC-32C of the intervals`: each byte is fixed or under the checksum.
//! Read once and in pieces, whatever its size; a stop ends it with the next piece.

use std::{
    io::{self, Read},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

/// Magic and version.
const HEADER: [u8; 5] = [0x01, 0x30, 0xba, 0x30, 1];
const CHECKSUM: u64 = 4;
/// What is read at once (bytes).
const PIECE: usize = 64 << 10;

/// Why the file at `path` is none, in words.
///
/// # Errors
/// The disk's; [`io::ErrorKind::Interrupted`] after a stop.
pub(super) fn check(path: &Path, stop: &AtomicBool) -> io::Result<Result<(), String>> {
    let mut file = fs_err::File::open(path)?;
    let len = file.metadata()?.len();
    let Some(mut left) = len.checked_sub(HEADER.len() as u64 + CHECKSUM) else {
        return Ok(Err(format!("it has {len} bytes, too few for tombstones")));
    };
    let mut header = [0; HEADER.len()];
    file.read_exact(&mut header)?;
    if header != HEADER {
        return Ok(Err("it does not begin as tombstones of version 1".to_owned()));
    }
    let (mut buffer, mut sum) = (vec![0; PIECE], 0);
    while left > 0 {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the check was stopped"));
        }
        let count = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        file.read_exact(&mut buffer[..count])?;
        sum = crc32c::crc32c_append(sum, &buffer[..count]);
        left -= count as u64;
    }
    let mut due = [0; CHECKSUM as usize];
    file.read_exact(&mut due)?;
    Ok(match due == sum.to_be_bytes() {
        true => Ok(()),
        false => Err("it is damaged: wrong checksum".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(bytes: &[u8]) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tombstones");
        fs_err::write(&path, bytes).unwrap();
        check(&path, &AtomicBool::new(false)).unwrap()
    }

    /// As Prometheus writes it for a block in which nothing was deleted.
    const NONE: [u8; 9] = [0x01, 0x30, 0xba, 0x30, 1, 0, 0, 0, 0];

    #[test]
    fn those_of_prometheus_pass_and_any_change_is_found() {
        checked(&NONE).unwrap();
        // CRC-32C of "123456789", as RFC 3720 and others have it: e3069283.
        let some = [&HEADER[..], b"123456789", &[0xe3, 0x06, 0x92, 0x83]].concat();
        checked(&some).unwrap();
        for bytes in [&NONE[..], &some] {
            for at in 0..bytes.len() {
                let mut changed = bytes.to_vec();
                changed[at] ^= 1;
                checked(&changed).unwrap_err();
                checked(&bytes[..at]).unwrap_err();
            }
        }
    }

    #[test]
    fn a_stop_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tombstones");
        fs_err::write(&path, [&HEADER[..], &[0; 100]].concat()).unwrap();
        let error = check(&path, &AtomicBool::new(true)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }
}
