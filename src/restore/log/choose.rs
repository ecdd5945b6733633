//! What of a log is brought back; pure.

use crate::wal::{
    chain::{Chain, Part},
    layout::{Checkpoint, Generation, Manifest, Piece},
};

/// What there is of a log.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its generation.
    pub generation: Generation,
    /// What is known of it.
    pub manifest: Manifest,
    /// The pieces of `wal/`.
    pub wal: Vec<Piece>,
    /// The pieces of `wbl/`.
    pub wbl: Vec<Piece>,
}

/// Older gaps between blocks are not those of a log.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Which times are in blocks of the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InBlocks {
    /// Where the last of them ends (ms since 1970), if there are any.
    pub end_ms: Option<i64>,
    /// Times between them that are in none, each as long as half a block at least, from the first to the second (ms since 1970).
    gaps_ms: Vec<(i64, i64)>,
}

impl InBlocks {
    /// Those of blocks with these beginnings and ends (ms since 1970).
    pub fn of(mut ranges_ms: Vec<(i64, i64)>) -> Self {
        ranges_ms.sort_unstable();
        let (mut end, mut gaps_ms) = (None, Vec::new());
        for (from, until) in ranges_ms {
            // Blocks begin with their first sample, so that short times are in none.
            if let Some(end) = end.filter(|end| from.saturating_sub(*end) > until.saturating_sub(from) / 2) {
                gaps_ms.push((end, from));
            }
            end = end.max(Some(until));
        }
        Self { end_ms: end, gaps_ms }
    }
}

/// What the log begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Its first segment.
    Beginning,
    /// A checkpoint.
    Checkpoint(Checkpoint),
}

/// What is brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Of which generation.
    pub generation: Generation,
    /// What it begins with.
    pub start: Start,
    /// The parts of `wal/` behind it.
    pub wal: Vec<Part>,
    /// The parts of `wbl/`.
    pub wbl: Vec<Part>,
    /// What Prometheus had taken at this time (ms since 1970) is there.
    pub reaches_ms: i64,
    /// Samples before this time (ms since 1970) are in blocks of the bucket, and are not to be sealed again.
    pub blocks_end_ms: Option<i64>,
    /// The log lacks samples from the first to the second time (ms since 1970), and no block has them as far as is known.
    pub missing_ms: Option<(i64, i64)>,
    /// It is not known whether it lacks anything: it was never sent to its end, or begins with a checkpoint of which nothing tells
    /// what it lacks.
    pub is_uncertain: bool,
    /// Times of the last day before the end of the blocks that are in none of them (ms since 1970): what the log has of them is
    /// not replayed, since it would be sealed together with what is in later blocks.
    pub left_out_ms: Vec<(i64, i64)>,
    /// Pieces that cannot be used, as something before them is missing.
    pub beyond: usize,
}

/// Why a generation is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Its beginning never reached the bucket whole, or is gone.
    NotWhole,
    /// It begins after the time that is asked for (ms since 1970).
    Later(i64),
    /// It lacks samples from the first to the second time (ms since 1970), and reaches to the last; another one lacks nothing.
    Lacks((i64, i64), i64),
    /// It was begun and did not reach the end of the log, only this time (ms since 1970); an older one has more.
    Begun(i64),
    /// All that it has is in blocks: it reaches to the first time (ms since 1970), they to the second.
    InBlocks(i64, i64),
}

/// Chooses what of a log is brought back, until the time `until_ms` if one is given. The blocks of the bucket with the labels
/// of the log have these times.
///
/// # Errors
/// The log is of no use.
pub fn choose(found: &Found, blocks: &InBlocks, until_ms: Option<i64>) -> Result<Choice, Unusable> {
    // The manifest tells of blocks that a compactor has merged with those of other replicas since.
    let blocks_end_ms = blocks.end_ms.max(found.manifest.durable_until_ms);
    let until_ms = until_ms.unwrap_or(i64::MAX);
    let (start, chain) = start(found, blocks_end_ms, until_ms)?;
    let wal = chain.until(until_ms);
    let reaches_ms = wal.last().ok_or(Unusable::NotWhole)?.piece.read_ms;
    if let Some(end_ms) = blocks_end_ms.filter(|end_ms| *end_ms >= reaches_ms) {
        return Err(Unusable::InBlocks(reaches_ms, end_ms));
    }
    let wbl = found
        .manifest
        .first_wbl_segment
        .map(|first| Chain::from(&found.wbl, first));
    let wbl_beyond = wbl.as_ref().map_or(0, |chain| chain.beyond);
    let wbl = wbl.as_ref().map_or(&[][..], |chain| chain.until(until_ms));
    Ok(Choice {
        generation: found.generation.clone(),
        missing_ms: missing(&start, blocks_end_ms),
        is_uncertain: found.manifest.caught_up_ms.is_none() || tells_nothing(&start),
        start,
        wal: wal.to_vec(),
        wbl: wbl.to_vec(),
        reaches_ms,
        blocks_end_ms,
        left_out_ms: blocks
            .gaps_ms
            .iter()
            .copied()
            .filter(|(_, until)| *until > reaches_ms.saturating_sub(DAY_MS))
            .collect(),
        beyond: chain.beyond + wbl_beyond,
    })
}

/// The newest beginning, not after `until_ms`, that lacks nothing but what is in blocks; or else the one that lacks least.
fn start(found: &Found, blocks_end_ms: Option<i64>, until_ms: i64) -> Result<(Start, Chain), Unusable> {
    let checkpoints = found.manifest.checkpoints.iter().map(|checkpoint| {
        let chain = Chain::from(&found.wal, checkpoint.number.saturating_add(1));
        (Start::Checkpoint(checkpoint.clone()), chain)
    });
    let beginning = (found.manifest.first_segment == 0).then(|| (Start::Beginning, Chain::from(&found.wal, 0)));
    let mut starts: Vec<(Start, Chain)> = beginning.into_iter().chain(checkpoints).collect();
    starts.retain(|(_, chain)| !chain.parts.is_empty());
    let begins_ms = |chain: &Chain| chain.parts.first().map_or(i64::MAX, |part| part.piece.read_ms);
    let Some(earliest_ms) = starts.iter().map(|(_, chain)| begins_ms(chain)).min() else {
        return Err(Unusable::NotWhole);
    };
    starts.retain(|(_, chain)| begins_ms(chain) <= until_ms);
    let lacks_nothing = |start: &Start| match start {
        Start::Beginning => true,
        Start::Checkpoint(checkpoint) => checkpoint.lacks_only_what_is_before(blocks_end_ms),
    };
    let best = starts.iter().rposition(|(start, _)| lacks_nothing(start)).unwrap_or(0);
    match starts.is_empty() {
        true => Err(Unusable::Later(earliest_ms)),
        false => Ok(starts.swap_remove(best)),
    }
}

fn tells_nothing(start: &Start) -> bool {
    matches!(start, Start::Checkpoint(checkpoint) if checkpoint.samples_from_ms.is_none())
}

fn missing(start: &Start, blocks_end_ms: Option<i64>) -> Option<(i64, i64)> {
    match start {
        Start::Checkpoint(Checkpoint {
            samples_from_ms: Some(from_ms),
            ..
        }) => {
            let end_ms = blocks_end_ms.unwrap_or(i64::MIN);
            (*from_ms > end_ms).then_some((end_ms, *from_ms))
        }
        Start::Checkpoint(_) | Start::Beginning => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Labels,
        wal::layout::{Identity, Manifest, Piece},
    };

    /// A log with a piece for each of the segments, read at 1000 times the number of its end.
    fn found(first: u64, checkpoints: &[(u64, Option<i64>)], segments: &[u64]) -> Found {
        let labels = Labels::from_pairs([("replica", "a")]);
        let mut manifest = Manifest::begin(&labels, 0, 1_000);
        manifest.first_segment = first;
        manifest.checkpoints = checkpoints
            .iter()
            .map(|(number, samples_from_ms)| Checkpoint {
                number: *number,
                seen_ms: 0,
                samples_from_ms: *samples_from_ms,
                files: Vec::new(),
            })
            .collect();
        let piece = |segment: &u64| Piece {
            position: segment * 10,
            segment: *segment,
            offset: 0,
            len: 10,
            read_ms: (*segment as i64 + 1) * 1000,
            crc: 0,
        };
        Found {
            generation: Generation::begin(Identity::of(&labels), None, 0, 0),
            manifest,
            wal: segments.iter().map(piece).collect(),
            wbl: Vec::new(),
        }
    }

    fn until(end_ms: Option<i64>) -> InBlocks {
        InBlocks::of(end_ms.map(|end| (0, end)).into_iter().collect())
    }

    fn begins(choice: &Choice) -> (Option<u64>, u64) {
        let checkpoint = match &choice.start {
            Start::Beginning => None,
            Start::Checkpoint(checkpoint) => Some(checkpoint.number),
        };
        (checkpoint, choice.wal[0].piece.segment)
    }

    const THREE: [(u64, Option<i64>); 3] = [(1, Some(100)), (3, Some(200)), (5, Some(300))];

    #[test]
    fn the_newest_checkpoint_is_taken_that_lacks_only_what_the_bucket_has() {
        let log = found(0, &THREE, &[0, 1, 2, 3, 4, 5, 6, 7]);
        for (blocks_end, expected) in [
            (Some(300), (Some(5), 6)),
            (Some(1_000), (Some(5), 6)),
            // The block up to 300 was sealed, and did not reach the bucket.
            (Some(299), (Some(3), 4)),
            (Some(200), (Some(3), 4)),
            (Some(150), (Some(1), 2)),
            (Some(99), (None, 0)),
            (None, (None, 0)),
        ] {
            let choice = choose(&log, &until(blocks_end), None).unwrap();
            assert_eq!((begins(&choice), choice.missing_ms), (expected, None), "{blocks_end:?}");
            assert_eq!((choice.reaches_ms, choice.blocks_end_ms), (8_000, blocks_end));
        }
    }

    #[test]
    fn where_nothing_has_all_the_least_is_missing_and_named() {
        let log = found(2, &THREE, &[2, 3, 4, 5, 6, 7]);
        let choice = choose(&log, &until(Some(50)), None).unwrap();
        assert_eq!((begins(&choice), choice.missing_ms), ((Some(1), 2), Some((50, 100))));
        // What followed upon the first checkpoint is gone.
        let log = found(2, &THREE, &[4, 5, 6, 7]);
        let choice = choose(&log, &until(Some(50)), None).unwrap();
        assert_eq!((begins(&choice), choice.missing_ms), ((Some(3), 4), Some((50, 200))));
    }

    #[test]
    fn a_checkpoint_of_which_it_is_not_known_what_it_lacks_is_the_last_choice() {
        let log = found(0, &[(1, None)], &[0, 1, 2, 3]);
        assert_eq!(begins(&choose(&log, &until(Some(900)), None).unwrap()), (None, 0));
        let mut log = found(2, &[(1, None)], &[2, 3]);
        log.manifest.caught_up_ms = Some(1);
        let choice = choose(&log, &until(Some(900)), None).unwrap();
        assert_eq!((begins(&choice), choice.is_uncertain), ((Some(1), 2), true));
    }

    #[test]
    fn what_the_manifest_knows_of_blocks_counts_as_well() {
        let mut log = found(0, &THREE, &[0, 1, 2, 3, 4, 5, 6, 7]);
        log.manifest.durable_until_ms = Some(200);
        let choice = choose(&log, &until(Some(150)), None).unwrap();
        assert_eq!((begins(&choice), choice.blocks_end_ms), ((Some(3), 4), Some(200)));
        assert!(choice.is_uncertain, "it was never sent to its end");
        log.manifest.caught_up_ms = Some(1);
        assert!(!choose(&log, &until(Some(150)), None).unwrap().is_uncertain);
    }

    #[test]
    fn a_log_that_is_not_whole_or_of_no_use_is_not_taken() {
        assert_eq!(
            choose(&found(6, &[], &[6, 7]), &until(None), None),
            Err(Unusable::NotWhole)
        );
        assert_eq!(
            choose(&found(6, &[(5, Some(1))], &[7]), &until(None), None),
            Err(Unusable::NotWhole)
        );
        assert_eq!(choose(&found(0, &[], &[]), &until(None), None), Err(Unusable::NotWhole));
        let log = found(0, &[], &[0, 1]);
        assert_eq!(
            choose(&log, &until(Some(2_000)), None),
            Err(Unusable::InBlocks(2_000, 2_000))
        );
        assert!(choose(&log, &until(Some(1_999)), None).is_ok());
        assert_eq!(choose(&log, &until(None), Some(999)), Err(Unusable::Later(1_000)));
    }

    #[test]
    fn a_block_that_is_missing_between_others_is_named() {
        let hour = |hour: i64| hour * 3_600_000;
        // Each begins a little late, with its first sample.
        let block = |from: i64, until: i64| (hour(from) + 15_000, hour(until));
        let blocks = InBlocks::of(vec![block(6, 8), block(0, 2), block(2, 4), block(8, 10)]);
        assert_eq!(
            (blocks.end_ms, &*blocks.gaps_ms),
            (Some(hour(10)), &[(hour(4), hour(6) + 15_000)][..])
        );
        // A merged one covers others.
        let merged = InBlocks::of(vec![block(0, 8), block(2, 4), block(8, 10)]);
        assert_eq!(merged.gaps_ms, []);
        let mut log = found(0, &[], &[0, 1]);
        for (piece, read_ms) in log.wal.iter_mut().zip([hour(9), hour(11)]) {
            piece.read_ms = read_ms;
        }
        assert_eq!(choose(&log, &blocks, None).unwrap().left_out_ms, blocks.gaps_ms);
        log.wal[1].read_ms = hour(40);
        assert_eq!(choose(&log, &blocks, None).unwrap().left_out_ms, []);
    }

    #[test]
    fn up_to_a_time_the_log_ends_there() {
        let log = found(0, &[], &[0, 1, 2, 3]);
        let choice = choose(&log, &until(None), Some(2_500)).unwrap();
        assert_eq!((choice.wal.len(), choice.reaches_ms), (3, 3_000));
        // The checkpoint was made later.
        let log = found(0, &[(1, Some(100))], &[0, 1, 2, 3]);
        assert_eq!(
            begins(&choose(&log, &until(Some(500)), Some(2_000)).unwrap()),
            (None, 0)
        );
        assert_eq!(
            begins(&choose(&log, &until(Some(500)), Some(3_000)).unwrap()),
            (Some(1), 2)
        );
    }
}
