//! How `meta.json` lists a local file: its name, size, and its hash if that is wanted.
//!
//! The file is read from its open descriptor, off the threads of the runtime. Nothing is kept; dropping the future loses
//! nothing. What the disk does not give concerns the file's block alone.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use sha2::{Digest, Sha256};

use super::Error;
use crate::{
    threads::blocking_io,
    tsdb::{BucketFile, PinnedFile},
};

/// A local file as `meta.json` lists it.
pub(super) async fn described(file: &PinnedFile, hashed: bool) -> Result<BucketFile, Error> {
    Ok(BucketFile {
        rel_path: file.rel_path.clone(),
        size: Some(file.len),
        sha256: match hashed {
            true => Some(digest(file).await?),
            false => None,
        },
    })
}

async fn digest(file: &PinnedFile) -> Result<String, Error> {
    let (descriptor, len) = (Arc::clone(&file.file), file.len);
    let hash = blocking_io(move || sha256(&descriptor, len)).await;
    hash.map_err(|error| match Error::from(error) {
        Error::Unreadable(why) => Error::Unreadable(format!("{}: {why}", file.path.display())),
        other => other,
    })
}

fn sha256(file: &File, len: u64) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < len {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("cut at {at} of {len} bytes"),
            ));
        }
        digest.update(&buffer[..read]);
        at += read as u64;
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_the_one_of_the_standard_and_a_short_file_is_an_error() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&file, 3).unwrap(), expected);
        assert_eq!(sha256(&file, 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_file_that_the_disk_does_not_give_is_told_from_a_host_that_has_run_out_of_descriptors() {
        // The first page of an address space is never mapped, and the kernel answers with EIO.
        let file = PinnedFile {
            file: Arc::new(fs_err::File::open("/proc/self/mem").unwrap().into_parts().0),
            path: "chunks/000001".into(),
            rel_path: "chunks/000001".into(),
            len: 100,
        };
        match described(&file, true).await {
            Err(Error::Unreadable(why)) => {
                assert!(
                    why.starts_with("chunks/000001: ") && why.contains("os error 5"),
                    "{why}"
                )
            }
            other => panic!("{other:?}"),
        }
        for ours in [23, 24, 12] {
            let error = Error::from(io::Error::from_raw_os_error(ours));
            assert!(matches!(error, Error::Local(_)), "{error}");
        }
    }
}
