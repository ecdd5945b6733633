//! What of the local blocks is durable, and until when: a pure function of what is on disk and what is known of the bucket.
//!
//! **A block is durable** when the ledger lists it or the bucket proved it. One that Prometheus compacted and that is not
//! shipped itself is durable when all its sources are; it only waits with those that are local and on their way; else its
//! samples are on the local disk alone, and it is *open* like every block that is to be shipped. One that names no sources
//! cannot be judged by them, and is open. One without samples has nothing to lose: it is neither.
//!
//! **The time** is the highest end of a durable block, of this run or an earlier one, but no later than the first sample
//! of what is open. So it stays where it was when the newest block alone waits. Blocks that end in the future tell nothing
//! of now, and do not raise it. While a block cannot be read, nobody can tell which time its samples are of: the block is
//! open, and the time does not rise above what was reported before. It is unknown only while no durable block is known, or
//! when a block could not be read from the start. A directory without `meta.json` that was no block as far as was seen is
//! none, and says nothing here: Prometheus does not serve it.
//!
//! Nothing is kept but the time that was reported last and what was open; a restart tells it anew.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use crate::{
    shipper::Ledger,
    tsdb::{Block, BlockId, BlockMeta},
};

/// A block that was read, and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) block: &'a Block,
    pub(super) shipped_as: ShippedAs,
}

/// How the samples of a block get to the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShippedAs {
    /// It is shipped itself, sooner or later.
    Itself,
    /// As those of its sources: it was compacted, and is not shipped.
    Sources,
    /// It has none.
    Empty,
}

/// A block whose samples are not all durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenBlock {
    pub(super) id: BlockId,
    pub(super) why: OpenReason,
}

/// Why a block is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OpenReason {
    /// It has yet to be shipped.
    Unshipped,
    /// It is not shipped, and these of its sources are not known to be durable; none if it names no sources at all.
    Sources(Vec<BlockId>),
    /// It cannot be read.
    Unreadable,
}

/// What one block says of durability.
#[derive(Debug)]
enum BlockDurability {
    Durable,
    Open(OpenReason),
    /// Nothing that others do not say: it has no samples, or waits with its sources.
    Nothing,
}

/// What is durable at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// What is not, in the order of the blocks; those that cannot be read come last.
    pub(super) open: Vec<OpenBlock>,
    /// All samples of local blocks before this time (ms since 1970) are; `None` if nobody can tell.
    pub(super) until: Option<i64>,
    /// The local blocks that are.
    pub(super) durable: HashSet<BlockId>,
}

/// What is known of durability beside the ledger.
#[derive(Debug, Default)]
pub(super) struct Durability {
    /// Blocks, local or not, that the bucket was seen to hold the samples of. Kept small by whoever looks.
    pub(super) proven: BTreeSet<BlockId>,
    /// The time that was reported last.
    reported: Option<i64>,
    /// The blocks that were open last and could be read then or before, and of which blocks they were made.
    open: BTreeMap<BlockId, Arc<BlockMeta>>,
}

impl Durability {
    /// Judges the blocks that could be read and those that could not, at this time (ms since 1970).
    pub(super) fn judge(
        &mut self,
        blocks: &[Candidate<'_>],
        unreadable: impl IntoIterator<Item = BlockId>,
        ledger: &Ledger,
        now: i64,
    ) -> Report {
        let waiting: HashSet<BlockId> = blocks
            .iter()
            .filter(|found| found.shipped_as == ShippedAs::Itself && !self.is_durable(found.block.id, ledger))
            .map(|found| found.block.id)
            .collect();
        let mut highest = ledger.highest().filter(|highest| *highest <= now);
        let (mut open, mut lowest): (Vec<OpenBlock>, Option<i64>) = (Vec::new(), None);
        let mut durable = HashSet::new();
        let was_open = std::mem::take(&mut self.open);
        for found in blocks {
            let (id, meta) = (found.block.id, &found.block.meta);
            match self.standing(found, &waiting, ledger) {
                BlockDurability::Durable => {
                    durable.insert(id);
                    highest = highest.max(Some(meta.max_time).filter(|end| *end <= now));
                }
                BlockDurability::Nothing => {}
                BlockDurability::Open(why) => {
                    lowest = lowest.map_or(Some(meta.min_time), |lowest| Some(lowest.min(meta.min_time)));
                    self.open.insert(id, Arc::clone(meta));
                    open.push(OpenBlock { id, why });
                }
            }
        }
        let unread: Vec<BlockId> = unreadable
            .into_iter()
            .filter(|id| !self.is_durable(*id, ledger))
            .collect();
        let still_known = unread.iter().filter_map(|id| was_open.get_key_value(id));
        self.open.extend(still_known.map(|(id, meta)| (*id, Arc::clone(meta))));
        let until = highest.map(|highest| lowest.map_or(highest, |lowest| highest.min(lowest)));
        self.reported = match unread.is_empty() {
            true => until,
            false => self
                .reported
                .and_then(|reported| until.map(|until| until.min(reported))),
        };
        let why = OpenReason::Unreadable;
        open.extend(unread.into_iter().map(|id| OpenBlock { id, why: why.clone() }));
        Report {
            open,
            until: self.reported,
            durable,
        }
    }

    fn standing(&self, found: &Candidate<'_>, waiting: &HashSet<BlockId>, ledger: &Ledger) -> BlockDurability {
        if self.is_durable(found.block.id, ledger) {
            return BlockDurability::Durable;
        }
        match found.shipped_as {
            ShippedAs::Empty => return BlockDurability::Nothing,
            ShippedAs::Itself => return BlockDurability::Open(OpenReason::Unshipped),
            ShippedAs::Sources => {}
        }
        let sources = &found.block.meta.sources;
        let missing = sources.iter().filter(|source| !self.is_durable(**source, ledger));
        let missing: Vec<BlockId> = missing.copied().collect();
        match missing.is_empty() {
            true if !sources.is_empty() => BlockDurability::Durable,
            // They are open themselves, and begin no earlier.
            false if missing.iter().all(|source| waiting.contains(source)) => BlockDurability::Nothing,
            _ => BlockDurability::Open(OpenReason::Sources(missing)),
        }
    }

    /// Whether the block was open last, and could be read then or before.
    pub(super) fn was_open(&self, id: BlockId) -> bool {
        self.open.contains_key(&id)
    }

    /// The block among `blocks` that Prometheus made of `id`, which was open and is gone: its samples are there.
    pub(super) fn merged_into<'a>(&self, id: BlockId, blocks: impl IntoIterator<Item = &'a Block>) -> Option<BlockId> {
        let itself = vec![id];
        let sources = self
            .open
            .get(&id)
            .map(|meta| &meta.sources)
            .filter(|sources| !sources.is_empty())
            .unwrap_or(&itself);
        let holds = |block: &&Block| block.id != id && sources.iter().all(|source| block.meta.sources.contains(source));
        blocks.into_iter().find(holds).map(|block| block.id)
    }

    fn is_durable(&self, id: BlockId, ledger: &Ledger) -> bool {
        ledger.knows(id) || self.proven.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Labels,
        shipper::testing::{block, numbered as id},
    };

    const NOW: i64 = 10_000;

    /// A ledger that lists these blocks and remembers these sources.
    fn ledger(listed: &[&Block], sources: &[u32]) -> Ledger {
        let (mut ledger, _) = Ledger::open("nowhere/thanos.shipper.json".into(), "b", None);
        for block in listed {
            ledger.record(block.id, &Labels::default(), block.meta.max_time);
        }
        sources.iter().for_each(|n| ledger.record_source(id(*n)));
        ledger
    }

    fn proving(blocks: &[u32]) -> Durability {
        Durability {
            proven: blocks.iter().map(|n| id(*n)).collect(),
            ..Durability::default()
        }
    }

    fn judged(judge: &mut Durability, blocks: &[(&Block, ShippedAs)], unreadable: &[u32], ledger: &Ledger) -> Report {
        let blocks: Vec<Candidate<'_>> = blocks
            .iter()
            .map(|(block, shipped_as)| Candidate {
                block,
                shipped_as: *shipped_as,
            })
            .collect();
        judge.judge(&blocks, unreadable.iter().map(|n| id(*n)), ledger, NOW)
    }

    fn once(blocks: &[(&Block, ShippedAs)], ledger: &Ledger) -> (Vec<(BlockId, OpenReason)>, Option<i64>) {
        let report = judged(&mut Durability::default(), blocks, &[], ledger);
        let open = report.open.into_iter().map(|open| (open.id, open.why)).collect();
        (open, report.until)
    }

    #[test]
    fn what_was_shipped_is_durable_until_the_first_sample_of_what_was_not() {
        let (a, b, c) = (
            block(1, (0, 10), &[1]),
            block(2, (10, 20), &[2]),
            block(3, (20, 30), &[3]),
        );
        let all = [
            (&a, ShippedAs::Itself),
            (&b, ShippedAs::Itself),
            (&c, ShippedAs::Itself),
        ];
        let open = |n: u32| (id(n), OpenReason::Unshipped);
        for (listed, expected) in [
            (vec![&a, &b, &c], (vec![], Some(30))),
            (vec![&a, &b], (vec![open(3)], Some(20))),
            (vec![&a, &c], (vec![open(2)], Some(10))),
            (vec![&b, &c], (vec![open(1)], Some(0))),
            (vec![], (vec![open(1), open(2), open(3)], None)),
        ] {
            assert_eq!(once(&all, &ledger(&listed, &[])), expected, "{listed:?}");
        }
        assert_eq!(once(&[], &ledger(&[], &[])), (vec![], None));
    }

    #[test]
    fn the_time_stays_when_the_newest_block_alone_is_local_and_waits() {
        let (gone, late) = (block(1, (0, 20), &[1]), block(2, (15, 30), &[2]));
        let ledger = ledger(&[&gone], &[]);
        assert_eq!(once(&[], &ledger).1, Some(20));
        assert_eq!(
            once(&[(&late, ShippedAs::Itself)], &ledger).1,
            Some(15),
            "what it holds is not"
        );
        let later = block(3, (25, 30), &[3]);
        assert_eq!(
            once(&[(&later, ShippedAs::Itself)], &ledger).1,
            Some(20),
            "nobody shipped what is between"
        );
    }

    #[test]
    fn a_compacted_block_is_durable_only_when_all_its_sources_are() {
        let (a, merged) = (block(1, (0, 10), &[1]), block(9, (0, 20), &[1, 2]));
        let skipped = [(&merged, ShippedAs::Sources)];
        let open = |missing: &[u32]| vec![(id(9), OpenReason::Sources(missing.iter().map(|n| id(*n)).collect()))];
        for (ledger, expected) in [
            (ledger(&[], &[1, 2]), (vec![], Some(20))),
            (ledger(&[&a], &[2]), (vec![], Some(20))),
            (ledger(&[&a], &[]), (open(&[2]), Some(0))),
            (ledger(&[], &[]), (open(&[1, 2]), None)),
            // Shipped itself, at a time when that was wanted.
            (ledger(&[&merged], &[]), (vec![], Some(20))),
        ] {
            assert_eq!(once(&skipped, &ledger), expected);
        }
    }

    #[test]
    fn what_the_bucket_proved_is_durable_whatever_the_ledger_lacks() {
        let merged = block(9, (0, 20), &[1, 2]);
        let none = ledger(&[], &[]);
        for proven in [vec![9], vec![1, 2]] {
            let mut judge = proving(&proven);
            let report = judged(&mut judge, &[(&merged, ShippedAs::Sources)], &[], &none);
            assert_eq!((report.open, report.until), (vec![], Some(20)), "{proven:?}");
        }
        let report = judged(&mut proving(&[5]), &[], &[5], &none);
        assert_eq!(report.open, [], "even if it cannot be read");
    }

    #[test]
    fn a_compacted_block_waits_with_its_sources_that_are_on_their_way() {
        let (a, merged) = (block(1, (0, 10), &[1]), block(9, (0, 20), &[1, 2]));
        let blocks = [(&a, ShippedAs::Itself), (&merged, ShippedAs::Sources)];
        let known = ledger(&[], &[2]);
        assert_eq!(once(&blocks, &known).0, [(id(1), OpenReason::Unshipped)]);
        // One of them is gone: nothing on its way helps.
        let both = OpenReason::Sources(vec![id(1), id(2)]);
        let expected = [(id(1), OpenReason::Unshipped), (id(9), both)];
        assert_eq!(once(&blocks, &ledger(&[], &[])).0, expected);
    }

    #[test]
    fn an_open_block_that_was_compacted_however_often_is_found_in_the_larger_one() {
        let (a, merged) = (block(1, (0, 10), &[1]), block(8, (0, 20), &[1, 2]));
        let mut judge = Durability::default();
        let none = ledger(&[], &[]);
        judged(
            &mut judge,
            &[(&a, ShippedAs::Itself), (&merged, ShippedAs::Sources)],
            &[],
            &none,
        );
        let (larger, other) = (block(9, (0, 30), &[1, 2, 3]), block(7, (0, 30), &[1, 3]));
        assert_eq!(judge.merged_into(id(1), &[merged]), Some(id(8)));
        assert_eq!(judge.merged_into(id(8), &[other.clone(), larger]), Some(id(9)));
        assert_eq!(judge.merged_into(id(8), &[other]), None);
        let nameless = block(6, (0, 10), &[]);
        judged(&mut judge, &[(&nameless, ShippedAs::Sources)], &[], &none);
        assert_eq!(judge.merged_into(id(6), &[a]), None);
    }

    #[test]
    fn a_compacted_block_that_names_no_sources_or_itself_is_open_and_one_without_samples_is_nothing() {
        let durable = block(1, (0, 30), &[1]);
        let known = ledger(&[&durable], &[]);
        let nameless = block(9, (10, 20), &[]);
        let expected = (vec![(id(9), OpenReason::Sources(vec![]))], Some(10));
        assert_eq!(once(&[(&nameless, ShippedAs::Sources)], &known), expected);
        let selfish = block(9, (10, 20), &[9]);
        assert_eq!(once(&[(&selfish, ShippedAs::Sources)], &known).1, Some(10));
        assert_eq!(once(&[(&nameless, ShippedAs::Empty)], &known), (vec![], Some(30)));
        assert_eq!(
            once(&[(&nameless, ShippedAs::Empty)], &ledger(&[], &[])),
            (vec![], None)
        );
    }

    #[test]
    fn a_block_that_ends_in_the_future_raises_nothing_and_an_open_one_holds_all_the_same() {
        let (old, future) = (block(1, (0, 20), &[1]), block(2, (0, i64::MAX), &[2]));
        assert_eq!(
            once(
                &[(&old, ShippedAs::Itself), (&future, ShippedAs::Itself)],
                &ledger(&[&old, &future], &[])
            )
            .1,
            Some(20)
        );
        assert_eq!(
            once(
                &[(&old, ShippedAs::Itself), (&future, ShippedAs::Itself)],
                &ledger(&[&old], &[])
            )
            .1,
            Some(0)
        );
    }

    #[test]
    fn an_open_block_that_cannot_be_read_any_more_is_known_for_what_it_was() {
        let (a, merged) = (block(1, (0, 10), &[1]), block(9, (0, 20), &[1, 2]));
        let mut judge = Durability::default();
        let none = ledger(&[], &[]);
        judged(&mut judge, &[(&a, ShippedAs::Itself)], &[], &none);
        for _ in 0..2 {
            assert!(judge.was_open(id(1)));
            judged(&mut judge, &[], &[1], &none);
        }
        assert_eq!(judge.merged_into(id(1), &[merged]), Some(id(9)));
        judged(&mut judge, &[], &[], &none);
        assert!(!judge.was_open(id(1)), "it is gone");
    }

    #[test]
    fn the_time_stands_still_while_a_block_cannot_be_read_and_may_fall() {
        let (a, b) = (block(1, (0, 10), &[1]), block(2, (10, 20), &[2]));
        let mut judge = Durability::default();
        let one = ledger(&[&a], &[]);
        let two = ledger(&[&a, &b], &[]);
        assert_eq!(
            judged(&mut judge, &[(&a, ShippedAs::Itself)], &[], &one).until,
            Some(10)
        );
        let both = [(&a, ShippedAs::Itself), (&b, ShippedAs::Itself)];
        let report = judged(&mut judge, &both, &[3], &two);
        assert_eq!(report.until, Some(10), "it does not rise");
        assert_eq!(
            report.open,
            [OpenBlock {
                id: id(3),
                why: OpenReason::Unreadable
            }]
        );
        assert!(!judge.was_open(id(3)), "nobody has read it");
        let early = block(4, (5, 6), &[4]);
        assert_eq!(
            judged(&mut judge, &[(&early, ShippedAs::Itself)], &[3], &two).until,
            Some(5)
        );
        assert_eq!(judged(&mut judge, &both, &[], &two).until, Some(20), "it was mended");
        // Nothing was reported before: nobody can tell.
        assert_eq!(judged(&mut Durability::default(), &both, &[3], &two).until, None);
        // A durable block that cannot be read any more holds nothing.
        assert_eq!(
            judged(&mut Durability::default(), &[(&b, ShippedAs::Itself)], &[1], &two).until,
            Some(20)
        );
    }
}
