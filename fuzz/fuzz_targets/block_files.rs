//! Any bytes as an index, as a chunk segment and as a `meta.json`: found whole or refused, never taken for both lengths.
#![no_main]

use std::sync::atomic::{AtomicBool, AtomicU64};

use libfuzzer_sys::fuzz_target;
use narthex::tsdb::{
    Meta,
    check::full::{self, Options, TOC},
};

fuzz_target!(|data: &[u8]| {
    let options = Options {
        threads: 1,
        sha256: false,
        stop: &AtomicBool::new(false),
        read: &AtomicU64::new(0),
    };
    let len = data.len() as u64;
    let toc = &data[data.len().saturating_sub(TOC as usize)..];
    let index = full::index(len, toc, (0, 1000), data, &options).expect("nothing but memory is read");
    if let Ok((mut facts, digest)) = index {
        let _ = full::name_series(&mut facts, len, toc, data, &options).expect("nothing but memory is read");
        assert_eq!((digest.len, digest.crc32c), (len, crc32c::crc32c(data)));
    }
    let segment = full::segment("chunks/000001", len, data, &options).expect("nothing but memory is read");
    if let Ok((_, digest)) = segment {
        assert_eq!((digest.len, digest.crc32c), (len, crc32c::crc32c(data)));
    }
    if let Ok(meta) = Meta::parse(data) {
        let _ = meta.files();
        assert!(Meta::parse(meta.to_json().as_bytes()).is_ok());
    }
});
