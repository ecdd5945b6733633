//! A server that answers as it is told, also wrongly. It speaks plain TCP, so that every fault is possible.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use url::Url;

/// What comes back for a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// An answer as it should be, after which the connection stays.
    Http(u16, Vec<u8>),
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// Nothing, until the client goes.
    Stall,
    /// A head, then the piece again and again with a pause, until the client goes.
    Endless(Vec<u8>, Duration),
    /// Another answer, later.
    Later(Duration, Box<Answer>),
}

type Script = Box<dyn FnMut(&str) -> Answer + Send>;

/// The server; nothing listens any more when it is dropped.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    secure: bool,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<Script>,
    /// The head of each request.
    heads: Mutex<Vec<String>>,
    /// The names that TLS clients asked for.
    names: Mutex<Vec<Option<String>>>,
    connections: AtomicUsize,
    /// Connections that the client has closed.
    closed: AtomicUsize,
    stop: AtomicBool,
    tls: Option<Arc<ServerConfig>>,
}

impl Fake {
    /// Starts one; the script is given the path of each request.
    pub(crate) fn start(script: impl FnMut(&str) -> Answer + Send + 'static) -> Fake {
        Fake::start_with(script, None)
    }

    /// Starts one that speaks TLS.
    pub(crate) fn start_with(
        script: impl FnMut(&str) -> Answer + Send + 'static,
        tls: Option<Arc<ServerConfig>>,
    ) -> Fake {
        crate::rig::limit::begin();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let secure = tls.is_some();
        let shared = Arc::new(Shared {
            script: Mutex::new(Box::new(script)),
            heads: Mutex::default(),
            names: Mutex::default(),
            connections: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            tls,
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if accepting.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.connection(stream));
            }
        });
        Fake {
            address,
            secure,
            shared,
        }
    }

    /// Changes what is answered from now on.
    pub(crate) fn answer(&self, script: impl FnMut(&str) -> Answer + Send + 'static) {
        *self.shared.script.lock().unwrap() = Box::new(script);
    }

    pub(crate) fn url(&self) -> Url {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.address).parse().unwrap()
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// The head of the last request, but for those in which a heartbeat looks names of labels up: they come when they like.
    pub(crate) fn last_head(&self) -> String {
        let mut heads = self.heads();
        // Behind what the address of Prometheus has of a query.
        let looks_up = |line: &str| line.contains("/values?") && line.contains("limit=1 ") && !line.contains("start=");
        heads.retain(|head| !looks_up(head.lines().next().unwrap_or_default()));
        heads.pop().expect("there was a request")
    }

    pub(crate) fn names(&self) -> Vec<Option<String>> {
        self.shared.names.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn closed(&self) -> usize {
        self.shared.closed.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn connection(&self, stream: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        match &self.tls {
            None => self.requests(stream),
            Some(config) => {
                let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream);
                while stream.conn.is_handshaking() {
                    if stream.conn.complete_io(&mut stream.sock).is_err() {
                        return;
                    }
                }
                let name = stream.conn.server_name().map(str::to_owned);
                self.names.lock().unwrap().push(name);
                self.requests(stream);
            }
        }
        self.closed.fetch_add(1, Ordering::SeqCst);
    }

    fn requests(&self, mut stream: impl Read + Write) {
        while let Some(head) = read_head(&mut stream) {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            self.heads.lock().unwrap().push(head);
            let answer = (self.script.lock().unwrap())(&path);
            if !send(&mut stream, answer) {
                return;
            }
        }
    }
}

fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// Whether the connection stays.
fn send(stream: &mut (impl Read + Write), answer: Answer) -> bool {
    match answer {
        Answer::Http(status, body) => stream
            .write_all(&http(status, &body))
            .and_then(|()| stream.flush())
            .is_ok(),
        Answer::Raw(bytes) => {
            let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
            false
        }
        Answer::Stall => {
            let _ = stream.read(&mut [0]);
            false
        }
        Answer::Endless(head, pause) => {
            let piece = [b'x'; 16 << 10];
            let piece = if pause.is_zero() { &piece[..] } else { &piece[..1] };
            let mut going = stream.write_all(&head).is_ok();
            while going {
                going = stream.write_all(piece).and_then(|()| stream.flush()).is_ok();
                thread::sleep(pause);
            }
            false
        }
        Answer::Later(time, answer) => {
            thread::sleep(time);
            send(stream, *answer)
        }
    }
}

/// An answer with a length.
pub(crate) fn http(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// What a Prometheus with this configuration and these block durations answers.
pub(crate) fn prometheus(path: &str, yaml: &str, min: &str, max: &str) -> Answer {
    let data = match path {
        "/api/v1/status/flags" => serde_json::json!({
            "storage.tsdb.min-block-duration": min,
            "storage.tsdb.max-block-duration": max,
        }),
        "/api/v1/status/buildinfo" => serde_json::json!({"version": "2.42.0+ds", "goVersion": "go1.19"}),
        "/api/v1/status/config" => serde_json::json!({ "yaml": yaml }),
        "/metrics" => {
            let page = "# TYPE prometheus_tsdb_lowest_timestamp_seconds gauge\n\
                        prometheus_tsdb_lowest_timestamp_seconds 1.7e+09\n";
            return Answer::Http(200, page.into());
        }
        path if path.starts_with("/api/v1/label/") => serde_json::json!([]),
        _ => return Answer::Http(200, b"Prometheus Server is Ready.\n".to_vec()),
    };
    Answer::Http(
        200,
        serde_json::to_vec(&serde_json::json!({"status": "success", "data": data})).unwrap(),
    )
}
