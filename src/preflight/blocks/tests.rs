use super::*;

fn entry(n: u64, range: (i64, i64), replica: &str, level: u64) -> Entry {
    let id = BlockId::first_at(n);
    Entry {
        id,
        range,
        resolution: 0,
        level,
        sources: Box::new([id]),
        labels: Labels::from_pairs([("replica", replica)]),
    }
}

#[test]
fn others_are_those_of_the_same_labels_and_times_that_nobody_has_merged() {
    let local = [entry(1, (0, 10), "a", 1), entry(2, (10, 20), "a", 1)];
    let merged = entry(6, (5, 15), "a", 2);
    let found = others(
        &local,
        [
            entry(3, (0, 10), "a", 1),
            entry(4, (0, 10), "b", 1),
            entry(5, (20, 30), "a", 1),
            merged,
            entry(7, (15, 16), "a", 1),
        ]
        .into_iter(),
    );
    assert_eq!(found, [BlockId::first_at(3), BlockId::first_at(7)]);
}
