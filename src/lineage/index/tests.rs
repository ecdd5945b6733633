use proptest::{prelude::*, sample::Index};

use super::{
    testing::{Store, block, id},
    *,
};
use crate::objstore::{ErrorKind, Op, layers::Fault};

async fn read_all(store: &Store) -> Lineage {
    let mut lineage = Lineage::default();
    lineage.refresh(store.bucket.as_ref(), "").await.unwrap();
    lineage
}

#[tokio::test]
async fn each_meta_is_read_once_and_what_is_gone_is_forgotten() {
    let store = Store::new().await;
    store.put_block(&block(3, (0, 20), &[1, 2], "eu"));
    store.put(id(1), "meta.json", "{");
    store.put(id(2), "index", "half");
    let mut lineage = read_all(&store).await;
    assert!(lineage.contains(id(3)) && !lineage.contains(id(1)) && !lineage.contains(id(2)));
    assert_eq!(lineage.entries().map(|entry| entry.id).collect::<Vec<_>>(), [id(3)]);
    assert_eq!(lineage.unreadable().keys().copied().collect::<Vec<_>>(), [id(1)]);
    let before = store.asked();
    lineage
        .refresh(store.bucket.as_ref(), &id(1).to_string())
        .await
        .unwrap();
    let asked: Vec<String> = store
        .bucket
        .calls()
        .split_off(before)
        .into_iter()
        .map(|call| call.1)
        .collect();
    assert_eq!(
        asked,
        [String::new(), format!("{}/meta.json", id(2))],
        "only what is not known"
    );
    store.remove_block(id(3));
    lineage
        .refresh(store.bucket.as_ref(), &id(1).to_string())
        .await
        .unwrap();
    assert!(!lineage.contains(id(3)) && lineage.by_source.is_empty());
}

#[tokio::test]
async fn a_meta_that_the_store_refuses_stops_no_other() {
    for kind in [
        ErrorKind::Forbidden,
        ErrorKind::Refused,
        ErrorKind::Integrity,
        ErrorKind::TooLarge,
    ] {
        let store = Store::new().await;
        store.put_block(&block(1, (0, 10), &[1], "eu"));
        store.put_block(&block(2, (0, 10), &[2], "eu"));
        store.bucket.on(Op::Get, &id(1).to_string(), .., Fault::Fail(kind));
        let mut lineage = read_all(&store).await;
        assert!(lineage.contains(id(2)) && !lineage.contains(id(1)), "{kind:?}");
        assert_eq!(lineage.unreadable().len(), 1, "{kind:?}");
        store.bucket.heal();
        lineage.refresh(store.bucket.as_ref(), "").await.unwrap();
        assert!(lineage.contains(id(1)) && lineage.unreadable().is_empty(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_bucket_that_fails_is_an_error_and_not_an_empty_bucket() {
    for (op, kind) in [
        (Op::Get, ErrorKind::Server),
        (Op::Get, ErrorKind::Credentials),
        (Op::Iter, ErrorKind::Forbidden),
    ] {
        let store = Store::new().await;
        store.put_block(&block(1, (0, 10), &[1], "eu"));
        store.bucket.on(op, "", .., Fault::Fail(kind));
        let error = Lineage::default().refresh(store.bucket.as_ref(), "").await.unwrap_err();
        assert_eq!(error.kind, kind);
    }
}

#[tokio::test]
async fn a_meta_larger_than_a_mebibyte_is_not_read() {
    let store = Store::new().await;
    let entry = block(1, (0, 10), &[1], "eu");
    for (more, good) in [(0, true), (1, false)] {
        let mut text = testing::meta(&entry).to_string();
        text.extend(std::iter::repeat_n(' ', (1 << 20) - text.len() + more));
        store.put(id(1), "meta.json", text);
        assert_eq!(read_all(&store).await.contains(id(1)), good);
    }
}

#[tokio::test]
async fn an_unreadable_meta_is_news_once_and_again_when_the_reason_changes() {
    let store = Store::new().await;
    store.put(id(1), "meta.json", "{");
    let mut lineage = Lineage::default();
    let cut = "it is cut off: the JSON document does not end";
    assert!(lineage.is_new_reason(id(1), cut));
    lineage.refresh(store.bucket.as_ref(), "").await.unwrap();
    assert_eq!(lineage.unreadable().get(&id(1)).map(String::as_str), Some(cut));
    lineage.forget();
    assert!(
        !lineage.is_new_reason(id(1), cut),
        "forgetting the rest does not tell it again"
    );
    lineage.refresh(store.bucket.as_ref(), "").await.unwrap();
    assert!(!lineage.is_new_reason(id(1), cut));
    // Of what the store refuses only the kind counts: stores number their answers.
    store.bucket.on(Op::Get, "", .., Fault::Fail(ErrorKind::Forbidden));
    lineage.refresh(store.bucket.as_ref(), "").await.unwrap();
    assert!(!lineage.is_new_reason(id(1), "Forbidden") && lineage.is_new_reason(id(1), cut));
    store.remove_block(id(1));
    lineage.refresh(store.bucket.as_ref(), "").await.unwrap();
    assert!(
        lineage.is_new_reason(id(1), "Forbidden"),
        "what is gone takes no memory"
    );
}

proptest! {
    /// The metas of others are not ours to trust.
    #[test]
    fn no_meta_in_the_bucket_is_too_strange(
        bytes in any::<Vec<u8>>(), from in any::<Index>(), to in any::<Index>(), whole in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let good = testing::meta(&block(2, (0, 10), &[1], "eu")).to_string().into_bytes();
        let (from, to) = (from.index(good.len() + 1), to.index(good.len() + 1));
        let (from, to) = (from.min(to), from.max(to));
        let strange = if whole { bytes } else { [&good[..from], &bytes, &good[to..]].concat() };
        let found = runtime.block_on(async {
            let store = Store::new().await;
            store.put(id(2), "meta.json", &strange);
            store.put_block(&block(3, (0, 10), &[1], "eu"));
            let mut lineage = read_all(&store).await;
            let asked = block(1, (0, 10), &[1], "eu");
            let elsewhere = lineage.elsewhere(store.bucket.as_ref(), &asked).await.unwrap();
            (lineage.contains(id(2)), lineage.unreadable().len(), elsewhere)
        });
        prop_assert_eq!(usize::from(found.0) + found.1, 1);
        prop_assert_eq!(found.2, crate::lineage::Elsewhere::In(vec![id(3)]), "one bad meta hides no other");
    }
}
