//! The rules one by one: what is asked for, whose it is, what is in other blocks, what overlaps.

use super::{super::holdings::Namesake, *};
use crate::tsdb::Block;

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
        let dir = "data".into();
        Item::new(
            Block {
                id: meta.ulid,
                dir,
                meta,
            },
            10,
            self.files,
        )
    }

    fn held(self) -> Held {
        Held::new(&self.meta())
    }
}

fn settings() -> Settings {
    Settings {
        path: "data".into(),
        labels: Labels::from_pairs([("cluster", "eu")]),
        accept_label_change: false,
        overlaps: Overlaps::Refuse,
        upload_compacted: true,
        min_time: 0,
        max_time: 1000,
        sha256: false,
        source: "bucket.upload".into(),
        threads: 1,
        full: false,
    }
}

/// What is left of a block after [`sift`]: its labels, or why it is not sent.
fn sifted(made: Made<'_>, settings: &Settings) -> String {
    let mut items = [made.item()];
    sift(&mut items, settings);
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
        sifted(
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
    assert_eq!(sifted(empty, &settings), "left out: it holds no sample");
    let forgetful = Made { files: 2, ..empty };
    assert_eq!(
        sifted(forgetful, &settings),
        r#"{cluster="eu"}"#,
        "a block with segments is checked, whatever meta.json says"
    );
    let compacted = Made {
        level: 3,
        ..Made::default()
    };
    assert_eq!(sifted(compacted, &settings), r#"{cluster="eu"}"#);
    let plain = Settings {
        upload_compacted: false,
        ..settings.clone()
    };
    assert_eq!(
        sifted(compacted, &plain),
        "left out: it was compacted (level 3), and those are not asked for"
    );
}

#[test]
fn labels_of_the_block_stay_and_a_clash_is_refused() {
    let settings = settings();
    let labelled = |labels, settings: &Settings| {
        sifted(
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
    sift(&mut items, &settings());
    items
}

fn holding(held: Vec<Held>) -> Holdings {
    Holdings {
        held,
        ..Holdings::default()
    }
}

fn words(items: &[Item]) -> Vec<&'static str> {
    items.iter().map(|item| item.decision.word()).collect()
}

#[test]
fn what_the_compactor_merged_or_has_not_yet_merged_is_there() {
    let merged = Made {
        n: 9,
        sources: &[1, 2],
        level: 2,
        labels: EU,
        ..Made::default()
    };
    let after = |made: Made<'_>, held: Vec<Held>| {
        let mut items = all(&[made]);
        pass_over_merged(&mut items, &holding(held));
        items[0].decision.clone()
    };
    let one = Made::default();
    let there = Decision::There(format!("what it was made of is in the bucket in {}", id(9)));
    assert_eq!(after(one, vec![merged.held()]), there);
    assert_eq!(after(Made { n: 3, ..one }, vec![merged.held()]), Decision::Send(None));
    let marked = Held {
        marked: true,
        ..merged.held()
    };
    assert_eq!(after(one, vec![marked]), Decision::Send(None), "it is to be deleted");
    let downsampled = Made {
        resolution: 300_000,
        ..merged
    };
    assert_eq!(after(one, vec![downsampled.held()]), Decision::Send(None));
    let local = Made {
        n: 7,
        sources: &[1, 2],
        level: 2,
        ..one
    };
    let parts = |n| Made { n, labels: EU, ..one }.held();
    assert_eq!(after(local, vec![parts(1), parts(2)]).word(), "there");
    assert_eq!(after(local, vec![parts(1)]), Decision::Send(None), "only half of it");
}

#[test]
fn what_is_merged_under_other_labels_is_refused_unless_a_replica_was_dropped() {
    let merged = |labels| {
        Made {
            n: 9,
            sources: &[1, 2],
            level: 2,
            labels,
            ..Made::default()
        }
        .held()
    };
    let mine = Made {
        labels: &[("replica", "a")],
        ..Made::default()
    };
    let after = |held: Vec<Held>| {
        let mut items = all(&[mine]);
        pass_over_merged(&mut items, &holding(held));
        items[0].decision.clone()
    };
    // As compactors that merge replicas leave it.
    assert_eq!(after(vec![merged(EU)]).word(), "there");
    let decision = after(vec![merged(&[("cluster", "us"), ("replica", "a")])]);
    assert_eq!(decision.word(), "refused");
    assert!(
        decision.why().contains(r#"{cluster="us", replica="a"}"#) && decision.why().contains(&id(9).to_string()),
        "{}",
        decision.why()
    );
    let both = vec![merged(EU), merged(&[("cluster", "us")])];
    assert_eq!(after(both).word(), "there");
}

#[test]
fn a_block_that_goes_beyond_the_one_with_its_sources_is_not_there() {
    let merged = Made {
        n: 9,
        sources: &[1, 2],
        level: 2,
        labels: EU,
        range: (0, 90),
        ..Made::default()
    };
    let mut items = all(&[Made::default()]);
    pass_over_merged(&mut items, &holding(vec![merged.held()]));
    assert_eq!(words(&items), ["send"]);
    let mut items = all(&[Made::default(), Made { labels: &[], ..merged }]);
    pass_over_parts(&mut items);
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
    pass_over_parts(&mut items);
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
    pass_over_parts(&mut items);
    assert_eq!(words(&items), ["left out", "send"]);
    // Another resolution is another thing.
    let mut items = all(&[
        one,
        Made {
            resolution: 300_000,
            ..whole
        },
    ]);
    pass_over_parts(&mut items);
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
    let parts = pass_over_parts(&mut items);
    assert_eq!(words(&items), ["left out", "left out", "left out", "send"]);
    assert!(
        items[0].decision.why().contains(&id(8).to_string()),
        "the one that is sent"
    );
    refuse_overlaps(&mut items, &holding(vec![held.held()]), Overlaps::Refuse);
    follow(&mut items, &parts);
    assert_eq!(words(&items), ["refused"; 4]);
}

#[test]
fn a_block_under_its_own_name_counts_unless_it_is_to_be_deleted() {
    let own = Made {
        labels: EU,
        ..Made::default()
    };
    let merged = Made {
        n: 9,
        sources: &[1, 2],
        level: 2,
        ..own
    };
    for (marked, want) in [(false, "send"), (true, "there")] {
        let own_held = Held { marked, ..own.held() };
        let holdings = Holdings {
            held: vec![own_held, merged.held()],
            namesakes: [(id(1), Namesake::Block(Box::new(own.meta())))].into(),
        };
        let mut items = all(&[own]);
        pass_over_merged(&mut items, &holdings);
        assert_eq!(words(&items), [want]);
    }
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
    let holdings = holding(vec![held.held(), other.held()]);
    let before = items.clone();
    refuse_overlaps(&mut items, &holdings, Overlaps::Refuse);
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
    refuse_overlaps(&mut items, &holdings, Overlaps::Send);
    assert_eq!(words(&items), ["send"; 4]);
    assert_eq!(
        items[0].decision,
        Decision::Send(Some(format!("it overlaps {} here", id(2))))
    );
    assert_eq!(items[3].decision, Decision::Send(None));
    let marked = holding(vec![Held {
        marked: true,
        ..held.held()
    }]);
    let mut items = before;
    refuse_overlaps(&mut items, &marked, Overlaps::Refuse);
    assert_eq!(words(&items), ["refused", "refused", "send", "send"]);
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
        &holding(crowd.chain([last.held()]).collect()),
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
    refuse_overlaps(&mut items, &Holdings::default(), Overlaps::RefuseCompacted);
    assert_eq!(words(&items), ["send", "refused"]);
}
