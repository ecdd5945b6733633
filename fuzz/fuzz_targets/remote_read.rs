//! Any bytes as the body of a remote-read answer, torn anywhere: frames, labels and order come out whole or are refused.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use narthex::{
    prometheus::remote_read::{frames::FrameReader, wire},
    storeapi::series::{encode::OutSeries, order::{Labelled, Order}},
};

fuzz_target!(|input: (u8, &[u8])| {
    let (size, body) = (usize::from(input.0).max(1), input.1);
    let (mut reader, mut order) = (FrameReader::default(), Order::new(b"m"));
    for piece in body.chunks(size) {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.next() {
                Ok(Some(payload)) => take(&payload, &mut order),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let _ = reader.finish();
    // What has no frame around it is read, too: checksums keep a fuzzer out.
    take(&Bytes::copy_from_slice(body), &mut order);
    order.finish();
    let mut last = None;
    while let Ok(Some(placed)) = order.next() {
        let labels = Labelled::labels(&placed.series).clone();
        assert!(last.is_none_or(|last| last <= labels));
        last = Some(labels);
    }
});

fn take(payload: &Bytes, order: &mut Order<OutSeries>) {
    let Ok(frame) = wire::parse(payload) else { return };
    for series in frame.series {
        let names: Vec<&[u8]> = series.labels.iter().map(|(name, _)| name).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        let _ = order.push(OutSeries::new(series.labels, Vec::new()));
    }
}
