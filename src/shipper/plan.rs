//! What is to be done with each local block, and why: a pure function of what was scanned and what is known.
//!
//! The order of the rules is the contract's (`shipper`, one pass), with one more: a broken block waits for its next check.
//! When a block that is shipped becomes visible is decided at the gate ([`super::gate`]).

use std::{collections::HashMap, fmt, time::Duration};

use crate::{
    shipper::Ledger,
    tsdb::{Block, BlockId},
};

/// How long (wall time) a block that did not arrive by a rename must be left alone before it is committed.
pub const QUIET: Duration = Duration::from_secs(10);

/// What the operator wants shipped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Ship blocks that Prometheus has compacted (level above 1), too.
    pub upload_compacted: bool,
    /// Go on with later blocks when one fails.
    pub allow_out_of_order: bool,
}

/// What is known of single blocks beside the scan.
#[derive(Debug, Default)]
pub struct Facts {
    /// Blocks that are broken or incomplete, and are not yet due to be looked at again.
    pub waiting: HashMap<BlockId, Wait>,
}

/// What happens with one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the bucket.
    Ship,
    /// It is in the ledger: durable.
    Shipped,
    /// It is not for the bucket.
    Skip(Skip),
    /// Not now.
    Wait(Wait),
}

/// Why a block is never shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It holds no sample.
    Empty,
    /// Prometheus compacted it from blocks that are shipped themselves; its level.
    Compacted(u64),
}

/// Why a block is not shipped yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It is broken, for the reason given.
    Quarantined(String),
    /// Something is missing, and it was written to a moment ago: somebody copies it in.
    Arriving(String),
}

/// One block and what becomes of it.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The block.
    pub block: Block,
    /// What happens with it.
    pub verdict: Verdict,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Ship => f.write_str("to be shipped"),
            Verdict::Shipped => f.write_str("durable, in the ledger"),
            Verdict::Skip(Skip::Empty) => f.write_str("skipped: it holds no sample"),
            Verdict::Skip(Skip::Compacted(level)) => {
                write!(
                    f,
                    "skipped: compaction level {level}, and --shipper.upload-compacted is off"
                )
            }
            Verdict::Wait(Wait::Quarantined(reason)) => write!(f, "quarantined: {reason}"),
            Verdict::Wait(Wait::Arriving(missing)) => write!(f, "still arriving: {missing}"),
        }
    }
}

/// Decides about every block of `blocks`, in their order.
pub fn plan(blocks: &[Block], ledger: &Ledger, facts: &Facts, policy: &Policy) -> Vec<Decision> {
    blocks
        .iter()
        .map(|block| Decision {
            block: block.clone(),
            verdict: match (verdict(block, ledger, policy), facts.waiting.get(&block.id)) {
                (Verdict::Ship, Some(wait)) => Verdict::Wait(wait.clone()),
                (verdict, _) => verdict,
            },
        })
        .collect()
}

/// Whether a block is to be in the bucket and is not yet known to be.
pub(super) fn is_wanted(block: &Block, ledger: &Ledger, policy: &Policy) -> bool {
    verdict(block, ledger, policy) == Verdict::Ship
}

fn verdict(block: &Block, ledger: &Ledger, policy: &Policy) -> Verdict {
    if ledger.contains(block.id) {
        return Verdict::Shipped;
    }
    if block.meta.is_empty() {
        return Verdict::Skip(Skip::Empty);
    }
    if block.meta.level > 1 && !policy.upload_compacted {
        return Verdict::Skip(Skip::Compacted(block.meta.level));
    }
    Verdict::Ship
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{model::Labels, tsdb::Meta};

    fn block(n: u32, level: u64, samples: u64) -> Block {
        let id = BlockId::parse(&format!("01K4ABCDEFGHJKMNPQRST{n:05}")).unwrap();
        let meta = format!(
            r#"{{"ulid":"{id}","minTime":{n},"maxTime":{},"stats":{{"numSamples":{samples}}},"compaction":{{"level":{level}}},"version":1}}"#,
            n + 1
        );
        Block {
            id,
            dir: Path::new("data").into(),
            meta: Meta::parse(meta.as_bytes()).unwrap().into(),
        }
    }

    fn one(block: &Block, facts: &Facts, policy: &Policy) -> Verdict {
        let (ledger, _) = Ledger::open("nowhere/thanos.shipper.json".into(), "b", None);
        plan(std::slice::from_ref(block), &ledger, facts, policy)
            .remove(0)
            .verdict
    }

    #[test]
    fn the_first_rule_that_applies_decides() {
        let none = Facts::default();
        let plain = Policy::default();
        let compacted = Policy {
            upload_compacted: true,
            ..plain
        };
        assert_eq!(one(&block(1, 1, 5), &none, &plain), Verdict::Ship);
        assert_eq!(one(&block(1, 1, 0), &none, &plain), Verdict::Skip(Skip::Empty));
        assert_eq!(one(&block(1, 2, 0), &none, &plain), Verdict::Skip(Skip::Empty));
        assert_eq!(one(&block(1, 3, 5), &none, &plain), Verdict::Skip(Skip::Compacted(3)));
        assert_eq!(one(&block(1, 3, 5), &none, &compacted), Verdict::Ship);
    }

    #[test]
    fn a_block_with_series_is_shipped_whatever_its_meta_json_says_of_samples() {
        let mut block = block(1, 1, 0);
        let none = Facts::default();
        assert_eq!(one(&block, &none, &Policy::default()), Verdict::Skip(Skip::Empty));
        let text = r#"{"ulid":"01K4ABCDEFGHJKMNPQRST00001","stats":{"numSeries":1,"numChunks":1},"compaction":{"level":1},"version":1}"#;
        block.meta = Meta::parse(text.as_bytes()).unwrap().into();
        assert_eq!(one(&block, &none, &Policy::default()), Verdict::Ship);
    }

    #[test]
    fn what_the_ledger_lists_is_done_whatever_else_holds() {
        let block = block(1, 3, 0);
        let (mut ledger, _) = Ledger::open("nowhere/thanos.shipper.json".into(), "b", None);
        ledger.record(block.id, &Labels::default(), 0);
        let decisions = plan(&[block], &ledger, &Facts::default(), &Policy::default());
        assert_eq!(decisions[0].verdict, Verdict::Shipped);
    }

    #[test]
    fn broken_blocks_wait_and_others_do_not() {
        let (broken, skipped) = (block(1, 1, 5), block(2, 2, 5));
        let mut facts = Facts::default();
        assert_eq!(one(&broken, &facts, &Policy::default()), Verdict::Ship);
        for block in [&broken, &skipped] {
            facts.waiting.insert(block.id, Wait::Quarantined("index is cut".into()));
        }
        let quarantined = one(&broken, &facts, &Policy::default());
        assert_eq!(quarantined, Verdict::Wait(Wait::Quarantined("index is cut".into())));
        assert_eq!(quarantined.to_string(), "quarantined: index is cut");
        let skipped = one(&skipped, &facts, &Policy::default());
        assert_eq!(
            skipped,
            Verdict::Skip(Skip::Compacted(2)),
            "it is not for the bucket, broken or not"
        );
    }
}
