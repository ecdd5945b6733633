//! Whole heartbeats, beside a server with scripted answers.

use std::sync::Mutex;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::prometheus::stored_names::Counts;

/// Status and body; `None` is no answer, ever.
type Told = Option<(u16, String)>;

/// A server; what it was asked is kept.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers each request by its path and its number.
    async fn start(answer: impl Fn(&str, usize) -> Told + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, heard) = (Arc::new(answer), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, heard) = (Arc::clone(&answer), Arc::clone(&heard));
                tokio::spawn(async move { serve(stream, &*answer, &heard).await });
            }
        });
        Server { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &(dyn Fn(&str, usize) -> Told + Send + Sync),
    heard: &Mutex<Vec<String>>,
) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let number = {
            let mut heard = heard.lock().unwrap();
            heard.push(path.clone());
            heard.len() - 1
        };
        let Some((status, body)) = answer(&path, number) else {
            return std::future::pending().await;
        };
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// What a Prometheus with one external label answers; it stores `replica` only.
fn well(path: &str) -> Told {
    let data = match path {
        "/api/v1/status/flags" => r#"{"storage.tsdb.min-block-duration":"2h","storage.tsdb.max-block-duration":"2h"}"#,
        "/api/v1/status/buildinfo" => r#"{"version":"3.5.0"}"#,
        "/api/v1/status/config" => r#"{"yaml":"global:\n  external_labels:\n    cluster: eu\n"}"#,
        "/metrics" => {
            let page = "# TYPE prometheus_tsdb_lowest_timestamp_seconds gauge\n\
                        prometheus_tsdb_lowest_timestamp_seconds 1.7e+09\n";
            return Some((200, page.to_owned()));
        }
        "/api/v1/label/replica/values?limit=1" => r#"["a"]"#,
        _ => "[]",
    };
    Some((200, format!(r#"{{"status":"success","data":{data}}}"#)))
}

/// A heartbeat that was answered before.
fn up(server: &Server) -> Heartbeat {
    let (mut heartbeat, _) = heartbeat_of(&server.url, settings());
    heartbeat.apply(reading(&[("cluster", "eu")], "2h"));
    heartbeat
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_hangs_anywhere_is_told_within_its_time_both_tries_included() {
    for at in ["/flags", "/buildinfo", "/metrics", "/config"] {
        let server = Server::start(move |path, _| if path.ends_with(at) { None } else { well(path) }).await;
        for heartbeat in [up(&server), heartbeat_of(&server.url, settings()).0] {
            let start = Instant::now();
            let error = heartbeat.read_twice().await.expect_err("it hangs");
            assert_eq!(start.elapsed(), LIMIT, "{at}");
            assert!(
                error.url.ends_with(at) && matches!(error.kind, ErrorKind::Timeout(LIMIT)),
                "{error}"
            );
        }
        let tries = server.asked().iter().filter(|path| path.ends_with(at)).count();
        assert_eq!(tries, 3, "two for the one that was up");
    }
}

#[tokio::test(start_paused = true)]
async fn one_try_that_hangs_is_made_good_by_the_other() {
    let server = Server::start(|path, number| (number > 0).then(|| well(path)).flatten()).await;
    let start = Instant::now();
    let (began, reading) = up(&server).read_twice().await.unwrap();
    assert!(
        began >= start + LIMIT / 2 && start.elapsed() < LIMIT,
        "{:?}",
        start.elapsed()
    );
    assert_eq!(reading.configuration.labels, Labels::from_pairs([("cluster", "eu")]));
    assert!(
        reading.storage_asked_at >= Some(began),
        "{:?}",
        reading.storage_asked_at
    );
}

#[tokio::test(start_paused = true)]
async fn the_storage_is_asked_after_the_moment_that_is_told() {
    let answered = Arc::new(Mutex::new(None));
    let heard = Arc::clone(&answered);
    let server = Server::start(move |path, _| {
        if path == "/metrics" {
            *heard.lock().unwrap() = Some(Instant::now());
        }
        well(path)
    })
    .await;
    let (began, reading) = up(&server).read_twice().await.unwrap();
    let (asked, answered) = (reading.storage_asked_at, *answered.lock().unwrap());
    assert!(Some(began) <= asked && asked <= answered, "{asked:?} {answered:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guarded_metrics_page_costs_what_is_on_it_and_is_told_once() {
    for status in [401, 403, 500, 503] {
        let guarded = move |path: &str, _| match path {
            "/metrics" => Some((status, "hunter".to_owned())),
            path => well(path),
        };
        let server = Server::start(guarded).await;
        let mut heartbeat = up(&server);
        for round in 1..3 {
            let (_, reading) = heartbeat.read_twice().await.unwrap();
            assert_eq!((reading.storage, reading.storage_asked_at), (Storage::default(), None));
            heartbeat.apply(Ok(reading));
            let snapshot = heartbeat.sender.borrow().clone();
            assert!(snapshot.up && snapshot.problem.is_none(), "{snapshot:?}");
            assert_eq!((snapshot.lowest_time_ms, heartbeat.metrics.up.get()), (0, 1));
            assert!(matches!(&*heartbeat.warned, [one] if one.contains("own metrics cannot be read")));
            // One such answer is not believed while the page was there; after that it is.
            let asked = server.asked().iter().filter(|path| *path == "/metrics").count();
            assert_eq!(asked, 1 + round, "{:?}", server.asked());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_and_an_end_of_that_leaves_the_rest_unknown() {
    let server = Server::start(|path, _| well(path)).await;
    let (mut heartbeat, registry) = heartbeat_of(&server.url, settings());
    heartbeat.apply(reading(&[("cluster", "eu")], "2h"));
    let names = heartbeat.stored_names();
    for name in ["replica", "pod", "a.b"] {
        assert!(names.may_be_stored(name));
    }
    heartbeat.look_up_names().await;
    // The external label is among them, though nobody has asked.
    let told = || ["cluster", "replica", "pod", "a.b"].map(|name| names.may_be_stored(name));
    assert_eq!(
        told(),
        [false, true, false, true],
        "2.42 cannot be asked about one of them"
    );
    let counts = |stored, absent, unknown| Counts {
        stored,
        absent,
        unknown,
    };
    assert_eq!(names.counts(), counts(1, 2, 1));
    let (_, reading) = heartbeat.read_twice().await.unwrap();
    heartbeat.apply(Ok(reading));
    assert_eq!(told(), [true; 4], "this is another version");
    heartbeat.look_up_names().await;
    assert_eq!(told(), [false, true, false, false]);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for (stored, count) in [("yes", 1), ("no", 3), ("unknown", 0)] {
        let line = format!("\nnarthex_looked_up_label_names{{stored=\"{stored}\"}} {count}\n");
        assert!(text.contains(&line), "{text}");
    }
    assert!(
        server
            .asked()
            .contains(&"/api/v1/label/U__a_2e_b/values?limit=1".to_owned())
    );

    for answer in [None, Some((403, String::new()))] {
        let hangs = answer.is_none();
        let silent = move |path: &str, _| match path {
            path if path.starts_with("/api/v1/label/pod/") => answer.clone(),
            path => well(path),
        };
        let server = Server::start(silent).await;
        let mut heartbeat = up(&server);
        let (_, reading) = heartbeat.read_twice().await.unwrap();
        heartbeat.apply(Ok(reading));
        let names = heartbeat.stored_names();
        for name in ["pod", "replica", "a.b"] {
            names.may_be_stored(name);
        }
        names.looked_up("zone", false);
        let start = Instant::now();
        heartbeat.look_up_names().await;
        assert_eq!(start.elapsed(), if hangs { LOOKUP_TIME } else { Duration::ZERO });
        let told = ["a.b", "cluster", "pod", "replica"].map(|name| names.may_be_stored(name));
        assert_eq!(told, [false, false, true, true]);
        let asked = server.asked();
        assert!(!asked.iter().any(|path| path.contains("/label/replica/")), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_tell_its_flags_is_known_by_what_it_refuses() {
    let agent = |path: &str, _| match path {
        "/api/v1/status/flags" => Some((404, String::new())),
        path if path.starts_with("/api/v1/label/") => {
            let body = r#"{"status":"error","errorType":"execution","error":"unavailable with Prometheus Agent"}"#;
            Some((422, body.to_owned()))
        }
        path => well(path),
    };
    let server = Server::start(agent).await;
    let (mut heartbeat, _) = heartbeat_of(&server.url, settings());
    for round in 0..3 {
        let (_, reading) = heartbeat.read_twice().await.unwrap();
        heartbeat.apply(Ok(reading));
        assert_eq!(heartbeat.sender.borrow().is_agent(), round > 0);
        heartbeat.look_up_names().await;
    }
    assert!(
        matches!(&*heartbeat.warned, [one] if one.contains("agent mode")),
        "{:?}",
        heartbeat.warned
    );
    let last_lookup = server
        .asked()
        .iter()
        .filter(|path| path.starts_with("/api/v1/label/"))
        .count();
    assert_eq!(last_lookup, 1, "an agent is not asked again");
    // After a restart it may be another.
    heartbeat.apply(refused());
    let (_, reading) = heartbeat.read_twice().await.unwrap();
    heartbeat.apply(Ok(reading));
    assert!(!heartbeat.sender.borrow().is_agent());
}
