//! Any samples as an XOR chunk: they come back bit by bit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narthex::chunk::xor;

fuzz_target!(|samples: Vec<(i64, u64)>| {
    if samples.len() > usize::from(u16::MAX) {
        return;
    }
    let floats = samples.iter().map(|(time, bits)| (*time, f64::from_bits(*bits)));
    let data = xor::encode(floats).expect("there are not too many");
    let read: Result<Vec<_>, _> = xor::decode(&data)
        .map(|sample| sample.map(|(time, value)| (time, value.to_bits())))
        .collect();
    assert_eq!(read, Ok(samples));
});
