//! Where on one line of time the head, the sealed blocks, what is durable and what retention leaves lie: pure geometry, in parts
//! of the whole.

use super::{Status, Tone, tone_of};

/// A stretch of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stretch {
    /// Where it begins, from 0 to 100.
    pub(super) from: f64,
    /// How long it is.
    pub(super) length: f64,
    pub(super) tone: Tone,
    /// What it is, for whoever points at it.
    pub(super) what: String,
}

impl Stretch {
    /// Whether it is to be told apart from its neighbours.
    pub(super) fn is_apart(&self) -> bool {
        self.length >= THIN
    }
}

/// The stretches in their order; those that are too short to be told apart are joined.
fn joined(stretches: impl Iterator<Item = Stretch>) -> Vec<Stretch> {
    let mut joined: Vec<(Stretch, usize)> = Vec::new();
    for next in stretches {
        match joined.last_mut() {
            Some((last, number))
                if last.tone == next.tone
                    && next.length < THIN
                    && (*number > 1 || last.length < THIN)
                    && next.from - (last.from + last.length) <= GAP =>
            {
                last.length = (next.from + next.length - last.from).max(last.length);
                *number += 1;
            }
            _ => joined.push((next, 1)),
        }
    }
    let described = joined.into_iter().map(|(stretch, number)| match number {
        1 => stretch,
        _ => Stretch {
            what: format!("{number} blocks"),
            ..stretch
        },
    });
    described.collect()
}

/// The line: rows of the same time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timeline {
    /// Its beginning (ms since 1970).
    pub(super) begin_ms: i64,
    /// Its end: now, or the end of the newest block if that is later.
    pub(super) end_ms: i64,
    /// What Prometheus still has in its head.
    pub(super) head: Option<Stretch>,
    /// The sealed blocks.
    pub(super) blocks: Vec<Stretch>,
    /// What is in the bucket.
    pub(super) durable: Option<Stretch>,
    /// What is on the local disk only.
    pub(super) at_risk: Option<Stretch>,
    /// What retention keeps.
    pub(super) kept: Option<Stretch>,
}

/// A line is no shorter than this.
const LEAST_MS: i64 = 60_000;
/// A stretch that is shorter than this part of the line is drawn as one with its neighbour.
const THIN: f64 = 0.6;
/// Two stretches are neighbours if there is no more than this between them.
const GAP: f64 = 0.2;

impl Timeline {
    /// `None` while nothing is known that has a time.
    pub(super) fn new(status: &Status) -> Option<Self> {
        let (prometheus, shipping, now) = (&status.prometheus, &status.shipping, status.time_ms);
        let begins = shipping.blocks.iter().filter_map(|block| block.min_time_ms);
        let ends = shipping.blocks.iter().filter_map(|block| block.max_time_ms);
        let held = [prometheus.lowest_time_ms, prometheus.head_min_time_ms];
        let begin_ms = begins
            .chain(held.into_iter().flatten())
            .min()?
            .min(now.saturating_sub(LEAST_MS));
        let end_ms = ends.chain([now]).max().unwrap_or(now);
        let scale = Scale { begin_ms, end_ms };
        let blocks = shipping.blocks.iter().filter_map(|block| {
            let what = format!("{} · {}", block.id, block.state.replace('_', " "));
            let (from, to) = (block.min_time_ms?, block.max_time_ms?);
            Some(scale.stretch(from, to, tone_of(&block.state), what))
        });
        let blocks = joined(blocks);
        let durable = shipping.durable_until_ms.filter(|until| *until > begin_ms);
        let whole = |from: i64, to: i64, tone, what: &str| scale.stretch(from, to, tone, what.to_owned());
        let open = shipping.blocks.iter().filter(|block| block.is_open());
        let open = open
            .filter_map(|block| block.min_time_ms)
            .chain(prometheus.head_min_time_ms)
            .min();
        let kept = prometheus
            .retention_ms
            .map(|kept| now.saturating_sub(kept).max(begin_ms));
        Some(Self {
            begin_ms,
            end_ms,
            head: prometheus
                .head_min_time_ms
                .map(|from| whole(from, now, Tone::Neutral, "head: in memory and in the write-ahead log")),
            blocks,
            durable: durable.map(|until| whole(begin_ms, until, Tone::Good, "in the bucket")),
            at_risk: shipping.is_on().then(|| {
                let from = open.or(durable).unwrap_or(begin_ms);
                whole(
                    from,
                    now,
                    Tone::Warning,
                    "on this disk only: the head, and blocks on their way",
                )
            }),
            kept: kept.map(|from| whole(from, now, Tone::Neutral, "kept by the retention of Prometheus")),
        })
    }
}

#[derive(Clone, Copy)]
struct Scale {
    begin_ms: i64,
    end_ms: i64,
}

impl Scale {
    fn at(self, ms: i64) -> f64 {
        let (from, whole) = (
            ms.saturating_sub(self.begin_ms),
            self.end_ms.saturating_sub(self.begin_ms),
        );
        (100.0 * from as f64 / whole as f64).clamp(0.0, 100.0)
    }

    fn stretch(self, from_ms: i64, to_ms: i64, tone: Tone, what: String) -> Stretch {
        let (from, to) = (self.at(from_ms), self.at(to_ms));
        let length = (to - from).max(0.0);
        Stretch {
            from,
            length,
            tone,
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Block, Prometheus, Shipping};

    fn block(from: i64, to: i64, state: &str) -> Block {
        Block {
            min_time_ms: Some(from),
            max_time_ms: Some(to),
            state: state.to_owned(),
            ..Block::default()
        }
    }

    fn status(blocks: Vec<Block>) -> Status {
        Status {
            time_ms: 2_000_000,
            prometheus: Prometheus {
                head_min_time_ms: Some(1_600_000),
                lowest_time_ms: Some(1_000_000),
                retention_ms: Some(500_000),
                ..Prometheus::default()
            },
            shipping: Shipping {
                state: "on".to_owned(),
                durable_until_ms: Some(1_300_000),
                blocks,
                ..Shipping::default()
            },
            ..Status::default()
        }
    }

    fn place(stretch: &Stretch) -> (f64, f64) {
        (stretch.from, stretch.length)
    }

    #[test]
    fn everything_lies_on_one_line_from_the_oldest_sample_to_now() {
        let line = Timeline::new(&status(vec![
            block(1_000_000, 1_300_000, "durable"),
            block(1_300_000, 1_600_000, "set_aside"),
        ]));
        let line = line.unwrap();
        assert_eq!((line.begin_ms, line.end_ms), (1_000_000, 2_000_000));
        assert_eq!(
            line.blocks.iter().map(place).collect::<Vec<_>>(),
            [(0.0, 30.0), (30.0, 30.0)]
        );
        assert_eq!(
            line.blocks.iter().map(|block| block.tone).collect::<Vec<_>>(),
            [Tone::Good, Tone::Bad]
        );
        // What is open begins at 1,300,000.
        let rest = [line.head, line.durable, line.at_risk, line.kept].map(|stretch| place(&stretch.unwrap()));
        assert_eq!(rest, [(60.0, 40.0), (0.0, 30.0), (30.0, 70.0), (50.0, 50.0)]);
    }

    #[test]
    fn blocks_that_are_too_short_to_be_told_apart_are_one_unless_they_differ() {
        let thin = |n: i64, state| block(1_000_000 + 2_000 * n, 1_002_000 + 2_000 * n, state);
        let mut blocks: Vec<Block> = (0..50).map(|n| thin(n, "durable")).collect();
        blocks.push(thin(50, "set_aside"));
        blocks.push(thin(51, "durable"));
        blocks.push(thin(80, "durable"));
        let line = Timeline::new(&status(blocks)).unwrap();
        let found: Vec<_> = line
            .blocks
            .iter()
            .map(|stretch| (stretch.from, stretch.tone, &*stretch.what))
            .collect();
        let at = |place: f64| found.iter().find(|(from, ..)| (from - place).abs() < 0.01).unwrap();
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!((at(0.0).1, at(0.0).2), (Tone::Good, "50 blocks"));
        assert_eq!(
            (at(10.0).1, at(10.2).1, at(16.0).1),
            (Tone::Bad, Tone::Good, Tone::Good)
        );
        assert!((line.blocks[0].length - 10.0).abs() < 0.01);
    }

    #[test]
    fn without_a_time_there_is_no_line_and_odd_times_stay_on_it() {
        assert_eq!(Timeline::new(&Status::default()), None);
        let mut odd = status(vec![
            block(i64::MIN, i64::MAX, "due"),
            block(5, 4, "due"),
            Block::default(),
        ]);
        odd.prometheus.head_min_time_ms = Some(i64::MAX);
        let line = Timeline::new(&odd).unwrap();
        let all = line.blocks.iter().chain(&line.head).chain(&line.at_risk);
        for stretch in all {
            assert!(
                (0.0..=100.0).contains(&stretch.from) && (0.0..=100.0).contains(&stretch.length),
                "{stretch:?}"
            );
        }
    }
}
