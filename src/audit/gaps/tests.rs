use proptest::prelude::*;

use super::*;

const M: i64 = 60_000;
const H: i64 = 60 * M;
/// The start of 2026, and of a slot.
const T: i64 = 1_767_225_600_000;

fn plain(min: i64, max: i64) -> Cover {
    Cover {
        span: Span { min, max },
        downsampled: false,
    }
}

fn downsampled(min: i64, max: i64) -> Cover {
    Cover {
        downsampled: true,
        ..plain(min, max)
    }
}

/// Slots of 2 h as the flags have it, long after `T`.
fn rules() -> Rules {
    Rules {
        slot: 2 * H,
        tolerance: 5 * M,
        seal_delay: 3 * H,
        from: None,
        until: None,
        now: T + 1000 * H,
    }
}

/// A run: from and until (h after `T`), state, missing (min).
type Told = (i64, i64, State, i64);

fn found(covers: &[Cover], rules: Rules) -> Vec<Told> {
    let runs = runs(covers, &rules);
    for run in &runs {
        assert_eq!(run.slots * rules.slot, run.until - run.from);
    }
    let told = runs
        .iter()
        .map(|run| ((run.from - T) / H, (run.until - T) / H, run.state, run.missing / M));
    told.collect()
}

#[test]
fn slots_are_judged_by_what_is_there() {
    use State::*;
    let until = |hours: i64| Rules {
        until: Some(T + hours * H),
        ..rules()
    };
    let table: [(&str, Vec<Cover>, Rules, Vec<Told>); 14] = [
        ("nothing", vec![], until(8), vec![]),
        (
            "all there, the first from its first sample on",
            vec![plain(T + 100 * M, T + 2 * H), plain(T + 2 * H, T + 4 * H)],
            until(4),
            vec![(0, 4, Found, 0)],
        ),
        (
            "a hole of three slots",
            vec![plain(T, T + 2 * H), plain(T + 8 * H, T + 10 * H)],
            until(10),
            vec![(0, 2, Found, 0), (2, 8, Missing, 360), (8, 10, Found, 0)],
        ),
        (
            "five minutes are tolerated, six are not",
            vec![
                plain(T, T + 115 * M),
                plain(T + 2 * H, T + 234 * M),
                plain(T + 4 * H, T + 6 * H),
            ],
            until(6),
            vec![(0, 2, Found, 5), (2, 4, Partial, 6), (4, 6, Found, 0)],
        ),
        (
            "neighbours of one state are one run",
            vec![plain(T, T + H), plain(T + 3 * H, T + 6 * H)],
            until(6),
            vec![(0, 4, Partial, 120), (4, 6, Found, 0)],
        ),
        (
            "many small blocks and overlaps",
            vec![
                plain(T + H, T + 2 * H),
                plain(T, T + 61 * M),
                plain(T + 10 * M, T + 20 * M),
                plain(T, T + 30 * M),
            ],
            until(2),
            vec![(0, 2, Found, 0)],
        ),
        (
            "downsampled blocks",
            vec![
                downsampled(T, T + 48 * H),
                plain(T + 44 * H, T + 46 * H),
                plain(T + 46 * H, T + 47 * H),
            ],
            until(50),
            vec![
                (0, 44, Downsampled, 0),
                (44, 46, Found, 0),
                (46, 48, Downsampled, 0),
                (48, 50, Missing, 120),
            ],
        ),
        (
            "an explicit start before the first block",
            vec![plain(T + 2 * H, T + 4 * H)],
            Rules {
                from: Some(T - 90 * M),
                ..until(4)
            },
            vec![(-2, 2, Missing, 210), (2, 4, Found, 0)],
        ),
        (
            "empty and reversed blocks cover nothing",
            vec![plain(T, T), plain(T + 3 * H, T + H), plain(T + 4 * H, T + 6 * H)],
            until(6),
            vec![(4, 6, Found, 0)],
        ),
        (
            "what may still come",
            vec![plain(T, T + 2 * H), plain(T + 4 * H, T + 5 * H)],
            // The slot that ends at 4 h is due, since its 3 h are over; that which ends at 6 h is not.
            Rules {
                now: T + 7 * H,
                ..until(7)
            },
            vec![(0, 2, Found, 0), (2, 4, Missing, 120), (4, 8, NotSealedYet, 120)],
        ),
        (
            "unless an end is said, the last block is the end, however long ago",
            vec![plain(T + 4 * H, T + 6 * H), plain(T, T + 2 * H)],
            rules(),
            vec![(0, 2, Found, 0), (2, 4, Missing, 120), (4, 6, Found, 0)],
        ),
        (
            "of its slot only what is before its end",
            vec![plain(T, T + 2 * H), plain(T + 2 * H, T + 3 * H)],
            rules(),
            vec![(0, 4, Found, 0)],
        ),
        (
            "a last block that ends in the future",
            vec![plain(T, T + 100 * H)],
            Rules {
                now: T + 3 * H,
                ..rules()
            },
            vec![(0, 4, Found, 0)],
        ),
        (
            "an end before the start",
            vec![plain(T + 4 * H, T + 6 * H)],
            until(2),
            vec![],
        ),
    ];
    for (name, covers, rules, want) in table {
        assert_eq!(found(&covers, rules), want, "{name}");
    }
}

#[test]
fn times_of_no_calendar_cost_nothing() {
    let rules = Rules {
        slot: 1,
        tolerance: 0,
        until: Some(T + 1000 * H),
        ..rules()
    };
    let covers = [plain(i64::MIN, -(1 << 59)), plain(0, 1), plain(i64::MAX - 1, i64::MAX)];
    let found = runs(&covers, &rules);
    let states: Vec<State> = found.iter().map(|run| run.state).collect();
    assert_eq!(
        states,
        [
            State::Found,
            State::Missing,
            State::Found,
            State::Missing,
            State::NotSealedYet
        ]
    );
    let whole = Rules {
        slot: i64::MAX,
        tolerance: i64::MAX,
        seal_delay: i64::MAX,
        now: i64::MAX,
        until: Some(i64::MAX),
        ..rules
    };
    assert_eq!(runs(&covers, &whole).len(), 1);
    for until in [None, Some(i64::MIN)] {
        let past = Rules {
            now: i64::MIN,
            until,
            ..whole
        };
        assert_eq!(runs(&covers, &past), []);
    }
}

/// The state of each slot, found by looking at each moment.
fn naive(covers: &[Cover], rules: &Rules) -> Vec<(i64, State, i64)> {
    let first = covers
        .iter()
        .map(|cover| cover.span)
        .filter(|span| span.min < span.max)
        .map(|span| span.min)
        .min();
    let Some(from) = rules.from.or(first) else {
        return Vec::new();
    };
    let last = covers.iter().map(|cover| cover.span).filter(|span| span.min < span.max);
    let Some(until) = rules.until.or(last.map(|span| span.max.min(rules.now)).max()) else {
        return Vec::new();
    };
    let mut slots = Vec::new();
    let mut start = from.div_euclid(rules.slot) * rules.slot;
    while start < until {
        let moments = (start..start + rules.slot).filter(|t| (from..until).contains(t));
        let (mut due, mut all, mut good) = (0, 0, 0);
        for t in moments {
            let here = covers
                .iter()
                .filter(|cover| (cover.span.min..cover.span.max).contains(&t));
            let kinds: Vec<bool> = here.map(|cover| cover.downsampled).collect();
            due += 1;
            all += i64::from(!kinds.is_empty());
            good += i64::from(kinds.contains(&false));
        }
        let state = if good > 0 && due - good <= rules.tolerance {
            State::Found
        } else if all > 0 && due - all <= rules.tolerance {
            State::Downsampled
        } else if start + rules.slot + rules.seal_delay > rules.now {
            State::NotSealedYet
        } else if all > 0 {
            State::Partial
        } else {
            State::Missing
        };
        slots.push((start, state, due - all));
        start += rules.slot;
    }
    if from >= until { Vec::new() } else { slots }
}

proptest! {
    #[test]
    fn as_each_moment_looked_at(
        blocks in proptest::collection::vec((-30..60_i64, -2..25_i64, any::<bool>()), 0..8),
        (slot, tolerance, seal_delay) in (1..13_i64, 0..5_i64, 0..20_i64),
        (from, until) in (proptest::option::of(-40..70_i64), proptest::option::of(-40..70_i64)),
        now in -20..90_i64,
    ) {
        let covers: Vec<Cover> = blocks
            .into_iter()
            .map(|(min, len, downsampled)| Cover { span: Span { min, max: min + len }, downsampled })
            .collect();
        let rules = Rules { slot, tolerance, seal_delay, from, until, now };
        let runs = runs(&covers, &rules);
        let want = naive(&covers, &rules);
        let mut slots = want.iter();
        for run in &runs {
            let of_run: Vec<_> = slots.by_ref().take(run.slots as usize).collect();
            prop_assert_eq!(of_run.first().map(|slot| slot.0), Some(run.from));
            prop_assert_eq!(run.from + run.slots * slot, run.until);
            prop_assert!(of_run.iter().all(|slot| slot.1 == run.state), "{:?} {:?}", run, of_run);
            prop_assert_eq!(of_run.iter().map(|slot| slot.2).sum::<i64>(), run.missing);
        }
        prop_assert_eq!(slots.next(), None);
        prop_assert!(runs.windows(2).all(|pair| pair[0].state != pair[1].state && pair[0].until == pair[1].from));
    }
}
