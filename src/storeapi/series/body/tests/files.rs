//! Answers of which a part goes through a file.

use tempfile::TempDir;

use super::*;

/// How long an operation takes in a directory that hangs.
const HANGS: Duration = Duration::from_secs(86_400);

/// A directory for files of at most `limit` bytes together, a call that has room for little in memory, and what it gave first.
async fn begun(limit: u64) -> (TempDir, Call, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup {
        read_ahead: MIB,
        spill_dir: Some(SpillDir::open(dir.path(), limit, Gauge::default()).unwrap()),
        ..Setup::default()
    };
    let mut call = Call::start(endless().take(300), setup).await;
    let first = call.next().await.unwrap().to_vec();
    (dir, call, first)
}

#[tokio::test]
async fn what_memory_has_no_room_for_goes_through_a_file() {
    let (dir, mut call, mut all) = begun(1 << 30).await;
    // Until Prometheus is through, which needs no client, and what was on its way to the file is there.
    while !call.dropped.load(Ordering::SeqCst) || call.budget.used() > 2 * MIB {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(call.read(), 300);
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
    let (rest, status) = call.rest(Duration::ZERO).await;
    all.extend_from_slice(&rest);
    assert_eq!(status, "0");
    assert!(all == wanted(300).await, "{} bytes", all.len());
    assert_eq!(call.budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn series_count_as_sent_when_the_client_has_taken_them_whatever_was_read_ahead() {
    let (_dir, _, mut call) = without_memory(PATIENCE, |_| endless().take(100).boxed()).await;
    let (mut bytes, mut series) = (0, 0);
    let status = loop {
        match call.next().await {
            Ok(piece) => bytes += piece.len(),
            Err(status) => break status,
        }
        series = call.metric("narthex_series_sent_total").parse().unwrap();
        // Some are in part of what was taken.
        let most = bytes / CHUNK;
        assert!((most.saturating_sub(3)..=most).contains(&series), "{series} of {most}");
        sleep(Duration::from_millis(200)).await;
    };
    assert_eq!((&*status, series), ("0", 100));
}

#[tokio::test]
async fn many_whose_answers_are_in_files_hold_a_piece_each() {
    let dir = tempfile::tempdir().unwrap();
    let (spill_dir, budget) = (
        SpillDir::open(dir.path(), 1 << 30, Gauge::default()).unwrap(),
        Budget::new(256 * MIB),
    );
    let mut calls = Vec::new();
    for _ in 0..20 {
        let setup = Setup {
            read_ahead: MIB,
            spill_dir: Some(spill_dir.clone()),
            budget: budget.clone(),
            ..Setup::default()
        };
        calls.push(Call::start(endless().take(50), setup).await);
    }
    for call in &calls {
        while !call.dropped.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(5)).await;
        }
    }
    // Each takes some, so that what comes next comes from its file; what its connection holds is apart.
    let each = MIB / 2 + 3 * PIECE;
    for _ in 0..10 {
        for call in &mut calls {
            call.next().await.unwrap();
        }
    }
    let limit = Instant::now() + Duration::from_secs(60);
    while budget.used() > 20 * each {
        assert!(Instant::now() < limit, "{}", budget.used());
        sleep(Duration::from_millis(5)).await;
    }
    let wanted = wanted(50).await;
    for mut call in calls {
        let (rest, status) = call.rest(Duration::ZERO).await;
        assert!(status == "0" && wanted.ends_with(&rest));
    }
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn a_file_that_may_not_grow_is_as_none_and_loses_nothing() {
    let (_dir, mut call, mut all) = begun(3 << 20).await;
    // Until nothing more is read.
    let mut before = 0;
    while call.read() != before || before < 40 {
        before = call.read();
        sleep(Duration::from_millis(300)).await;
    }
    assert!(before < 100, "{before}");
    let (rest, status) = call.rest(Duration::ZERO).await;
    all.extend_from_slice(&rest);
    assert_eq!(status, "0");
    assert!(all == wanted(300).await, "{} bytes", all.len());
}

#[tokio::test]
async fn a_call_without_room_on_disk_goes_on_in_its_file_when_another_call_ends() {
    let dir = tempfile::tempdir().unwrap();
    let spill_dir = SpillDir::open(dir.path(), 4_500_000, Gauge::default()).unwrap();
    let setup = || Setup {
        read_ahead: 0,
        spill_dir: Some(spill_dir.clone()),
        ..Setup::default()
    };
    let mut first = Call::start(endless().take(30), setup()).await;
    first.next().await.unwrap();
    while !first.dropped.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(5)).await;
    }
    // Part of it is in its file when there is no more room.
    let mut second = Call::start(endless().take(40), setup()).await;
    let mut all = second.next().await.unwrap().to_vec();
    while spill_dir.refused() == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    assert!(!second.dropped.load(Ordering::SeqCst));
    drop(first);
    // Without its client's doing.
    while !second.dropped.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(5)).await;
    }
    let (rest, status) = second.rest(Duration::ZERO).await;
    all.extend_from_slice(&rest);
    assert_eq!(status, "0");
    assert!(all == wanted(40).await, "{} bytes", all.len());
    assert_eq!(second.metric("narthex_series_clients_lagged_total"), "0");
}

#[tokio::test]
async fn what_is_on_its_way_to_a_file_cannot_be_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let spill_dir = SpillDir::open(dir.path(), 1 << 30, Gauge::default()).unwrap();
    let setup = Setup {
        read_ahead: 0,
        spill_dir: Some(spill_dir),
        retry: Some(frames(&["a", "b", "c", "d", "e"])),
        ..Setup::default()
    };
    let large = encode(0, &[(set(&[("n", "a")]), vec![7; 2 * MIB])]);
    let all = std::iter::once(large).chain(frames(&["c", "e", "b", "d"]));
    let mut call = Call::start(stream::iter(all.collect::<Vec<_>>()), setup).await;
    while !call.dropped.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(5)).await;
    }
    let (_, status) = call.rest(Duration::ZERO).await;
    assert_eq!(status, "13");
}

#[tokio::test(start_paused = true)]
async fn a_file_is_created_once_for_a_client_that_takes_all_while_prometheus_pauses() {
    const TOO_MANY: usize = 20;
    let dir = tempfile::tempdir().unwrap();
    let spill_dir = SpillDir::open(dir.path(), 1 << 30, Gauge::default()).unwrap();
    let setup = Setup {
        read_ahead: 0,
        spill_dir: Some(spill_dir.clone()),
        ..Setup::default()
    };
    // Time stands still while files are created: with too many of them the pause ends, too.
    let created = spill_dir.clone();
    let pause = stream::once(async move {
        let mut over = Box::pin(sleep(Duration::from_secs(10)));
        let ended = |cx: &mut Context<'_>| match created.created() < TOO_MANY {
            true => over.as_mut().poll(cx),
            false => Poll::Ready(()),
        };
        std::future::poll_fn(ended).await;
    });
    let pause = pause.filter_map(|()| async { None });
    let frames = endless().take(5).chain(pause).chain(endless().skip(5).take(5));
    let mut call = Call::start(frames, setup).await;
    let mut all = call.next().await.unwrap().to_vec();
    sleep(Duration::from_secs(1)).await;
    let status = loop {
        match call.next().await {
            Ok(piece) => all.extend_from_slice(&piece),
            Err(status) => break status,
        }
    };
    assert!(
        status == "0" && all == wanted(10).await,
        "{status}, {} bytes",
        all.len()
    );
    assert_eq!(spill_dir.created(), 1);
}

/// A directory, and a call without room in memory whose Prometheus may wait so long for the client.
async fn without_memory(
    patience: Duration,
    frames: impl FnOnce(&SpillDir) -> futures_util::stream::BoxStream<'static, Bytes>,
) -> (TempDir, SpillDir, Call) {
    let dir = tempfile::tempdir().unwrap();
    let spill_dir = SpillDir::open(dir.path(), 1 << 30, Gauge::default()).unwrap();
    let setup = Setup {
        read_ahead: 0,
        spill_dir: Some(spill_dir.clone()),
        patience,
        ..Setup::default()
    };
    let call = Call::start(frames(&spill_dir), setup).await;
    (dir, spill_dir, call)
}

#[tokio::test(start_paused = true)]
async fn an_answer_goes_through_a_file_also_when_prometheus_may_not_wait_for_the_client() {
    let (_dir, _, mut call) = without_memory(Duration::ZERO, |_| endless().take(100).boxed()).await;
    let mut all = call.next().await.unwrap().to_vec();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(call.read(), 100);
    let (rest, status) = call.rest(Duration::ZERO).await;
    all.extend_from_slice(&rest);
    assert!(
        status == "0" && all == wanted(100).await,
        "{status}, {} bytes",
        all.len()
    );
    assert_eq!(call.metric("narthex_series_clients_lagged_total"), "0");
}

/// The call has ended in time since its file cannot be reached, which is not its client's fault.
async fn assert_ended_for_the_disk(call: &mut Call) {
    sleep(PATIENCE / 2).await;
    assert!(call.dropped.load(Ordering::SeqCst));
    let (_, status) = call.rest(Duration::ZERO).await;
    assert_eq!(status, "14");
    assert_eq!(call.metric("narthex_series_clients_lagged_total"), "0");
}

#[tokio::test(start_paused = true)]
async fn a_directory_in_which_no_file_can_be_created_in_time_is_not_blamed_on_the_client() {
    let (_dir, spill_dir, mut call) = without_memory(PATIENCE, |_| endless().boxed()).await;
    spill_dir.slow_down(HANGS);
    call.next().await.unwrap();
    assert_ended_for_the_disk(&mut call).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_written_to_in_time_is_not_blamed_on_the_client() {
    let (_dir, spill_dir, mut call) = without_memory(PATIENCE, |spill_dir| {
        let spill_dir = spill_dir.clone();
        let frames = endless().enumerate().map(move |(at, frame)| {
            // The file is there, and no block of it is full.
            if at == 8 {
                spill_dir.slow_down(HANGS);
            }
            frame
        });
        frames.boxed()
    })
    .await;
    call.next().await.unwrap();
    assert_ended_for_the_disk(&mut call).await;
    assert_eq!(spill_dir.created(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_in_time_ends_the_call_whatever_prometheus_may_wait() {
    let frames = endless().take(40).chain(stream::pending());
    let (_dir, spill_dir, mut call) = without_memory(PATIENCE, |_| frames.boxed()).await;
    call.next().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    spill_dir.slow_down(HANGS);
    // It takes what waits in memory, and then needs the file.
    while let Some(Ok(_)) = call.next().now_or_never() {}
    assert_ended_for_the_disk(&mut call).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_slow_keeps_prometheus_waiting_for_ten_seconds_in_all() {
    let (_dir, spill_dir, mut call) = without_memory(Duration::ZERO, |_| endless().boxed()).await;
    // Each operation is in time.
    spill_dir.slow_down(Duration::from_secs(4));
    call.next().await.unwrap();
    sleep(Duration::from_secs(9)).await;
    assert!(!call.dropped.load(Ordering::SeqCst));
    sleep(Duration::from_secs(5)).await;
    assert!(call.dropped.load(Ordering::SeqCst));
    let (_, status) = call.rest(Duration::ZERO).await;
    assert_eq!(status, "14");
    // It was not the client.
    let text = "the%20directory%20of%20--store.spill-dir%20is%20too%20slow";
    assert!(call.message.starts_with(text), "{}", call.message);
    assert_eq!(call.metric("narthex_series_clients_lagged_total"), "0");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_slow_once_is_not_blamed_for_a_slow_client() {
    let dir = tempfile::tempdir().unwrap();
    let spill_dir = SpillDir::open(dir.path(), 2_000_000, Gauge::default()).unwrap();
    let setup = Setup {
        read_ahead: 0,
        spill_dir: Some(spill_dir.clone()),
        ..Setup::default()
    };
    let mut call = Call::start(endless(), setup).await;
    spill_dir.slow_down(Duration::from_secs(2));
    call.next().await.unwrap();
    sleep(2 * PATIENCE).await;
    assert!(call.dropped.load(Ordering::SeqCst));
    let (_, status) = call.rest(Duration::ZERO).await;
    assert_eq!(status, "10");
    assert!(
        call.message.starts_with("the%20client%20reads%20too%20slowly"),
        "{}",
        call.message
    );
    assert_eq!(call.metric("narthex_series_clients_lagged_total"), "1");
}
