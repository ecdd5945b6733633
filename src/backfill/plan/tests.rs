//! The rules one by one: what is asked for, whose it is, what is in other blocks, what overlaps.

use super::*;
use crate::tsdb::{Block, Meta};

fn id(n: u32) -> BlockId {
    BlockId::parse(&format!("01K4ABCDEFGHJKMNPQRST{n:05}")).unwrap()
}

/// A block as its `meta.json` has it.
#[derive(Clone, Copy)]
struct Made<'a> {
    n: u32,
    range: (i64, i64),
    level: u64,
    samples: u64,
    sources: &'a [u32],
    labels: &'a [(&'a str, &'a str)],
    resolution: i64,
    files: usize,
}

impl Default for Made<'_> {
    fn default() -> Self {
        Self {
            n: 1,
            range: (0, 100),
            level: 1,
            samples: 5,
            sources: &[],
            labels: &[],
            resolution: 0,
            files: 2,
        }
    }
}

impl Made<'_> {
    fn meta(self) -> Meta {
        let sources: Vec<String> = self.sources.iter().map(|n| id(*n).to_string()).collect();
        let labels: std::collections::BTreeMap<_, _> = self.labels.iter().copied().collect();
        let text = serde_json::json!({
            "ulid": id(self.n).to_string(), "minTime": self.range.0, "maxTime": self.range.1, "version": 1,
            "stats": {"numSamples": self.samples}, "compaction": {"level": self.level, "sources": sources},
            "thanos": {"labels": labels, "downsample": {"resolution": self.resolution}},
        });
        Meta::parse(text.to_string().as_bytes()).unwrap()
    }

    fn item(self) -> Item {
        let meta = self.meta();
        let dir = std::path::Path::new("data").into();
        Item::new(
            Block {
                id: meta.ulid,
                dir,
                meta: meta.into(),
            },
            10,
            self.files,
        )
    }

    fn held(self) -> Entry {
        Entry::from(&self.meta())
    }
}

fn settings() -> Settings {
    Settings {
        path: "data".into(),
        labels: Labels::from_pairs([("cluster", "eu")]),
        accept_label_change: false,
        overlaps: Overlaps::Refuse,
        allow_index_issues: false,
        newer_encodings: Default::default(),
        upload_compacted: true,
        min_time: 0,
        max_time: 1000,
        sha256: false,
        source: "bucket.upload".into(),
        threads: 1,
        full: false,
    }
}

/// What is left of a block after [`select`]: its labels, or why it is not sent.
fn selected(made: Made<'_>, settings: &Settings) -> String {
    let mut items = [made.item()];
    select(&mut items, settings);
    let [item] = items;
    match item.decision {
        Decision::Send(_) => item.labels.to_string(),
        other => format!("{}: {}", other.word(), other.why()),
    }
}

#[test]
fn ranges_are_half_open_and_what_is_not_asked_for_is_left_out() {
    let settings = settings();
    let ranged = |range| {
        selected(
            Made {
                range,
                ..Made::default()
            },
            &settings,
        )
    };
    assert_eq!(ranged((0, 100)), r#"{cluster="eu"}"#);
    assert_eq!(ranged((-100, 1)), r#"{cluster="eu"}"#);
    assert_eq!(ranged((-100, 0)), "left out: it ends before --min-time");
    assert_eq!(ranged((1000, 1100)), r#"{cluster="eu"}"#);
    assert_eq!(ranged((1001, 1100)), "left out: it begins after --max-time");
    let empty = Made {
        samples: 0,
        files: 1,
        ..Made::default()
    };
    assert_eq!(selected(empty, &settings), "left out: it holds no sample");
    let forgetful = Made { files: 2, ..empty };
    assert_eq!(
        selected(forgetful, &settings),
        r#"{cluster="eu"}"#,
        "a block with segments is checked, whatever meta.json says"
    );
    let compacted = Made {
        level: 3,
        ..Made::default()
    };
    assert_eq!(selected(compacted, &settings), r#"{cluster="eu"}"#);
    let plain = Settings {
        upload_compacted: false,
        ..settings.clone()
    };
    assert_eq!(
        selected(compacted, &plain),
        "left out: it was compacted (level 3), and those are not asked for"
    );
}

#[test]
fn labels_of_the_block_stay_and_a_clash_is_refused() {
    let settings = settings();
    let labelled = |labels, settings: &Settings| {
        selected(
            Made {
                labels,
                ..Made::default()
            },
            settings,
        )
    };
    assert_eq!(
        labelled(&[("replica", "a")], &settings),
        r#"{cluster="eu", replica="a"}"#
    );
    assert_eq!(labelled(&[("cluster", "eu")], &settings), r#"{cluster="eu"}"#);
    let clash = labelled(&[("cluster", "us"), ("replica", "a")], &settings);
    assert_eq!(
        clash,
        "refused: it carries the labels {cluster=\"us\", replica=\"a\"} of its own, and cluster=\"eu\" is asked for; drop \
         that label, or give --accept-label-change to replace it"
    );
    let accepting = Settings {
        accept_label_change: true,
        ..settings.clone()
    };
    assert_eq!(
        labelled(&[("cluster", "us"), ("replica", "a")], &accepting),
        r#"{cluster="eu", replica="a"}"#
    );
    let without = Settings {
        labels: Labels::default(),
        ..settings
    };
    assert_eq!(labelled(&[("cluster", "us")], &without), r#"{cluster="us"}"#);
    assert!(labelled(&[], &without).starts_with("refused: it would have no external labels"));
}

const EU: &[(&str, &str)] = &[("cluster", "eu")];

fn all(made: &[Made<'_>]) -> Vec<Item> {
    let mut items: Vec<Item> = made.iter().map(|made| made.item()).collect();
    select(&mut items, &settings());
    items
}

fn words(items: &[Item]) -> Vec<&'static str> {
    items.iter().map(|item| item.decision.word()).collect()
}

#[test]
fn a_block_that_goes_beyond_the_one_with_its_sources_is_no_part_of_it() {
    let merged = Made {
        n: 9,
        sources: &[1, 2],
        level: 2,
        labels: EU,
        range: (0, 90),
        ..Made::default()
    };
    let mut items = all(&[Made::default(), Made { labels: &[], ..merged }]);
    leave_out_parts(&mut items);
    assert_eq!(words(&items), ["send", "send"]);
}

#[test]
fn a_part_of_a_block_that_is_sent_is_left_out() {
    let whole = Made {
        n: 7,
        sources: &[1, 2],
        level: 2,
        ..Made::default()
    };
    let one = Made::default();
    let other = Made {
        n: 3,
        range: (100, 200),
        ..one
    };
    let mut items = all(&[one, Made { n: 2, ..one }, whole, other]);
    leave_out_parts(&mut items);
    assert_eq!(words(&items), ["left out", "left out", "send", "send"]);
    // Two blocks of the same origin: the younger one counts.
    let mut items = all(&[
        Made {
            n: 4,
            sources: &[1],
            ..one
        },
        Made {
            n: 5,
            sources: &[1],
            ..one
        },
    ]);
    leave_out_parts(&mut items);
    assert_eq!(words(&items), ["left out", "send"]);
    // Another resolution is another thing.
    let mut items = all(&[
        one,
        Made {
            resolution: 300_000,
            ..whole
        },
    ]);
    leave_out_parts(&mut items);
    assert_eq!(words(&items), ["send", "send"]);
}

#[test]
fn parts_of_a_block_that_is_refused_are_refused_with_it() {
    let one = Made::default();
    let whole = |n, sources| Made {
        n,
        sources,
        level: 2,
        range: (0, 200),
        ..one
    };
    let second = Made {
        n: 2,
        range: (100, 200),
        ..one
    };
    let mut items = all(&[one, second, whole(7, &[1, 2]), whole(8, &[1, 2])]);
    let held = Made {
        n: 9,
        range: (150, 160),
        labels: EU,
        ..one
    };
    leave_out_parts(&mut items);
    assert_eq!(words(&items), ["left out", "left out", "left out", "send"]);
    assert!(
        items[0].decision.why().contains(&id(8).to_string()),
        "the one that is sent"
    );
    refuse_overlaps(&mut items, &[held.held()], Overlaps::Refuse);
    refuse_parts_of_refused(&mut items);
    assert_eq!(words(&items), ["refused"; 4]);
}

#[test]
fn overlaps_are_refused_on_both_sides_and_touching_is_none() {
    let one = Made::default();
    let made = |n, range| Made { n, range, ..one };
    let mut items = all(&[
        made(1, (0, 100)),
        made(2, (99, 200)),
        made(3, (200, 300)),
        made(4, (300, 400)),
    ]);
    let held = Made {
        n: 8,
        range: (250, 260),
        labels: EU,
        ..one
    };
    let other = Made {
        n: 9,
        range: (300, 400),
        labels: &[("cluster", "us")],
        ..one
    };
    let nearby = [held.held(), other.held()];
    let before = items.clone();
    refuse_overlaps(&mut items, &nearby, Overlaps::Refuse);
    assert_eq!(words(&items), ["refused", "refused", "refused", "send"]);
    assert!(
        items[0]
            .decision
            .why()
            .starts_with(&format!("it overlaps {} here;", id(2)))
    );
    let with_bucket = format!("it overlaps {} of the same labels in the bucket;", id(8));
    assert!(
        items[2].decision.why().starts_with(&with_bucket),
        "{}",
        items[2].decision.why()
    );
    let mut items = before.clone();
    refuse_overlaps(&mut items, &nearby, Overlaps::Send);
    assert_eq!(words(&items), ["send"; 4]);
    assert_eq!(
        items[0].decision,
        Decision::Send(Some(format!("it overlaps {} here", id(2))))
    );
    assert_eq!(items[3].decision, Decision::Send(None));
}

#[test]
fn what_a_compactor_folds_is_no_overlap() {
    let one = Made {
        labels: EU,
        ..Made::default()
    };
    let whole = Made {
        n: 7,
        sources: &[1, 2],
        level: 2,
        range: (0, 200),
        ..one
    };
    for (sent, nearby) in [(whole, one), (one, whole)] {
        let mut items = all(&[sent]);
        refuse_overlaps(&mut items, &[nearby.held()], Overlaps::Refuse);
        assert_eq!(words(&items), ["send"]);
    }
}

#[test]
fn overlaps_within_the_bucket_hide_none_of_ours() {
    let one = Made::default();
    // More pairs than anybody wants to be told of.
    let crowd = (100..300).map(|n| Made { n, labels: EU, ..one }.held());
    let last = Made {
        n: 500,
        range: (900, 1000),
        labels: EU,
        ..one
    };
    let mut items = all(&[
        Made {
            n: 1,
            range: (950, 960),
            ..one
        },
        Made {
            n: 2,
            range: (100, 200),
            ..one
        },
        Made { n: 3, ..one },
    ]);
    refuse_overlaps(
        &mut items,
        &crowd.chain([last.held()]).collect::<Vec<_>>(),
        Overlaps::Refuse,
    );
    assert_eq!(words(&items), ["refused", "send", "refused"]);
    assert!(items[0].decision.why().contains(&id(500).to_string()));
    assert!(items[2].decision.why().contains("and others"));
}

#[test]
fn as_thanos_has_it_only_compacted_blocks_may_not_overlap() {
    let one = Made::default();
    let compacted = Made {
        n: 2,
        level: 2,
        sources: &[5, 6],
        ..one
    };
    let mut items = all(&[one, compacted]);
    refuse_overlaps(&mut items, &[], Overlaps::RefuseCompacted);
    assert_eq!(words(&items), ["send", "refused"]);
}
