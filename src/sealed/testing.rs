//! Listings by hand.

use std::time::Duration;

use tokio::time::Instant;

use super::{BlockFacts, Confirmed, Evidence, Listed, Listing, OutOfOrder, Wbl};
use crate::tsdb::{Block, BlockId, Corrupt, FileVersion, Meta, Reason};

/// An out-of-order window, which is long beside all times in tests (ms).
pub(super) const WINDOW: i64 = 3_600_000;

/// A name; that of 0 is the one that is nothing but zeros.
pub(super) fn id(number: u64) -> BlockId {
    BlockId::first_at(number)
}

/// A block that nothing speaks against, with the range `min..max`, of 100 bytes and made of the `parents`.
pub(super) fn block(number: u64, min: i64, max: i64, parents: &[u64]) -> Listed {
    let parents: Vec<_> = parents
        .iter()
        .map(|parent| serde_json::json!({"ulid": id(*parent).to_string()}))
        .collect();
    let meta = serde_json::json!({
        "ulid": id(number).to_string(), "minTime": min, "maxTime": max, "version": 1,
        "compaction": {"level": 1, "parents": parents},
    });
    Listed {
        block: Block {
            id: id(number),
            dir: std::path::Path::new("/data").into(),
            meta: Meta::parse(meta.to_string().as_bytes()).unwrap().into(),
        },
        facts: BlockFacts {
            bytes_total: 100,
            has_tombstones: false,
            index_version: Some(2),
            quarantined: false,
            files: [FileVersion::numbered(number), FileVersion::numbered(1000 + number)].into(),
        },
    }
}

pub(super) fn listing(at: Instant, blocks: Vec<Listed>) -> Listing {
    Listing {
        made_at: at,
        blocks,
        corrupt: Vec::new(),
    }
}

pub(super) fn unreadable(number: u64) -> Corrupt {
    Corrupt {
        id: id(number),
        reason: Reason::Meta,
        detail: "meta.json is no JSON".to_owned(),
    }
}

/// What Prometheus tells that has loaded `blocks` blocks of 100 bytes from `lowest` on and whose head begins at `head_min`.
pub(super) fn told(at: Instant, blocks: u64, lowest: i64, head_min: i64) -> Evidence {
    Evidence {
        asked_at: at + Duration::from_secs(1),
        blocks_loaded: Some(blocks),
        lowest_time_ms: Some(lowest),
        blocks_bytes: Some(100 * blocks),
        head_min_time_ms: Some(head_min),
        head_max_time_ms: Some(head_min.saturating_add(WINDOW)),
    }
}

/// There is nothing out of order.
pub(super) const IN_ORDER: OutOfOrder = OutOfOrder {
    window_ms: Some(0),
    wbl: Some(Wbl::Empty),
};

/// What is confirmed when Prometheus has loaded just what is listed.
pub(super) fn confirmed(listing: &Listing, lowest: i64, head_min: i64) -> Confirmed {
    let mut confirmed = Confirmed::default();
    let blocks = listing.blocks.len() as u64;
    confirmed.heartbeat(
        &told(listing.made_at, blocks, lowest, head_min),
        &IN_ORDER,
        Some(listing),
    );
    confirmed
}
