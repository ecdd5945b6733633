use super::*;
use crate::{
    lineage::{
        Entry,
        index::testing::{Store, block, id, meta, parsed},
    },
    objstore::{ErrorKind, Op, layers::Fault as Broken},
};

fn own() -> Entry {
    block(1, (0, 10), &[1], "eu")
}

async fn found(store: &Store) -> Existing {
    let own = own();
    existing(store.bucket.as_ref(), &parsed(&own), &own.labels)
        .await
        .unwrap()
}

#[tokio::test]
async fn without_a_meta_there_is_nothing_and_a_mark_is_told() {
    let store = Store::new().await;
    assert!(matches!(found(&store).await, Existing::Nothing { marked: false }));
    store.put(id(1), "index", "ab");
    assert!(matches!(found(&store).await, Existing::Nothing { marked: false }));
    store.mark(id(1));
    assert!(matches!(found(&store).await, Existing::Nothing { marked: true }));
}

#[tokio::test]
async fn a_whole_block_is_whole_by_its_own_meta_under_whatever_labels() {
    let store = Store::new().await;
    store.put_block(&own());
    let Existing::Complete(committed) = found(&store).await else {
        panic!()
    };
    assert_eq!((committed.other_labels, committed.files.len()), (None, 2));
    store.put_block(&block(1, (0, 10), &[1], "us"));
    let Existing::Complete(committed) = found(&store).await else {
        panic!()
    };
    assert_eq!(committed.other_labels, Some(Labels::from_pairs([("cluster", "us")])));
    // What lies there too many takes nothing away.
    store.put(id(1), "chunks/000002", "x");
    assert!(matches!(found(&store).await, Existing::Complete(_)));
}

#[tokio::test]
async fn a_listing_that_lags_hides_neither_files_nor_a_mark() {
    let store = Store::new().await;
    store.put_block(&own());
    store.bucket.on(Op::Iter, "", .., Broken::Lose);
    assert!(matches!(found(&store).await, Existing::Complete(_)));
    store.mark(id(1));
    assert!(matches!(found(&store).await, Existing::Marked));
}

#[tokio::test]
async fn a_mark_counts_whatever_else_is_there() {
    let store = Store::new().await;
    store.put_block(&own());
    store.mark(id(1));
    assert!(matches!(found(&store).await, Existing::Marked));
    for bytes in ["", "{", "[]"] {
        store.put(id(1), "meta.json", bytes);
        assert!(matches!(found(&store).await, Existing::Marked), "{bytes:?}");
    }
}

#[tokio::test]
async fn objects_that_a_committed_block_lacks_are_named_with_what_they_must_be() {
    let store = Store::new().await;
    store.put_block(&own());
    store.remove(id(1), "chunks/000001");
    let Existing::Incomplete(committed, missing) = found(&store).await else {
        panic!()
    };
    assert_eq!(committed.files.len(), 1);
    let [missing] = &missing[..] else { panic!("{missing:?}") };
    assert_eq!((missing.rel_path.as_str(), missing.size), ("chunks/000001", Some(3)));
    // Beside an object of another size nothing is put back.
    store.put(id(1), "index", "abc");
    let Existing::Conflict(why) = found(&store).await else {
        panic!()
    };
    assert_eq!(why, "index has 3 bytes, and meta.json says 2");
}

#[tokio::test]
async fn another_block_of_the_name_is_a_conflict() {
    let own = own();
    type Change = &'static dyn Fn(&mut serde_json::Value);
    let changes: [(&str, Change); 6] = [
        ("minTime is 1 in the bucket, and 0 here", &|meta| {
            meta["minTime"] = 1.into()
        }),
        ("maxTime is 11 in the bucket, and 10 here", &|meta| {
            meta["maxTime"] = 11.into()
        }),
        ("the number of samples is 6 in the bucket, and 5 here", &|meta| {
            meta["stats"]["numSamples"] = 6.into();
        }),
        ("the number of chunks is 3 in the bucket, and 2 here", &|meta| {
            meta["stats"]["numChunks"] = 3.into();
        }),
        ("the resolution (ms) is 300000 in the bucket, and 0 here", &|meta| {
            meta["thanos"]["downsample"]["resolution"] = 300_000.into();
        }),
        ("it was made of other blocks", &|meta| {
            meta["compaction"]["sources"] = serde_json::json!([id(2).to_string()]);
        }),
    ];
    for (want, change) in changes {
        let store = Store::new().await;
        store.put_block(&own);
        let mut changed = meta(&own);
        change(&mut changed);
        store.put(id(1), "meta.json", changed.to_string());
        let Existing::Conflict(why) = found(&store).await else {
            panic!("{want}")
        };
        assert!(why.ends_with(want), "{why}");
    }
}

#[tokio::test]
async fn only_what_no_reader_can_take_for_a_meta_is_torn() {
    let good = meta(&own()).to_string();
    let other = good.replace(&id(1).to_string(), &id(2).to_string());
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    for (bytes, torn) in [
        (&b""[..], true),
        (b"\0\0\0\0", true),
        (&good.as_bytes()[..good.len() - 1], true),
        (b"[]", false),
        (b"{}", false),
        (b"{\"x\":\"\xff\"}", false),
        (deep.as_bytes(), false),
        (other.as_bytes(), false),
        (good.replace("\"version\":1", "\"version\":2").as_bytes(), false),
    ] {
        let store = Store::new().await;
        store.put_block(&own());
        store.put(id(1), "meta.json", bytes);
        let found = found(&store).await;
        let told = format!("{:?}: {found:?}", String::from_utf8_lossy(bytes));
        match torn {
            true => assert!(matches!(found, Existing::Torn(_)), "{told}"),
            false => assert!(matches!(found, Existing::Conflict(_)), "{told}"),
        }
    }
}

#[tokio::test]
async fn what_the_store_refuses_of_one_block_is_told_and_a_bucket_that_fails_an_error() {
    let (meta, listing) = (
        Some("its meta.json in the bucket cannot be read"),
        Some("its objects in the bucket cannot be listed"),
    );
    for (op, kind, refused) in [
        (Op::Get, ErrorKind::Forbidden, meta),
        (Op::Get, ErrorKind::Refused, meta),
        (Op::Get, ErrorKind::TooLarge, meta),
        (Op::Iter, ErrorKind::Local, listing),
        (Op::Get, ErrorKind::Network, None),
        (Op::Iter, ErrorKind::Forbidden, None),
    ] {
        let store = Store::new().await;
        store.put_block(&own());
        store.bucket.on(op, &id(1).to_string(), .., Broken::Fail(kind));
        let own = own();
        match existing(store.bucket.as_ref(), &parsed(&own), &own.labels).await {
            Ok(Existing::Refused { why, error }) => {
                assert!(why.starts_with(refused.unwrap()), "{op} {kind:?}: {why}");
                assert_eq!(error.kind, kind);
            }
            Ok(other) => panic!("{op} {kind:?}: {other:?}"),
            Err(error) => assert_eq!(refused, None, "{error}"),
        }
    }
}

#[tokio::test]
async fn credentials_that_may_not_read_are_no_fault_of_a_block_that_is_not_there() {
    let store = Store::new().await;
    let meta = format!("{}/meta.json", id(1));
    store.bucket.on(Op::Get, &meta, .., Broken::Fail(ErrorKind::Forbidden));
    let own = own();
    let error = existing(store.bucket.as_ref(), &parsed(&own), &own.labels)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Forbidden);
}

#[test]
fn a_file_is_put_back_only_with_the_length_and_the_hash_that_the_meta_says() {
    let file = |size, sha256: Option<&str>| BucketFile {
        rel_path: "index".into(),
        size,
        sha256: sha256.map(Into::into),
    };
    for (missing, local, good) in [
        (file(Some(2), None), file(Some(2), None), true),
        (file(Some(2), None), file(Some(2), Some("ab")), true),
        (file(Some(2), Some("ab")), file(Some(2), Some("AB")), true),
        (file(Some(2), None), file(Some(3), None), false),
        (file(Some(2), Some("ab")), file(Some(2), Some("cd")), false),
        (file(Some(2), Some("ab")), file(Some(2), None), false),
        (file(None, None), file(Some(2), None), false),
        (file(Some(2), None), file(None, None), false),
    ] {
        assert_eq!(may_repair(&missing, &local).is_ok(), good, "{missing:?} {local:?}");
    }
    let other = BucketFile {
        rel_path: "chunks/000001".into(),
        ..file(Some(2), None)
    };
    may_repair(&file(Some(2), None), &other).unwrap_err();
}

/// A bucket whose listings do not yet show some objects.
mod late {
    use super::*;
    use crate::objstore::{CanaryKey, Comparison, NameFilter, Object, Pieces, Reading, Source};
    use async_trait::async_trait;
    use bytes::Bytes;

    #[derive(Debug)]
    struct Late(std::sync::Arc<dyn Bucket>);

    #[async_trait]
    impl Bucket for Late {
        fn name(&self) -> &str {
            self.0.name()
        }
        fn identity(&self) -> &str {
            self.0.identity()
        }
        async fn put_file(&self, key: &str, source: &Source) -> Result<(), objstore::Error> {
            self.0.put_file(key, source).await
        }
        async fn put_bytes(&self, key: &str, body: Bytes) -> Result<(), objstore::Error> {
            self.0.put_bytes(key, body).await
        }
        async fn put_stream(&self, key: &str, pieces: Pieces<'_>, at_most: u64) -> Result<u64, objstore::Error> {
            self.0.put_stream(key, pieces, at_most).await
        }
        async fn stat(&self, key: &str) -> Result<Option<u64>, objstore::Error> {
            self.0.stat(key).await
        }
        async fn get(&self, key: &str, limit: u64) -> Result<Bytes, objstore::Error> {
            self.0.get(key, limit).await
        }
        async fn read(&self, key: &str, offset: u64) -> Result<Reading, objstore::Error> {
            self.0.read(key, offset).await
        }
        async fn compare(&self, key: &str, source: &Source) -> Result<Comparison, objstore::Error> {
            self.0.compare(key, source).await
        }
        async fn list(&self, dir: &str) -> Result<Vec<Object>, objstore::Error> {
            let mut objects = self.0.list(dir).await?;
            objects.retain(|object| !object.key.ends_with("/index"));
            Ok(objects)
        }
        async fn list_top(&self, after: &str, wanted: NameFilter) -> Result<Vec<String>, objstore::Error> {
            self.0.list_top(after, wanted).await
        }
        async fn abort_stale(&self, dir: &str) -> Result<(), objstore::Error> {
            self.0.abort_stale(dir).await
        }
        async fn remove(&self, canary: &CanaryKey) -> Result<(), objstore::Error> {
            self.0.remove(canary).await
        }
        async fn settle(&self) {
            self.0.settle().await;
        }
    }

    #[tokio::test]
    async fn what_a_listing_does_not_show_yet_is_asked_for_by_its_key() {
        let store = Store::new().await;
        let own = own();
        store.put_block(&own);
        let late = Late(std::sync::Arc::clone(&store.bucket) as _);
        let found = async || existing(&late, &parsed(&own), &own.labels).await.unwrap();
        assert!(matches!(found().await, Existing::Complete(_)));
        store.remove(id(1), "index");
        assert!(matches!(found().await, Existing::Incomplete(_, missing) if missing.len() == 1));
    }
}
