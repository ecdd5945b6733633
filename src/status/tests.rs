//! What is said of a status as a whole.

use super::{Block, Prometheus, Shipping, Status, Tone, Upload, Verdict, page::page, text::text};

fn block(id: &str, state: &str) -> Block {
    Block {
        id: id.to_owned(),
        state: state.to_owned(),
        ..Block::default()
    }
}

fn shipping(blocks: Vec<Block>) -> Status {
    Status {
        time_ms: 1_000_000,
        shipping: Shipping {
            state: "on".to_owned(),
            looked_at_ms: Some(1),
            not_durable: blocks.iter().filter(|block| block.is_open()).count(),
            blocks,
            ..Shipping::default()
        },
        ..Status::default()
    }
}

#[test]
fn the_verdict_is_the_worst_that_holds() {
    let durable = || block("a", "durable");
    let with = |change: &dyn Fn(&mut Shipping)| {
        let mut status = shipping(vec![durable(), block("b", "due")]);
        change(&mut status.shipping);
        status.verdict()
    };
    let moving = |rate: f64| Upload {
        bytes_per_second: rate,
        ..Upload::default()
    };
    assert_eq!(shipping(vec![durable()]).verdict(), Verdict::Safe);
    assert_eq!(
        shipping(vec![durable(), block("b", "merged"), block("c", "empty")]).verdict(),
        Verdict::Safe
    );
    assert_eq!(shipping(vec![]).verdict(), Verdict::NoBlocks);
    assert_eq!(with(&|_| {}), Verdict::Busy);
    assert_eq!(with(&|shipping| shipping.looked_at_ms = None), Verdict::Starting);
    let fails = |shipping: &mut Shipping| shipping.failure = Some("403".to_owned());
    assert_eq!(with(&fails), Verdict::Failing);
    // What failed before is over once bytes move again.
    for (rate, verdict) in [(0.0, Verdict::Failing), (1.0, Verdict::Busy)] {
        let found = with(&|shipping| {
            fails(shipping);
            shipping.uploads = vec![moving(rate)];
        });
        assert_eq!(found, verdict, "{rate}");
    }
    assert_eq!(
        with(&|shipping| shipping.blocks.push(block("c", "held_up"))),
        Verdict::Failing
    );
    let attention = with(&|shipping| {
        fails(shipping);
        shipping.need_attention = 1;
    });
    assert_eq!((attention, attention.tone()), (Verdict::AtRisk, Tone::Bad));
    assert_eq!(
        with(&|shipping| shipping.state = "not_configured".to_owned()),
        Verdict::Off
    );
    let empty = with(&|shipping| shipping.state = "empty_configuration".to_owned());
    assert_eq!((empty, empty.tone()), (Verdict::Misconfigured, Tone::Warning));
}

#[test]
fn what_is_urgent_comes_first_in_every_form() {
    let near = Block {
        near_deletion: true,
        deletion_ms: Some(1_540_000),
        held: true,
        ..block("near", "due")
    };
    let later = Block {
        deletion_ms: Some(9_000_000_000),
        ..block("later", "due")
    };
    let blocks = vec![
        block("old", "durable"),
        later,
        near,
        block("broken", "set_aside"),
        block("new", "durable"),
    ];
    let status = shipping(blocks);
    let order: Vec<&str> = status.blocks_by_urgency().iter().map(|block| &*block.id).collect();
    assert_eq!(order, ["near", "broken", "later", "new", "old"]);
    let text = text(&status, false);
    assert!(
        text.contains("deleted, held open; deleted by retention in 9m\n"),
        "{text}"
    );
    let page = page(&status);
    assert!(
        page.contains("deleted by retention in 9m<") && !page.contains("in 104d"),
        "{page}"
    );
}

#[test]
fn no_more_blocks_are_printed_than_anybody_reads_and_the_rest_is_counted() {
    let mut status = shipping((0..30).map(|n| block(&format!("block-{n}"), "due")).collect());
    (status.shipping.more_blocks, status.shipping.more_not_durable) = (4_000, 3_990);
    let text = text(&status, false);
    assert_eq!(text.matches("block-").count(), 20);
    assert!(text.contains("and 4,000 more that are not durable"), "{text}");
    let page = page(&status);
    assert!(
        page.contains("And 4,000 more, of which 3,990 are not durable."),
        "{page}"
    );
}

#[test]
fn no_value_of_any_kind_is_too_much() {
    for extreme in [i64::MIN, -1, 0, i64::MAX] {
        let odd = Block {
            min_time_ms: Some(extreme),
            max_time_ms: Some(extreme.wrapping_add(1)),
            deletion_ms: Some(extreme),
            near_deletion: true,
            bytes: Some(u64::MAX),
            samples: Some(u64::MAX),
            seal_to_durable_seconds: Some(f64::NAN),
            ..block("<script>\u{1b}[31m", "<b>odd</b>")
        };
        let mut status = shipping(vec![odd, Block::default()]);
        status.shipping.durable_until_ms = Some(extreme);
        status.shipping.uploads = vec![Upload {
            total_bytes: u64::MAX,
            sent_bytes: u64::MAX,
            bytes_per_second: f64::INFINITY,
            ..Upload::default()
        }];
        status.prometheus = Prometheus {
            lowest_time_ms: Some(extreme),
            head_min_time_ms: Some(extreme),
            retention_ms: Some(extreme),
            ..Prometheus::default()
        };
        for now in [i64::MIN, 0, i64::MAX] {
            status.time_ms = now;
            let (page, text) = (page(&status), text(&status, false));
            assert!(!page.contains("<script>") && !page.contains("<b>odd"), "{page}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }
}
