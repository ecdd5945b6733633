//! A Prometheus that answers remote reads byte by byte as a test has scripted them. Everything else that it is asked it
//! answers as a real one.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use narthex::pb::prometheus::ReadRequest;
use prost::Message as _;

/// A part of what comes back. Without `Close` or `Reset` the connection stays for the next request.
pub(crate) enum Step {
    /// These bytes.
    Send(Vec<u8>),
    /// These bytes, each in a segment of its own.
    Drip(Vec<u8>),
    /// What the function gives, again and again, until the client is gone.
    Endless(Box<dyn FnMut() -> Vec<u8> + Send>),
    /// Nothing, until the other end of the channel tells or is gone.
    Until(mpsc::Receiver<()>),
    /// Nothing, until the client is gone.
    Hang,
    /// The connection ends as it should.
    Close,
    /// The connection is reset.
    Reset,
}

/// Gives the answer to a request.
type Script = Box<dyn FnMut(&ReadRequest) -> Vec<Step> + Send>;

/// The server; nothing listens any more when it is dropped.
pub(crate) struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    scripts: Mutex<HashMap<String, Script>>,
    /// The keys of the requests, in the order in which they came.
    asked: Mutex<Vec<String>>,
    /// Bytes of answers.
    sent: AtomicU64,
    /// Answers that are being given.
    busy: AtomicUsize,
    connections: AtomicUsize,
    stop: AtomicBool,
}

/// What it tells of itself.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `--storage.remote.read-concurrent-limit`.
    pub(crate) limit: usize,
    /// 404 if there is none.
    pub(crate) version: Option<&'static str>,
}

impl Fake {
    pub(crate) fn start(settings: Settings) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            settings,
            scripts: Mutex::default(),
            asked: Mutex::default(),
            sent: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
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
        Fake { address, shared }
    }

    /// Sets the answer to requests for `__name__="key"`.
    pub(crate) fn answer(&self, key: &str, script: impl FnMut(&ReadRequest) -> Vec<Step> + Send + 'static) {
        let mut scripts = self.shared.scripts.lock().unwrap();
        scripts.insert(key.to_owned(), Box::new(script));
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    pub(crate) fn busy(&self) -> usize {
        self.shared.busy.load(Ordering::SeqCst)
    }

    /// Connections over which something was asked that is not a heartbeat.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn connection(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut known = false;
        while let Some((path, body)) = read_request(&mut stream) {
            let stays = match path.as_str() {
                "/api/v1/read" => {
                    self.connections.fetch_add(usize::from(!known), Ordering::SeqCst);
                    known = true;
                    self.busy.fetch_add(1, Ordering::SeqCst);
                    let stays = self.read(&mut stream, &body);
                    self.busy.fetch_sub(1, Ordering::SeqCst);
                    stays
                }
                path => stream.write_all(&self.settings.tell(path)).is_ok(),
            };
            if !stays {
                return;
            }
        }
    }

    /// Answers a remote read; whether the connection stays.
    fn read(&self, stream: &mut TcpStream, body: &[u8]) -> bool {
        let plain = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        let request = ReadRequest::decode(&plain[..]).unwrap();
        let matchers = request.queries.iter().flat_map(|query| &query.matchers);
        let key = matchers.clone().find(|matcher| matcher.name == "__name__");
        let key = key.map(|matcher| matcher.value.clone()).unwrap_or_default();
        self.asked.lock().unwrap().push(key.clone());
        let steps = match self.scripts.lock().unwrap().get_mut(&key) {
            Some(script) => script(&request),
            None => panic!("nobody has told what to answer to {key}"),
        };
        steps.into_iter().all(|step| self.step(stream, step).unwrap_or(false))
    }

    /// Whether the connection stays.
    fn step(&self, stream: &mut TcpStream, step: Step) -> std::io::Result<bool> {
        let send = |stream: &mut TcpStream, bytes: &[u8]| {
            stream.write_all(bytes)?;
            self.sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            Ok(true)
        };
        match step {
            Step::Send(bytes) => send(stream, &bytes),
            Step::Drip(bytes) => bytes.iter().try_fold(true, |_, byte| send(stream, &[*byte])),
            Step::Endless(mut make) => loop {
                send(stream, &make())?;
            },
            Step::Until(told) => {
                // Told, or the test has ended.
                let _ = told.recv();
                Ok(true)
            }
            Step::Hang => {
                stream.read_exact(&mut [0])?;
                Ok(false)
            }
            Step::Close => Ok(false),
            Step::Reset => {
                socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
                Ok(false)
            }
        }
    }
}

impl Settings {
    fn tell(&self, path: &str) -> Vec<u8> {
        let data = match path {
            "/api/v1/status/flags" => serde_json::json!({
                "storage.remote.read-concurrent-limit": self.limit.to_string(),
            }),
            "/api/v1/status/buildinfo" => match self.version {
                Some(version) => serde_json::json!({"version": version}),
                None => return http(404, "text/plain", b"404 page not found\n"),
            },
            "/api/v1/status/config" => serde_json::json!({
                "yaml": "global:\n  external_labels:\n    cluster: rig\n",
            }),
            _ => return http(200, "text/plain", b""),
        };
        let body = serde_json::json!({"status": "success", "data": data});
        http(200, "application/json", &serde_json::to_vec(&body).unwrap())
    }
}

/// Path and body of the next request.
fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |length| length.trim().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head.split(' ').nth(1)?.to_owned(), body))
}

/// An answer with a length.
pub(crate) fn http(status: u16, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
