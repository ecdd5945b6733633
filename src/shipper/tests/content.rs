//! Kinds of content of what is shipped.

use super::*;
use crate::{shipper::NewerEncodings, tsdb::content::Kind};

#[tokio::test(start_paused = true)]
async fn each_block_is_counted_once_for_each_of_its_kinds() {
    let mut world = World::new().await;
    world.content.newer_encodings = NewerEncodings::Ship;
    let mut shipper = world.shipper();
    let (plain, odd) = (Made::new(&name(1), 0), Made::new(&name(2), 5));
    world.seal(&mut shipper, &plain);
    // Of samples that came out of order, with chunks in a newer encoding and in one that nobody knows.
    let dir = world.seal(&mut shipper, &odd);
    let meta = odd
        .meta()
        .replace(r#""level":1"#, r#""level":1,"hints":["from-out-of-order"]"#);
    fs_err::write(dir.join("meta.json"), meta).unwrap();
    let segment = dir.join(CHUNKS);
    let mut bytes = fs_err::read(&segment).unwrap();
    let mut at = 8;
    for encoding in [4_u8, 99] {
        let len = usize::from(bytes[at]);
        bytes[at + 1] = encoding;
        let end = at + 2 + len;
        let sum = crc32c::crc32c(&bytes[at + 1..end]).to_be_bytes();
        bytes[end..end + 4].copy_from_slice(&sum);
        at = end + 4;
    }
    fs_err::write(segment, bytes).unwrap();
    world
        .bucket
        .on(Op::Upload, "meta.json", 1..=1, Fault::Fail(ErrorKind::Server));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    for _ in 0..2 {
        assert_eq!(shipper.pass().await, Outcome::Clean);
    }
    assert_eq!(world.listed(), [plain.name, odd.name]);
    let counted: Vec<(&str, u64)> = Kind::ALL
        .iter()
        .map(|kind| (kind.as_str(), world.metrics.content(*kind)))
        .collect();
    assert_eq!(
        counted,
        [
            ("plain", 1),
            ("newer_encodings", 1),
            ("unknown_encodings", 1),
            ("out_of_order", 1),
            ("stale_series", 0),
            ("rewritten_after_deletion", 0),
            ("overlapping", 1),
        ]
    );
}
