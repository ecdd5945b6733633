use super::*;
use crate::{
    lineage::index::testing::{Store, block, id, meta},
    objstore::{ErrorKind, Op, layers::Fault},
};

/// Where `asked` is, after the bucket was read.
async fn elsewhere(store: &Store, asked: &Entry) -> Elsewhere {
    let mut lineage = Lineage::default();
    lineage.refresh(store.bucket.as_ref(), "").await.unwrap();
    lineage.elsewhere(store.bucket.as_ref(), asked).await.unwrap()
}

const NOWHERE: Elsewhere = Elsewhere::Nowhere { not_whole: None };

#[tokio::test]
async fn a_block_is_where_it_was_merged_to_if_all_fits() {
    let asked = block(1, (0, 10), &[1], "eu");
    let merged = block(9, (0, 20), &[1, 2], "eu");
    for (listed, found) in [
        (merged.clone(), true),
        (block(9, (0, 20), &[2, 3], "eu"), false),
        (block(9, (0, 9), &[1, 2], "eu"), false),
        (
            Entry {
                resolution: 300_000,
                ..merged.clone()
            },
            false,
        ),
        (
            Entry {
                labels: Labels::default(),
                ..merged.clone()
            },
            false,
        ),
    ] {
        let store = Store::new().await;
        store.put_block(&listed);
        let is = elsewhere(&store, &asked).await;
        assert_eq!(is == Elsewhere::In(vec![id(9)]), found, "{listed:?}: {is:?}");
    }
}

#[tokio::test]
async fn what_is_marked_for_deletion_holds_nothing() {
    let store = Store::new().await;
    let asked = block(1, (0, 10), &[1], "eu");
    store.put_block(&block(9, (0, 20), &[1, 2], "eu"));
    store.mark(id(9));
    assert_eq!(elsewhere(&store, &asked).await, NOWHERE);
    store.put_block(&block(10, (0, 20), &[1, 2], "eu"));
    assert_eq!(elsewhere(&store, &asked).await, Elsewhere::In(vec![id(10)]));
}

#[tokio::test]
async fn what_is_not_whole_holds_nothing_and_is_named() {
    let asked = block(1, (0, 10), &[1], "eu");
    let store = Store::new().await;
    store.put_block(&block(9, (0, 20), &[1, 2], "eu"));
    store.remove(id(9), "chunks/000001");
    let not_whole = Some((id(9), "chunks/000001 is missing".to_owned()));
    assert_eq!(elsewhere(&store, &asked).await, Elsewhere::Nowhere { not_whole });
    store.put(id(9), "chunks/000001", "abcd");
    let why = "chunks/000001 has 4 bytes, and meta.json says 3".to_owned();
    let not_whole = Some((id(9), why));
    assert_eq!(elsewhere(&store, &asked).await, Elsewhere::Nowhere { not_whole });
    // A compactor drops a block for the one of its own labels, whatever there is under others.
    store.put_block(&block(8, (0, 20), &[1, 2], "of another"));
    let why = "chunks/000001 has 4 bytes, and meta.json says 3".to_owned();
    let not_whole = Some((id(9), why));
    assert_eq!(elsewhere(&store, &asked).await, Elsewhere::Nowhere { not_whole });
    // A meta.json alone is no block, whatever it says.
    let store = Store::new().await;
    store.put(id(9), "meta.json", meta(&block(9, (0, 20), &[1], "eu")).to_string());
    assert!(matches!(
        elsewhere(&store, &asked).await,
        Elsewhere::Nowhere { not_whole: Some(_) }
    ));
}

#[tokio::test]
async fn under_other_labels_it_is_somebody_elses_unless_a_replica_was_dropped() {
    let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
    let asked = Entry {
        labels: labels(&[("cluster", "eu"), ("replica", "a")]),
        ..block(1, (0, 10), &[1], "")
    };
    let store = Store::new().await;
    let theirs = labels(&[("cluster", "us"), ("replica", "a")]);
    store.put_block(&Entry {
        labels: theirs.clone(),
        ..block(8, (0, 20), &[1, 2], "")
    });
    let is = elsewhere(&store, &asked).await;
    let blocks = vec![id(8)];
    assert_eq!(is, Elsewhere::UnderOtherLabels { blocks, labels: theirs });
    // As compactors that merge replicas leave it.
    store.put_block(&block(9, (0, 20), &[1, 2], "eu"));
    assert_eq!(elsewhere(&store, &asked).await, Elsewhere::In(vec![id(9)]));
}

#[tokio::test]
async fn a_compacted_block_is_there_when_all_its_sources_are() {
    let asked = block(7, (0, 30), &[1, 2, 3], "eu");
    let store = Store::new().await;
    store.put_block(&block(1, (0, 10), &[1], "eu"));
    store.put_block(&block(2, (10, 20), &[2], "eu"));
    assert_eq!(elsewhere(&store, &asked).await, NOWHERE, "one is missing");
    store.put_block(&block(3, (500, 600), &[3], "eu"));
    assert_eq!(elsewhere(&store, &asked).await, NOWHERE, "its times are others");
    store.put_block(&block(3, (20, 29), &[3], "eu"));
    assert_eq!(elsewhere(&store, &asked).await, NOWHERE, "its end is not covered");
    store.put_block(&block(3, (20, 30), &[3], "eu"));
    let all = Elsewhere::In(vec![id(1), id(2), id(3)]);
    assert_eq!(elsewhere(&store, &asked).await, all);
    // One of them goes, and is within a merged one.
    store.mark(id(2));
    assert_eq!(elsewhere(&store, &asked).await, NOWHERE);
    store.put_block(&block(9, (0, 20), &[1, 2], "eu"));
    let all = Elsewhere::In(vec![id(1), id(3), id(9)]);
    assert_eq!(elsewhere(&store, &asked).await, all);
    // Its own name is not elsewhere.
    store.put_block(&block(7, (0, 30), &[1, 2, 3], "eu"));
    assert_eq!(elsewhere(&store, &asked).await, all);
}

#[tokio::test]
async fn sources_count_under_any_labels_and_what_others_say_they_were_made_of_under_these_only() {
    let asked = block(7, (0, 20), &[1, 2], "eu");
    let found = async |store: &Store| {
        let mut lineage = Lineage::default();
        lineage.refresh(store.bucket.as_ref(), "").await.unwrap();
        lineage.all_sources(store.bucket.as_ref(), &asked).await.unwrap()
    };
    let store = Store::new().await;
    store.put_block(&block(9, (0, 20), &[1, 2], "of another"));
    store.put_block(&block(1, (0, 20), &[1, 2], "us"));
    assert_eq!(
        found(&store).await,
        None,
        "of the name of a source, it says more than it is"
    );
    store.put_block(&block(1, (0, 10), &[1], "us"));
    assert_eq!(
        found(&store).await,
        None,
        "the other is in the bucket within others only"
    );
    store.put_block(&block(8, (10, 30), &[2, 3], "us"));
    assert_eq!(found(&store).await, None, "also within one whose labels are not those");
    store.put_block(&block(8, (10, 30), &[2, 3], "eu"));
    assert_eq!(
        found(&store).await,
        Some(vec![id(1), id(8)]),
        "one itself, one within another"
    );
    store.remove_block(id(8));
    store.put_block(&block(2, (10, 20), &[2], "us"));
    assert_eq!(found(&store).await, Some(vec![id(1), id(2)]));
    store.remove(id(2), "index");
    assert_eq!(found(&store).await, None, "one is not whole");
    store.put_block(&block(2, (10, 20), &[2], "us"));
    store.mark(id(1));
    assert_eq!(found(&store).await, None, "one is marked for deletion");
}

#[tokio::test]
async fn what_others_rely_on_is_looked_at_once_between_two_refreshes() {
    let store = Store::new().await;
    store.put_block(&block(9, (0, 30), &[1, 2, 3], "eu"));
    let mut lineage = Lineage::default();
    lineage.refresh(store.bucket.as_ref(), "").await.unwrap();
    let before = store.asked();
    for n in [1, 2, 3] {
        let asked = block(n, (0, 10), &[n], "eu");
        let is = lineage.elsewhere(store.bucket.as_ref(), &asked).await.unwrap();
        assert_eq!(is, Elsewhere::In(vec![id(9)]));
    }
    assert_eq!(store.asked() - before, 2, "a meta.json and a listing");
    store.mark(id(9));
    lineage.refresh(store.bucket.as_ref(), "").await.unwrap();
    let is = lineage
        .elsewhere(store.bucket.as_ref(), &block(1, (0, 10), &[1], "eu"))
        .await;
    assert_eq!(is.unwrap(), NOWHERE, "marks may come at any time");
}

#[tokio::test]
async fn an_object_that_the_store_refuses_is_no_proof_and_no_error() {
    let store = Store::new().await;
    store.put_block(&block(9, (0, 20), &[1, 2], "eu"));
    let mut lineage = Lineage::default();
    lineage.refresh(store.bucket.as_ref(), "").await.unwrap();
    store
        .bucket
        .on(Op::Get, &id(9).to_string(), .., Fault::Fail(ErrorKind::Forbidden));
    let is = lineage
        .elsewhere(store.bucket.as_ref(), &block(1, (0, 10), &[1], "eu"))
        .await;
    assert!(matches!(is.unwrap(), Elsewhere::Nowhere { not_whole: Some((_, why)) } if why.contains("cannot be read")));
}

#[tokio::test]
async fn only_blocks_that_stay_and_are_not_folded_overlap() {
    let store = Store::new().await;
    store.put_block(&block(1, (0, 10), &[1], "eu"));
    store.put_block(&block(3, (5, 15), &[3], "eu"));
    store.put_block(&block(4, (5, 15), &[4], "us"));
    store.put_block(&block(5, (20, 30), &[5], "eu"));
    let asked = block(7, (0, 20), &[1, 2], "eu");
    let mut lineage = Lineage::default();
    lineage.refresh(store.bucket.as_ref(), "").await.unwrap();
    let found = lineage.overlapping(store.bucket.as_ref(), &asked).await.unwrap();
    assert_eq!(found, [id(3)], "its own source is folded into it");
    store.mark(id(3));
    lineage.refresh(store.bucket.as_ref(), "").await.unwrap();
    let found = lineage.overlapping(store.bucket.as_ref(), &asked).await.unwrap();
    assert_eq!(found, []);
}
