//! One producer for several objects, which makes their bytes turn by turn.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use narthex::objstore::{Bucket, Limits, Pieces};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{LONG, MIB, PART, cut, endless, works};
use crate::{
    objstore::{
        conformance::ALL,
        content, limits,
        multipart::{Step, comes},
        open, s3_yaml,
        scripted::{Act, Server},
    },
    rig::Weed,
};

fn one_slot() -> Limits {
    Limits {
        requests_at_once: 1,
        ..limits()
    }
}

fn pieces_of(made: Receiver<Bytes>) -> Pieces<'static> {
    stream::unfold(made, async |mut made| Some((Ok(made.recv().await?), made))).boxed()
}

/// Feeds each in turn, and none before the one ahead of it has taken its piece.
async fn feed(content: &[u8], to: [Sender<Bytes>; 2]) {
    for piece in cut(content, &[700_001, 30_000]) {
        for to in &to {
            // A producer that reads a disk needs such a thread.
            let piece = piece.clone();
            let piece = tokio::task::spawn_blocking(move || piece).await.unwrap();
            to.send(piece).await.unwrap();
        }
    }
}

/// Both objects come to their end, whoever of them waits for what.
async fn both_end(bucket: &dyn Bucket) {
    let content = content(3 * PART + 7);
    let (index, index_made) = channel(1);
    let (segment, segment_made) = channel(1);
    let all = async {
        tokio::join!(
            bucket.put_stream("t/index", pieces_of(index_made), ALL),
            bucket.put_stream("t/segment", pieces_of(segment_made), ALL),
            feed(&content, [index, segment]),
        )
    };
    let (index, segment, ()) = tokio::time::timeout(LONG, all).await.expect("they wait for each other");
    assert_eq!([index.unwrap(), segment.unwrap()], [content.len() as u64; 2]);
    for key in ["t/index", "t/segment"] {
        assert!(bucket.get(key, ALL).await.unwrap() == content, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_objects_of_one_producer_need_one_slot_in_a_store() {
    let view = Weed::shared().await.bucket("turns").await;
    both_end(&*open(&view.config(), one_slot()).await).await;
}

#[test]
fn two_objects_of_one_producer_need_one_slot_and_one_thread_in_a_directory() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.path().display());
        both_end(&*open(&yaml, one_slot()).await).await;
    });
}

/// Other objects pass by one whose producer takes its time.
#[tokio::test]
async fn no_slot_is_held_while_the_producer_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let directory = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.path().display());
    let server = Server::start(|request, _| works(request)).await;
    for yaml in [directory, s3_yaml(&server.host, "thanos", &[])] {
        for len in [0, 1, PART, 2 * PART + MIB] {
            let bucket = open(&yaml, one_slot()).await;
            let (told, taken) = tokio::sync::oneshot::channel();
            let last = stream::once(async move {
                let _ = told.send(());
                std::future::pending().await
            });
            let content = content(len);
            let first = endless(&content).take(cut(&content, &[MIB]).len());
            let pieces: Pieces<'static> = first.chain(last).boxed();
            let put = bucket.put_stream("slow", pieces, ALL);
            let other = async {
                taken.await.unwrap();
                bucket.put_bytes("other", Bytes::from_static(b"x")).await.unwrap();
            };
            let passed = async {
                tokio::select! {
                    put = put => panic!("the producer is not done: {put:?}"),
                    () = other => {}
                }
            };
            tokio::time::timeout(LONG, passed).await.expect("the slot is held");
        }
    }
}

/// A part that waits for the slot takes it as soon as it is free, also while the producer makes nothing.
#[tokio::test]
async fn a_part_is_sent_while_the_producer_is_waited_for() {
    let server = Server::start(|request, _| works(request)).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), one_slot()).await;
    let content = content(2 * PART + 1);
    let put = bucket.put_stream("x", endless(&content), ALL);
    super::dropped_when(put, comes(&server, Step::Part(2))).await;
}

#[tokio::test]
async fn no_more_than_one_part_of_each_object_is_on_its_way() {
    let server = Server::start(|request, _| match works(request) {
        Act::Answer(answer) => Act::Late(std::time::Duration::from_millis(50), answer),
        _ => unreachable!(),
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    let content = content(4 * PART);
    let put = bucket.put_stream("x", super::pieces(&content, &[MIB]), ALL).await;
    assert_eq!(put.unwrap(), content.len() as u64);
    let seen = server.seen();
    let parts: Vec<_> = seen
        .iter()
        .filter(|request| request.target.contains("partNumber"))
        .collect();
    assert_eq!(parts.len(), 4);
    assert!(parts.iter().all(|part| part.body.len() == PART));
    assert_eq!(server.most_at_once(), 1);
}
