//! What is shown of the blocks, and when.

use std::path::Path;

use super::{compacted, *};
use crate::{
    model::Labels,
    shipper::{BlockOverview, BlockState, Overview},
};

/// The blocks that are shown: name, state, and why.
fn shown(overview: &Overview) -> Vec<(String, BlockState, &str)> {
    let of = |block: &'_ BlockOverview| (block.id.to_string(), block.state);
    let blocks = overview.blocks.iter();
    blocks.map(|block| (of(block).0, of(block).1, &*block.why)).collect()
}

#[tokio::test(start_paused = true)]
async fn every_block_has_a_state_and_why() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let overviews = shipper.settings.overviews.clone();
    assert_eq!(*overviews.newest(), Overview::default());
    let [durable, broken, empty] = [1, 2, 3].map(name);
    world.seal(&mut shipper, &Made::new(&durable, 0));
    let dir = world.seal(&mut shipper, &Made::new(&broken, 10));
    fs_err::write(dir.join("index"), "no index").unwrap();
    let none = Made {
        samples: 0,
        ..Made::new(&empty, 20)
    };
    world.seal(&mut shipper, &none);
    let merged = compacted(9, 30, &[&name(7), &name(8)]);
    world.seal(&mut shipper, &merged);
    shipper.pass().await;
    let overview = overviews.newest();
    let found = shown(&overview);
    let expected = [
        (durable, BlockState::Durable, ""),
        (broken, BlockState::SetAside, "quarantined: "),
        (empty, BlockState::Empty, "it holds no sample"),
        (merged.name.clone(), BlockState::NotShipped, "it was compacted of "),
    ];
    assert_eq!(found.len(), expected.len());
    for ((id, state, why), expected) in found.iter().zip(&expected) {
        assert_eq!((id, *state), (&expected.0, expected.1));
        assert!(why.starts_with(expected.2), "{why}");
    }
    assert_eq!(
        (overview.not_durable, overview.need_attention, overview.more),
        (2, 2, (0, 0))
    );
    assert_eq!(overview.durable_until_ms, Some(10), "the broken one begins there");
    let took = overview.blocks[0].seal_to_durable.unwrap();
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert_eq!(overview.blocks[1].seal_to_durable, None);
    let bytes = |block: &BlockOverview| block.bytes.unwrap();
    assert_eq!(overview.bytes, overview.blocks.iter().map(bytes).sum::<u64>());
    assert_eq!(bytes(&overview.blocks[1]), disk_usage(&dir));
}

/// What the files of a block take, in bytes.
fn disk_usage(block: &Path) -> u64 {
    let of = |dir: &Path| -> u64 {
        let entries = fs_err::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap());
        entries.filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
    };
    of(block) + of(&block.join("chunks"))
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_shown_until_it_works_again_and_a_wait_while_it_lasts() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let overviews = shipper.settings.overviews.clone();
    let a = name(1);
    world.bucket.on(Op::Upload, &a, ..=1, Fault::Fail(ErrorKind::Server));
    world.seal(&mut shipper, &Made::new(&a, 0));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    let failed = overviews.newest();
    assert!(failed.failure.as_ref().unwrap().contains(&a), "{failed:?}");
    assert_eq!(failed.blocks[0].state, BlockState::Due);
    let stands_at_gate = async {
        loop {
            let newest = overviews.newest();
            if newest.blocks[0].state == BlockState::Waiting {
                return newest;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let (outcome, waiting) = tokio::join!(shipper.pass(), stands_at_gate);
    assert_eq!(outcome, Outcome::Clean);
    let why = "its data is in the bucket, and its commit waits: it was sealed a moment ago";
    assert!(waiting.blocks[0].why.starts_with(why), "{waiting:?}");
    let done = overviews.newest();
    assert_eq!((done.blocks[0].state, &done.failure), (BlockState::Durable, &None));
    assert_eq!(overviews.under_way().uploads(), []);
}

#[tokio::test(start_paused = true)]
async fn of_very_many_blocks_those_are_shown_that_are_not_durable_and_the_newest() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let overviews = shipper.settings.overviews.clone();
    let first = name(0);
    let dir = world.seal(&mut shipper, &Made::new(&first, 0));
    fs_err::write(dir.join("index"), "no index").unwrap();
    // As if the bucket had been asked.
    shipper.ledger_checked = true;
    for n in 1..=1005 {
        let made = Made::new(&name(n), i64::from(n) * 10);
        shipper.ledger.record(id(&made.name), &Labels::default(), made.range.1);
        world.copy_in(&made);
    }
    shipper.pass().await;
    let overview = overviews.newest();
    assert_eq!(
        (overview.blocks.len(), overview.more, overview.not_durable),
        (1000, (6, 0), 1)
    );
    assert_eq!(overview.blocks[0].id, id(&first), "it is the oldest, and not durable");
    assert_eq!(overview.blocks[1].id, id(&name(7)));
    assert_eq!(overview.blocks[999].id, id(&name(1005)));
}

#[tokio::test(start_paused = true)]
async fn what_was_committed_is_shown_as_durable_while_another_block_takes_long() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let overviews = shipper.settings.overviews.clone();
    // It is looked at again in the pass that takes long, and stays what it is.
    let dir = world.seal(&mut shipper, &Made::new(&name(9), 30));
    fs_err::write(dir.join("index"), "no index").unwrap();
    shipper.pass().await;
    sleep(Duration::from_secs(3600)).await;
    let blocks = [1, 2, 3].map(name);
    world.bucket.on(Op::Upload, &blocks[2], .., Fault::Hang);
    for (block, min) in blocks.iter().zip([0, 10, 20]) {
        world.seal(&mut shipper, &Made::new(block, min));
    }
    let pass = timeout(Duration::from_secs(600), shipper.pass());
    assert!(pass.await.is_err(), "the last one hangs");
    let overview = overviews.newest();
    let states: Vec<BlockState> = overview.blocks.iter().map(|block| block.state).collect();
    let expected = [
        BlockState::Durable,
        BlockState::Durable,
        BlockState::Due,
        BlockState::SetAside,
    ];
    assert_eq!(states, expected);
    assert!(overview.blocks[3].why.starts_with("quarantined: "), "{overview:?}");
    assert_eq!((overview.not_durable, overview.durable_until_ms), (2, Some(20)));
}

#[tokio::test(start_paused = true)]
async fn that_labels_are_not_known_yet_is_no_failure_and_that_there_are_none_is() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let overviews = shipper.settings.overviews.clone();
    world.seal(&mut shipper, &Made::new(&name(1), 0));
    world.prometheus.send_modify(|prometheus| prometheus.labels = None);
    assert_eq!(shipper.pass().await, Outcome::Unlabelled);
    assert_eq!(overviews.newest().failure, None);
    world
        .prometheus
        .send_modify(|prometheus| prometheus.labels = Some(Labels::default()));
    assert_eq!(shipper.pass().await, Outcome::Unlabelled);
    let failure = overviews.newest().failure.clone().unwrap();
    assert!(failure.starts_with("there are no external labels"), "{failure}");
}
