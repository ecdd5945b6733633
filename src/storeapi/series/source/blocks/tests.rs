use std::future::poll_fn;

use prometheus_client::registry::Registry;
use tonic::Code;

use super::{worker::SERIES, *};
use crate::{
    model::{Matcher, matcher::Op},
    storeapi::budget::Budget,
    tsdb::{
        read::{OpenBlock, Tables, Wanted},
        testing::indexed::{MadeBlock, MadeChunk, MadeSeries},
    },
};

/// Long enough for a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);

/// A block in a directory of its own, with series of these labels, and one short chunk each at this time.
pub(in crate::storeapi::series::source) fn block(
    labels: &[Vec<(&str, &str)>],
    time_ms: i64,
) -> (Wanted, tempfile::TempDir) {
    block_of(labels, time_ms, 8)
}

/// As [`block`], with chunks of so many bytes.
fn block_of(labels: &[Vec<(&str, &str)>], time_ms: i64, len: usize) -> (Wanted, tempfile::TempDir) {
    let chunk = || MadeChunk {
        min_ms: time_ms,
        max_ms: time_ms,
        encoding: 1,
        data: vec![7; len],
        cut: false,
    };
    let series: Vec<MadeSeries> = labels
        .iter()
        .map(|labels| MadeSeries::new(labels, vec![chunk()]))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let files = MadeBlock::of(&series).pinned(dir.path());
    let tables = Tables::read(files.index().unwrap()).unwrap();
    let block = OpenBlock::new(files, Arc::new(tables)).unwrap();
    let range = i64::MIN..=i64::MAX;
    (Wanted { block, range }, dir)
}

/// All series of a block, which may be held for so long once it is deleted.
pub(in crate::storeapi::series::source) fn frames(wanted: Wanted, patience: Duration) -> BlockFrames {
    frames_of(wanted, &[], patience)
}

/// As [`frames`], of those that match.
fn frames_of(wanted: Wanted, matchers: &[Matcher], patience: Duration) -> BlockFrames {
    let reading = Reading {
        blocks: OpenBlocks::of(vec![wanted]),
        queries: [(0, Selector::new(matchers).unwrap())].into(),
        with_chunks: true,
        patience,
        since: Instant::now(),
    };
    let environment = Environment {
        sealed: Sealed::new("/nowhere".into(), 1),
        metrics: Metrics::register(&mut Registry::default()),
        reservation: Budget::new(1 << 30).reservation(),
    };
    BlockFrames::new(reading, environment)
}

/// So many series, each with a label of its own.
fn many(count: usize) -> (Wanted, tempfile::TempDir) {
    let values: Vec<String> = (0..count).map(|at| format!("{at:06}")).collect();
    let labels: Vec<_> = values.iter().map(|value| vec![("a", &**value)]).collect();
    block(&labels, 7)
}

async fn next(frames: &mut BlockFrames) -> Option<Result<Frame, Status>> {
    let next = poll_fn(|cx| frames.poll_frame(cx));
    tokio::time::timeout(LIMIT, next)
        .await
        .expect("a frame, an error or the end")
}

#[tokio::test]
async fn all_series_come_once_in_order_and_no_more_are_read_than_may_wait() {
    let count = 12 * SERIES + 3;
    let (wanted, _dir) = many(count);
    let mut frames = frames(wanted, LIMIT);
    let (mut taken, mut found) = (0, Vec::new());
    while let Some(frame) = next(&mut frames).await {
        let frame = frame.unwrap();
        assert!(frame.query_index == 0 && (1..=SERIES).contains(&frame.series.len()));
        found.extend(frame.series.into_iter().map(|series| series.labels));
        taken += 1;
        // Those that wait, the one for which there is no room, and a list or two that were opened.
        let most = (taken + AHEAD + 1) * SERIES + 10;
        let read = frames.progress.steps();
        assert!(read <= most as u64, "{read} series were looked at for {taken} frames");
    }
    assert!(found.is_sorted_by(|a, b| a < b));
    assert_eq!(found.len(), count);
    assert!(next(&mut frames).await.is_none());
}

#[tokio::test]
async fn a_frame_keeps_little_more_than_was_read_for_it() {
    // Chunks of a kilobyte, of which every second or every twentieth is wanted.
    let values: Vec<String> = (0..6000).map(|at| format!("{at:06}")).collect();
    for apart in [2, 20] {
        let labels: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(at, value)| vec![("a", &**value), ("b", if at % apart == 0 { "wanted" } else { "other" })])
            .collect();
        let (wanted, _dir) = block_of(&labels, 7, 1000);
        let mut frames = frames_of(wanted, &[Matcher::new(Op::Equal, "b", "wanted")], LIMIT);
        let (mut found, mut most) = (0, 0);
        while let Some(frame) = next(&mut frames).await {
            let series = frame.unwrap().series;
            found += series.len();
            most = most.max(series.len());
        }
        assert_eq!(found, 6000_usize.div_ceil(apart));
        // Those that stand near each other are read together, and keep what lies between: 512 KiB for a frame at most. Those
        // that do not are copied, so that a frame has as many as fit into 256 KiB.
        let may_be = if apart == 2 { 100..=180 } else { 200..=270 };
        assert!(may_be.contains(&most), "{most} series in a frame, {apart} apart");
    }
}

#[tokio::test]
async fn what_was_cut_short_is_no_end() {
    let (wanted, _dir) = many(12 * SERIES);
    let mut frames = frames(wanted, LIMIT);
    next(&mut frames).await.unwrap().unwrap();
    frames._task.abort();
    let error = loop {
        match next(&mut frames).await.expect("no end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(
        (error.code(), error.message()),
        (Code::Internal, "reading sealed blocks was cut short")
    );
    assert!(next(&mut frames).await.is_none());
}

#[tokio::test]
async fn a_deleted_block_is_held_no_longer_than_it_may_be() {
    let (wanted, dir) = many(12 * SERIES);
    let mut patient = frames(wanted.clone(), LIMIT);
    let mut hasty = frames(wanted, Duration::ZERO);
    fs_err::remove_file(dir.path().join("index")).unwrap();
    let outcome = async |frames: &mut BlockFrames| loop {
        match next(frames).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break Some(error.code()),
            None => break None,
        }
    };
    assert_eq!(outcome(&mut patient).await, None);
    assert_eq!(outcome(&mut hasty).await, Some(Code::Aborted));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_deleted_block_is_closed_while_its_client_takes_nothing() {
    let (wanted, dir) = many(12 * SERIES);
    let mut frames = frames(wanted, Duration::from_millis(200));
    next(&mut frames).await.unwrap().unwrap();
    assert!(has_open(dir.path()));
    fs_err::remove_file(dir.path().join("index")).unwrap();
    wait_until_closed(dir.path()).await;
    let error = loop {
        match next(&mut frames).await.expect("no end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::Aborted);
}

/// Whether the process has a file of this directory open.
#[cfg(target_os = "linux")]
fn has_open(dir: &std::path::Path) -> bool {
    let open = fs_err::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.ok()?.path().read_link().ok());
    open.into_iter().any(|path| path.starts_with(dir))
}

#[cfg(target_os = "linux")]
async fn wait_until_closed(dir: &std::path::Path) {
    let closed = async {
        while has_open(dir) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, closed).await.expect("the block is closed");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn dropping_it_ends_the_reading_and_closes_the_block() {
    let (wanted, dir) = many(100 * SERIES);
    let mut frames = frames(wanted, LIMIT);
    next(&mut frames).await.unwrap().unwrap();
    assert!(has_open(dir.path()));
    let progress = frames.progress.clone();
    drop(frames);
    wait_until_closed(dir.path()).await;
    assert!(progress.steps() < 100 * SERIES as u64);
}
