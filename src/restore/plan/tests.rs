use super::{super::survey::Survey, *};

const HOUR: i64 = 3600 * 1000;
/// Crockford's alphabet, from which the names of the blocks below are made.
const LETTERS: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

fn id(name: u8) -> BlockId {
    assert!(LETTERS.contains(&name));
    BlockId::parse(&format!("01K4ABCDEFGHJKMNPQRSTVWXY{}", char::from(name))).unwrap()
}

/// A block of the hours `from` to `until`, made of `sources`; its own if there are none.
fn block(name: u8, from: i64, until: i64, sources: &[u8]) -> Candidate {
    let own = [name];
    let sources = if sources.is_empty() { &own } else { sources };
    Candidate {
        id: id(name),
        min_time: from * HOUR,
        max_time: until * HOUR,
        level: sources.len() as u64,
        series: 1,
        samples: 10,
        resolution: 0,
        tombstones: 0,
        sources: sources.iter().map(|name| id(*name)).collect(),
        files: None,
        marked: false,
        bytes: 100,
        wrong: None,
    }
}

fn downsampled(block: Candidate) -> Candidate {
    Candidate {
        resolution: 300_000,
        ..block
    }
}

fn marked(block: Candidate) -> Candidate {
    Candidate { marked: true, ..block }
}

fn broken(block: Candidate) -> Candidate {
    Candidate {
        wrong: Some("it has no index".into()),
        ..block
    }
}

fn made(blocks: Vec<Candidate>) -> Plan {
    plan(Labels::default(), blocks, i64::MIN, i64::MAX)
}

/// The last letter of each block with what is done with it (`+`, `-`, `!`) and why, in order.
fn told(plan: &Plan) -> Vec<String> {
    let row = |row: &Row| {
        let sign = match row.decision {
            Decision::Restore => '+',
            Decision::LeaveOut => '-',
            Decision::Refuse => '!',
        };
        let why = row.why.replace("01K4ABCDEFGHJKMNPQRSTVWXY", "");
        format!("{}{sign} {why}", &row.block.id.to_string()[25..])
            .trim_end()
            .to_owned()
    };
    plan.rows.iter().map(row).collect()
}

#[test]
fn of_what_was_merged_the_larger_block_is_taken() {
    let table: [(Vec<Candidate>, &[&str]); 9] = [
        (vec![block(b'B', 2, 4, b""), block(b'A', 0, 2, b"")], &["A+", "B+"]),
        (
            vec![block(b'A', 0, 2, b""), block(b'B', 2, 4, b""), block(b'C', 0, 4, b"AB")],
            &["A- merged into C", "C+", "B- merged into C"],
        ),
        // Through two levels, and a block that is in neither.
        (
            vec![
                block(b'A', 0, 2, b""),
                block(b'C', 0, 4, b"AB"),
                block(b'D', 4, 6, b""),
                block(b'E', 0, 6, b"ABD"),
                block(b'F', 4, 6, b""),
            ],
            &["A- merged into E", "C- merged into E", "E+", "D- merged into E", "F+"],
        ),
        // One that is to go holds what others have; without them it is restored.
        (
            vec![marked(block(b'A', 0, 2, b"")), block(b'C', 0, 4, b"AB")],
            &["A- merged into C", "C+"],
        ),
        (
            vec![marked(block(b'A', 0, 2, b"")), block(b'B', 2, 4, b"")],
            &["A+ marked for deletion", "B+"],
        ),
        (
            vec![block(b'A', 0, 2, b""), marked(block(b'C', 0, 4, b"AB"))],
            &["A+", "C+ marked for deletion"],
        ),
        // Made of the same, as after a rewrite: the one that is to stay, or the newer one.
        (
            vec![marked(block(b'B', 0, 2, b"A")), block(b'A', 0, 2, b"")],
            &["A+", "B- merged into A"],
        ),
        (
            vec![block(b'B', 0, 2, b"A"), block(b'A', 0, 2, b"")],
            &["A- merged into B", "B+"],
        ),
        // The sources of a part are those of the whole.
        (vec![block(b'C', 0, 2, b"AB"), block(b'D', 2, 4, b"AB")], &["C+", "D+"]),
    ];
    for (blocks, expected) in table {
        assert_eq!(told(&made(blocks)), expected);
    }
}

#[test]
fn a_broken_block_is_refused_and_stands_for_no_other() {
    let plan = made(vec![
        block(b'A', 0, 2, b""),
        block(b'B', 2, 4, b""),
        broken(block(b'C', 0, 4, b"AB")),
    ]);
    assert_eq!(told(&plan), ["A+", "C! it has no index", "B+"]);
    assert!(plan.refuses());
    let plan = made(vec![broken(block(b'A', 0, 2, b"")), block(b'C', 0, 4, b"AB")]);
    assert_eq!(told(&plan), ["A- merged into C", "C+"]);
    assert!(!plan.refuses());
}

#[test]
fn a_block_that_names_no_sources_is_made_of_itself() {
    let bare = Candidate {
        sources: Vec::new(),
        ..block(b'A', 0, 2, b"")
    };
    let plan = made(vec![bare.clone(), block(b'C', 0, 4, b"AB")]);
    assert_eq!(told(&plan), ["A- merged into C", "C+"]);
    assert_eq!(told(&made(vec![bare])), ["A+"]);
}

#[test]
fn deleted_samples_are_told_of() {
    let deleted = Candidate {
        tombstones: 1,
        ..block(b'A', 0, 2, b"")
    };
    assert_eq!(
        told(&made(vec![deleted])),
        ["A+ samples that were deleted, but not compacted away, are there again"]
    );
}

#[test]
fn times_that_only_downsampled_blocks_have_are_missing() {
    type Case = (Vec<Candidate>, Vec<(i64, i64)>);
    let hours = |from: i64, until: i64| (from * HOUR, until * HOUR);
    let table: [Case; 7] = [
        (vec![downsampled(block(b'D', 0, 4, b"AB"))], vec![hours(0, 4)]),
        (
            vec![downsampled(block(b'D', 0, 4, b"AB")), block(b'C', 0, 4, b"AB")],
            vec![],
        ),
        (
            vec![downsampled(block(b'D', 0, 4, b"AB")), broken(block(b'C', 0, 4, b"AB"))],
            vec![hours(0, 4)],
        ),
        // The first sample of B is not at its very start, but all of B is there.
        (
            vec![
                downsampled(block(b'D', 0, 4, b"AB")),
                block(b'A', 0, 2, b""),
                Candidate {
                    min_time: 2 * HOUR + 17,
                    ..block(b'B', 2, 4, b"")
                },
            ],
            vec![],
        ),
        (
            vec![
                downsampled(block(b'D', 0, 8, b"ABEF")),
                block(b'A', 1, 2, b""),
                block(b'E', 4, 6, b""),
            ],
            vec![hours(0, 1), hours(2, 4), hours(6, 8)],
        ),
        // Two resolutions of one block.
        (
            vec![
                downsampled(block(b'D', 0, 4, b"AB")),
                downsampled(block(b'E', 0, 4, b"AB")),
                downsampled(block(b'F', 4, 6, b"G")),
            ],
            vec![hours(0, 6)],
        ),
        (vec![], vec![]),
    ];
    for (blocks, missing) in table {
        assert_eq!(made(blocks).missing, missing);
    }
    let plan = made(vec![downsampled(block(b'D', 0, 4, b"AB"))]);
    assert_eq!(told(&plan), ["D- downsampled to 300 s: Prometheus cannot read it"]);
    let blocks = vec![downsampled(block(b'D', 0, 10, b"AB"))];
    let within = super::plan(Labels::default(), blocks, 2 * HOUR, 5 * HOUR - 1);
    assert_eq!(within.missing, [hours(2, 5)]);
}

fn sets(all: &[&[(&str, &str)]]) -> Sets {
    let mut sets = Sets::default();
    for pairs in all {
        sets.add(&Labels::from_pairs(pairs.iter().copied()));
    }
    sets
}

#[test]
fn several_label_sets_are_refused_with_selectors_that_part_them() {
    let eu: &[(&str, &str)] = &[("cluster", "eu")];
    let replica: &[(&str, &str)] = &[("cluster", "eu"), ("replica", "a")];
    let odd: &[(&str, &str)] = &[("my.name", "say \"\\\"\n"), ("0", "é")];
    let selected = sets(&[eu, replica, replica, odd, &[]]);
    let of = |pairs: &[(&str, &str)]| selected.selector(&Labels::from_pairs(pairs.iter().copied()));
    assert_eq!(of(eu), r#"{"0"="", cluster="eu", "my.name"="", replica=""}"#);
    assert_eq!(of(replica), r#"{"0"="", cluster="eu", "my.name"="", replica="a"}"#);
    assert_eq!(
        of(odd),
        r#"{"0"="é", cluster="", "my.name"="say \"\\\"\n", replica=""}"#
    );
    assert_eq!(of(&[]), r#"{"0"="", cluster="", "my.name"="", replica=""}"#);
    let survey = Survey {
        selected: selected.clone(),
        ..Survey::default()
    };
    assert_eq!(survey.sole_set(), Err(Refusal::SeveralSets(selected)));
}

#[test]
fn one_set_is_taken_even_if_it_is_empty() {
    for pairs in [&[][..], &[("cluster", "eu")]] {
        let survey = Survey {
            selected: sets(&[pairs, pairs]),
            others: sets(&[&[("cluster", "us")]]),
            ..Survey::default()
        };
        assert_eq!(survey.sole_set(), Ok(Labels::from_pairs(pairs.iter().copied())));
    }
}

#[test]
fn nothing_selected_tells_what_there_is() {
    let survey = Survey {
        others: sets(&[&[("cluster", "us")]]),
        outside: Some((2, 0, HOUR)),
        ..Survey::default()
    };
    let refusal = Refusal::Nothing {
        others: survey.others.clone(),
        outside: survey.outside,
    };
    assert_eq!(survey.sole_set(), Err(refusal));
}

#[test]
fn there_may_be_any_number_of_label_sets() {
    let mut sets = Sets::default();
    for n in 0..1500 {
        sets.add(&Labels::from_pairs([("n", n.to_string())]));
        sets.add(&Labels::from_pairs([("n", "0")]));
    }
    assert_eq!((sets.counted.len(), sets.more), (1000, 500));
    assert_eq!(sets.counted[&Labels::from_pairs([("n", "0")])], 1501);
}
