use std::sync::atomic::{AtomicUsize, Ordering};

use fs_err as fs;

use super::*;

/// A configuration that can be changed, and a follower of it.
struct Place {
    dir: tempfile::TempDir,
    text: Arc<Mutex<Result<String, String>>>,
    reads: Arc<AtomicUsize>,
    live: Arc<Live>,
    follower: Follower,
}

fn yaml(dir: &std::path::Path, prefix: &str) -> String {
    format!(
        "type: FILESYSTEM\nconfig:\n  directory: {}\nprefix: {prefix}\n",
        dir.display()
    )
}

async fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let text = yaml(dir.path(), "a");
    let config = config::parse(&text).unwrap();
    let live = Arc::new(Live::new(open_plain(&config, &Limits::default()).await.unwrap()));
    let (shared, reads) = (Arc::new(Mutex::new(Ok(text.clone()))), Arc::new(AtomicUsize::new(0)));
    let read: ReadConfig = {
        let (shared, reads) = (Arc::clone(&shared), Arc::clone(&reads));
        Arc::new(move || {
            reads.fetch_add(1, Ordering::SeqCst);
            shared.lock().unwrap().clone()
        })
    };
    let registry = &mut Registry::default();
    let follower = Follower::new(Arc::clone(&live), read, text, Limits::default(), registry);
    Place {
        dir,
        text: shared,
        reads,
        live,
        follower,
    }
}

impl Place {
    async fn look_at(&mut self, text: Result<String, String>) -> i64 {
        *self.text.lock().unwrap() = text;
        self.follower.look().await;
        self.follower.successful.get()
    }
}

#[tokio::test]
async fn another_text_about_the_same_place_is_used_and_others_are_not() {
    let mut place = place().await;
    let dir = place.dir.path().to_owned();
    let first = place.live.now();
    assert_eq!(place.look_at(Ok(yaml(&dir, "a"))).await, 1);
    assert!(Arc::ptr_eq(&first, &place.live.now()), "nothing has changed");
    for wrong in [
        Ok(String::new()),
        Ok("type: NONE\n".to_owned()),
        Ok(yaml(&dir, "b")),
        Ok(yaml(&dir.join("elsewhere"), "a")),
        Err("it cannot be read".to_owned()),
    ] {
        assert_eq!(place.look_at(wrong.clone()).await, 0, "{wrong:?}");
        assert!(Arc::ptr_eq(&first, &place.live.now()), "{wrong:?}");
    }
    assert_eq!(place.look_at(Ok(format!("# new\n{}", yaml(&dir, "a")))).await, 1);
    assert!(!Arc::ptr_eq(&first, &place.live.now()));
    place.live.put_bytes("x", Bytes::from_static(b"y")).await.unwrap();
    assert_eq!(fs::read(dir.join("a/x")).unwrap(), b"y");
    place.live.settle().await;
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_ask_for_a_look_and_other_errors_do_not() {
    let Place {
        live, follower, reads, ..
    } = place().await;
    let error = |kind| {
        Err::<(), _>(Error {
            op: super::super::Op::Upload,
            key: String::new(),
            kind,
            detail: String::new(),
            source: None,
        })
    };
    let stop = CancellationToken::new();
    let following = tokio::spawn(follower.run(stop.clone()));
    let looked_after = async |kind: Option<ErrorKind>| {
        let before = reads.load(Ordering::SeqCst);
        let asked = tokio::time::Instant::now();
        let _ = kind.map(|kind| live.noted(error(kind)));
        while reads.load(Ordering::SeqCst) == before {
            sleep(Duration::from_millis(100)).await;
        }
        asked.elapsed()
    };
    looked_after(None).await;
    assert!(looked_after(Some(ErrorKind::Credentials)).await < Duration::from_secs(3));
    assert!(looked_after(Some(ErrorKind::Forbidden)).await < Duration::from_secs(3));
    assert!(looked_after(Some(ErrorKind::Server)).await > Duration::from_secs(28));
    stop.cancel();
    following.await.unwrap();
}
