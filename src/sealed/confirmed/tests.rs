use std::time::Duration;

use super::{
    super::testing::{IN_ORDER, WINDOW, block, confirmed, id, listing, told, unreadable},
    *,
};

/// The blocks that are confirmed: those that are known and that the head does not reach into; or why nothing is.
fn good(confirmed: &Confirmed) -> Result<Vec<BlockId>, Reason> {
    let agreed = confirmed.agreed()?;
    let good = agreed.blocks.iter().filter(|(_, known)| !known.overlaps_head);
    Ok(good.map(|(id, _)| *id).collect())
}

/// Three blocks of two hours, of which the first begins as its first sample does.
fn three(at: Instant) -> Listing {
    const HOUR: i64 = 3_600_000;
    let blocks = vec![
        block(1, 1_795_865_004_219, 2 * HOUR + 1_795_860_000_000, &[]),
        block(2, 2 * HOUR + 1_795_860_000_000, 4 * HOUR + 1_795_860_000_000, &[]),
        block(3, 4 * HOUR + 1_795_860_000_000, 6 * HOUR + 1_795_860_000_000, &[]),
    ];
    listing(at, blocks)
}

const LOWEST: i64 = 1_795_865_004_000;
const END: i64 = 1_795_860_000_000 + 6 * 3_600_000;

#[tokio::test(start_paused = true)]
async fn all_that_agrees_confirms_what_ends_before_the_head() {
    let three = three(Instant::now());
    for (head_min, count) in [(i64::MAX, 3), (END + 1, 3), (END, 3), (END - 1, 2), (LOWEST, 0)] {
        let found = good(&confirmed(&three, LOWEST, head_min)).unwrap();
        assert_eq!(found, [id(1), id(2), id(3)][..count], "{head_min}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_differs_or_is_not_told_confirms_nothing_and_ends_what_was_confirmed_where_it_matters() {
    let at = Instant::now();
    let three = three(at);
    let fine = told(at, 3, LOWEST, END);
    let stays = || Ok(vec![id(1), id(2), id(3)]);
    for (evidence, from_nothing, afterwards) in [
        (fine, stays(), stays()),
        (
            Evidence {
                blocks_loaded: Some(2),
                ..fine
            },
            Err(Reason::Differs),
            Err(Reason::Differs),
        ),
        (
            Evidence {
                blocks_loaded: Some(4),
                ..fine
            },
            Err(Reason::Differs),
            Err(Reason::Differs),
        ),
        (
            Evidence {
                blocks_loaded: None,
                ..fine
            },
            Err(Reason::Unknown),
            Err(Reason::Unknown),
        ),
        (
            Evidence {
                lowest_time_ms: Some(LOWEST - 1000),
                ..fine
            },
            Err(Reason::Differs),
            Err(Reason::Differs),
        ),
        (
            Evidence {
                lowest_time_ms: Some(i64::MIN),
                ..fine
            },
            Err(Reason::Differs),
            Err(Reason::Differs),
        ),
        (
            Evidence {
                lowest_time_ms: None,
                ..fine
            },
            Err(Reason::Unknown),
            Err(Reason::Unknown),
        ),
        (
            Evidence {
                blocks_bytes: Some(299),
                ..fine
            },
            Err(Reason::Differs),
            stays(),
        ),
        (
            Evidence {
                blocks_bytes: None,
                ..fine
            },
            Err(Reason::Unknown),
            stays(),
        ),
        (
            Evidence {
                head_min_time_ms: None,
                ..fine
            },
            Err(Reason::Unknown),
            stays(),
        ),
        // The head reaches into a block, whatever the bytes are.
        (
            Evidence {
                blocks_bytes: Some(7),
                head_min_time_ms: Some(END - 1),
                ..fine
            },
            Err(Reason::Differs),
            Ok(vec![id(1), id(2)]),
        ),
    ] {
        let mut new = Confirmed::default();
        new.heartbeat(&evidence, &IN_ORDER, Some(&three));
        assert_eq!(good(&new), from_nothing, "{evidence:?}");
        let mut known = confirmed(&three, LOWEST, END);
        known.heartbeat(&evidence, &IN_ORDER, Some(&three));
        assert_eq!(good(&known), afterwards, "{evidence:?}");
        // No listing that is old enough: nothing changes.
        let (mut new, mut known) = (Confirmed::default(), confirmed(&three, LOWEST, END));
        let late = Listing {
            made_at: evidence.asked_at + Duration::from_millis(1),
            ..three.clone()
        };
        for listing in [None, Some(&late)] {
            new.heartbeat(&evidence, &IN_ORDER, listing);
            known.heartbeat(&evidence, &IN_ORDER, listing);
            assert_eq!(
                (good(&new), good(&known)),
                (Err(Reason::Unknown), stays()),
                "{evidence:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_agrees_again_replaces_what_was_known() {
    let at = Instant::now();
    let mut three = three(at);
    let mut known = confirmed(&three, LOWEST, END);
    three.corrupt.push(unreadable(9));
    three.blocks.remove(0);
    known.heartbeat(&told(at, 2, 1_795_867_200_000, END), &IN_ORDER, Some(&three));
    assert_eq!(good(&known), Ok(vec![id(2), id(3)]));
    assert!(known.agreed().unwrap().unreadable.contains(&id(9)), "it is not counted");
    known.forget();
    assert_eq!(
        (good(&known), known.out_of_order_limit_ms()),
        (Err(Reason::Unknown), None)
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_compacted_or_is_to_be_deleted_does_not_count() {
    let at = Instant::now();
    let mut blocks = vec![
        block(1, 0, 10_000, &[]),
        block(2, 10_000, 20_000, &[]),
        block(3, 0, 20_000, &[1, 2]),
        // Made of one that was made of others, which are there still.
        block(4, 20_000, 30_000, &[]),
        block(5, 20_000, 30_000, &[4]),
        block(6, 20_000, 30_000, &[5, 77]),
    ];
    let text = format!(
        r#"{{"ulid":"{}","minTime":30000,"maxTime":40000,"version":1,"compaction":{{"deletable":true}}}}"#,
        id(7)
    );
    let mut emptied = block(7, 30_000, 40_000, &[]);
    emptied.block.meta = crate::tsdb::Meta::parse(text.as_bytes()).unwrap().into();
    blocks.push(emptied);
    blocks.reverse();
    let all = listing(at, blocks);
    let mut known = Confirmed::default();
    // All within the same second are the oldest time.
    known.heartbeat(&told(at, 2, 999, 40_000), &IN_ORDER, Some(&all));
    assert_eq!(good(&known), Ok(vec![id(3), id(6)]));
}

#[tokio::test(start_paused = true)]
async fn without_blocks_there_is_nothing_to_confirm() {
    let at = Instant::now();
    let none = listing(at, Vec::new());
    assert_eq!(good(&confirmed(&none, i64::MIN, i64::MAX)), Ok(Vec::new()));
    let mut other = Confirmed::default();
    other.heartbeat(&told(at, 1, 0, 0), &IN_ORDER, Some(&none));
    assert_eq!(good(&other), Err(Reason::Differs));
}

#[test]
fn the_evidence_is_what_the_snapshot_says() {
    let unknown = Snapshot::unknown("");
    assert_eq!(Evidence::of(&unknown), None);
    let asked = Snapshot {
        storage_asked_at: Some(Instant::now()),
        ..unknown
    };
    let evidence = Evidence::of(&asked).unwrap();
    assert_eq!(
        (evidence.lowest_time_ms, evidence.blocks_loaded),
        (None, None),
        "0 is not told"
    );
    let at = asked.storage_asked_at.unwrap();
    let telling = Snapshot {
        lowest_time_ms: LOWEST,
        head_min_time_ms: Some(END),
        head_max_time_ms: Some(END + WINDOW),
        blocks_loaded: Some(3),
        blocks_bytes: Some(300),
        ..asked
    };
    let want = Evidence {
        asked_at: at,
        ..told(at, 3, LOWEST, END)
    };
    assert_eq!(Evidence::of(&telling), Some(want));
}
