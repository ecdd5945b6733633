//! The time as a function of what is known.

use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3_600_000;
/// When it is.
const NOW: i64 = 100 * HOUR;

fn circumstances() -> Circumstances {
    Circumstances {
        now: NOW,
        margin: 3 * HOUR,
        ..Circumstances::default()
    }
}

/// A block of these hours that the bucket has since that hour.
fn proven(from: i64, until: i64, since: i64) -> Known {
    known(from, until, true, Some(since * HOUR))
}

/// A block of these hours that was durable once.
fn lost(from: i64, until: i64) -> Known {
    known(from, until, true, None)
}

fn known(from: i64, until: i64, has_all: bool, in_bucket_since: Option<i64>) -> Known {
    Known {
        range: (from * HOUR, until * HOUR),
        standing: Standing::Durable {
            has_all,
            in_bucket_since,
        },
    }
}

fn open(from: i64, until: i64) -> Known {
    Known {
        range: (from * HOUR, until * HOUR),
        standing: Standing::Open,
    }
}

/// In hours.
fn served_from(blocks: &[Known], circumstances: Circumstances) -> Option<i64> {
    let from = circumstances.served_from(blocks)?;
    assert_eq!(from % HOUR, 0);
    Some(from / HOUR)
}

#[test]
fn it_is_a_margin_before_the_end_of_what_is_durable_and_what_is_open() {
    for (blocks, want) in [
        (vec![], None),
        (vec![open(90, 92)], None),
        (vec![proven(90, 92, 93)], Some(89)),
        (
            vec![proven(90, 92, 93), proven(92, 94, 95), proven(94, 96, 97)],
            Some(93),
        ),
        // What lies after it needs no proof.
        (vec![proven(90, 92, 93), lost(94, 96)], Some(93)),
        (vec![proven(90, 92, 93), open(92, 94)], Some(89)),
        (vec![open(90, 92), proven(92, 94, 95)], Some(87)),
        // An old one that has just come.
        (vec![proven(90, 92, 93), proven(92, 94, 95), open(10, 12)], Some(7)),
        // By a clock that was wrong.
        (vec![proven(90, 92, 93), proven(120, 122, 93)], Some(89)),
        (vec![proven(120, 122, 93)], None),
        (vec![proven(80, 92, 93), open(120, 122)], Some(89)),
    ] {
        assert_eq!(served_from(&blocks, circumstances()), want, "{blocks:?}");
    }
}

#[test]
fn what_the_bucket_has_lost_is_served_with_a_margin_before_it() {
    let all = [
        proven(80, 82, 83),
        proven(82, 84, 85),
        proven(84, 86, 87),
        proven(94, 96, 97),
    ];
    assert_eq!(served_from(&all, circumstances()), Some(93));
    for (gone, want) in [(0, 77), (1, 79), (2, 81)] {
        let mut blocks = all.clone();
        blocks[gone].standing = Standing::Durable {
            has_all: true,
            in_bucket_since: None,
        };
        assert_eq!(served_from(&blocks, circumstances()), Some(want));
        blocks.reverse();
        assert_eq!(served_from(&blocks, circumstances()), Some(want), "in whatever order");
    }
}

#[test]
fn what_reached_the_bucket_less_than_the_margin_ago_is_served() {
    // The bucket was out of reach, and all is sent within minutes.
    let sent = |hour| {
        [
            proven(70, 72, 73),
            proven(72, 74, hour),
            proven(74, 76, hour),
            proven(94, 96, hour),
        ]
    };
    assert_eq!(served_from(&sent(99), circumstances()), Some(72));
    assert_eq!(served_from(&sent(98), circumstances()), Some(72));
    assert_eq!(served_from(&sent(97), circumstances()), Some(93));
    let future = [proven(72, 74, 120), proven(94, 96, 97)];
    assert_eq!(
        served_from(&future, circumstances()),
        Some(72),
        "by a clock that is ahead"
    );
}

#[test]
fn what_the_head_may_hold_is_served() {
    let blocks = [proven(80, 92, 93), proven(92, 94, 95)];
    let with = |change: fn(&mut Circumstances)| {
        let mut circumstances = circumstances();
        change(&mut circumstances);
        served_from(&blocks, circumstances)
    };
    assert_eq!(with(|_| {}), Some(91));
    assert_eq!(with(|now| now.head_from = Some(94 * HOUR)), Some(91));
    assert_eq!(
        with(|now| now.head_from = Some(92 * HOUR)),
        Some(89),
        "it is not emptied yet"
    );
    assert_eq!(
        served_from(
            &[proven(80, 92, 93)],
            Circumstances {
                head_from: Some(i64::MAX),
                ..circumstances()
            }
        ),
        Some(89)
    );
    // So old a sample may come at any moment.
    assert_eq!(with(|now| now.out_of_order_window = 24 * HOUR), Some(67));
    let late = [proven(80, 92, 93), known(94, 96, false, Some(97 * HOUR))];
    assert_eq!(
        served_from(&late, circumstances()),
        Some(89),
        "others of these times are in the head"
    );
    assert_eq!(served_from(&late[1..], circumstances()), None);
}

#[test]
fn what_lies_outside_of_time_is_no_panic() {
    for range in [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (i64::MIN, i64::MIN), (0, 0)] {
        for in_bucket_since in [None, Some(i64::MIN), Some(i64::MAX)] {
            let block = Known {
                range,
                standing: Standing::Durable {
                    has_all: true,
                    in_bucket_since,
                },
            };
            let circumstances = Circumstances {
                now: NOW,
                margin: i64::MAX,
                out_of_order_window: i64::MAX,
                head_from: Some(i64::MIN),
            };
            assert_eq!(
                circumstances.served_from(std::slice::from_ref(&block)),
                (range.1 <= NOW).then_some(i64::MIN)
            );
        }
    }
}

fn any_block() -> impl Strategy<Value = Known> {
    let standing = prop_oneof![
        Just(Standing::Open),
        (any::<bool>(), prop::option::of(60_i64..110)).prop_map(|(has_all, since)| Standing::Durable {
            has_all,
            in_bucket_since: since.map(|since| since * HOUR),
        }),
    ];
    (0_i64..105, 1_i64..6, standing).prop_map(|(from, length, standing)| Known {
        range: (from * HOUR, (from + length) * HOUR),
        standing,
    })
}

proptest! {
    /// Each promise apart: no sample is left to the bucket that it is not proven to have for long enough.
    #[test]
    fn never_is_a_sample_left_to_a_bucket_that_may_lack_it(
        blocks in prop::collection::vec(any_block(), 0..8),
        margin in 0_i64..10,
        window in 0_i64..10,
        head in prop::option::of(60_i64..105),
    ) {
        let circumstances = Circumstances {
            now: NOW,
            margin: margin * HOUR,
            out_of_order_window: window * HOUR,
            head_from: head.map(|head| head * HOUR),
        };
        let Some(from) = circumstances.served_from(&blocks) else {
            let raises = |block: &&Known| matches!(block.standing, Standing::Durable { has_all: true, .. });
            prop_assert!(!blocks.iter().filter(raises).any(|block| block.range.1 <= NOW));
            return Ok(());
        };
        let overlap = (margin + window) * HOUR;
        prop_assert!(from <= NOW - overlap);
        prop_assert!(head.is_none_or(|head| from <= head * HOUR - overlap));
        for block in &blocks {
            let (start, _) = block.range;
            match block.standing {
                Standing::Open => prop_assert!(from <= start - overlap),
                Standing::Durable { in_bucket_since: None, .. } => prop_assert!(from <= start),
                Standing::Durable { in_bucket_since: Some(since), .. } => {
                    prop_assert!(from <= start || since + margin * HOUR <= NOW);
                }
            }
        }
    }
}
