//! Any bytes as a chunk of every encoding: read to its end or refused, and rewritten only into what can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narthex::chunk::{for_storeapi, histogram, xor, xor2};

fn read(encoding: i32, data: &[u8]) -> Result<usize, narthex::chunk::Error> {
    match encoding {
        0 => xor::decode(data).try_fold(0, |count, sample| sample.map(|_| count + 1)),
        1 => histogram::decode(data, histogram::Kind::Integer).try_fold(0, |count, sample| sample.map(|_| count + 1)),
        _ => histogram::decode(data, histogram::Kind::Float).try_fold(0, |count, sample| sample.map(|_| count + 1)),
    }
}

fuzz_target!(|data: &[u8]| {
    for encoding in 0..3 {
        let _ = read(encoding, data);
    }
    let floats = xor2::decode(data).try_fold(0, |count, sample| sample.map(|_| count + 1));
    for number in -1..8 {
        match for_storeapi(number, data) {
            Ok((encoding, Some(rewritten))) => {
                let count = read(encoding, &rewritten).expect("what is written can be read");
                if number == 4 {
                    assert_eq!(Ok(count), floats);
                }
            }
            Ok((encoding, None)) => assert_eq!(encoding, number - 1),
            Err(_) => {}
        }
    }
});
