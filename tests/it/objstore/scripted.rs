//! A server that does what a script says, down to the bytes on the wire.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What is done with a request, known by its head and its number (from 1).
pub(super) enum Act {
    /// Reads the body, then writes this.
    Answer(String),
    /// Reads the body, so many bytes after each pause, then writes this.
    Slowly(usize, Duration, String),
    /// Reads the body, then writes this with pauses between the pieces.
    Drip(Vec<String>, Duration),
    /// Reads the body, waits, then writes this.
    Late(Duration, String),
    /// Reads so many bytes of the body and closes the connection.
    Cut(usize),
    /// Reads so many bytes of the body and then does nothing any more.
    Stall(usize),
}

pub(super) fn ok(headers: &str, body: &str) -> Act {
    answer("200 OK", headers, body)
}

pub(super) fn answer(status: &str, headers: &str, body: &str) -> Act {
    Act::Answer(format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    ))
}

pub(super) fn refusal(status: &str, code: &str, message: &str) -> Act {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
    answer(status, "", &body)
}

/// Takes a body and acknowledges its checksum, as a store does.
pub(super) fn take(request: &Request) -> Act {
    let crc = request.header("x-amz-checksum-crc32c");
    ok(&format!("etag: \"e\"\r\nx-amz-checksum-crc32c: {crc}\r\n"), "")
}

/// A running server and what it saw.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) host: String,
    seen: Arc<Mutex<Vec<Request>>>,
    /// Requests that came and are not answered: now, and at most.
    unanswered: Arc<Mutex<(usize, usize)>>,
}

impl Server {
    pub(super) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests were not answered at the same time, at most.
    pub(super) fn most_at_once(&self) -> usize {
        self.unanswered.lock().unwrap().1
    }

    /// Counts anew.
    pub(super) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    pub(super) async fn start(script: impl Fn(&Request, usize) -> Act + Send + Sync + 'static) -> Self {
        crate::rig::limit::begin();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            host: listener.local_addr().unwrap().to_string(),
            seen: Arc::default(),
            unanswered: Arc::default(),
        };
        let (script, this) = (Arc::new(script), server.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (script, this) = (Arc::clone(&script), this.clone());
                tokio::spawn(async move { this.serve(socket, &*script).await });
            }
        });
        server
    }

    async fn serve(&self, mut socket: TcpStream, script: &(dyn Fn(&Request, usize) -> Act + Send + Sync)) {
        while let Some((mut request, early)) = head(&mut socket).await {
            {
                let mut unanswered = self.unanswered.lock().unwrap();
                unanswered.0 += 1;
                unanswered.1 = unanswered.1.max(unanswered.0);
            }
            let number = {
                let mut seen = self.seen.lock().unwrap();
                seen.push(request.clone());
                seen.len()
            };
            request.body = early;
            let act = script(&request, number);
            let all = request.header("content-length").parse().unwrap_or(0);
            let (most, piece, pause) = match &act {
                Act::Answer(_) | Act::Late(..) | Act::Drip(..) => (all, 1 << 20, Duration::ZERO),
                Act::Slowly(piece, pause, _) => (all, *piece, *pause),
                Act::Cut(bytes) | Act::Stall(bytes) => (all.min(*bytes), 1 << 20, Duration::ZERO),
            };
            while request.body.len() < most {
                tokio::time::sleep(pause).await;
                let mut buffer = vec![0; piece.min(most - request.body.len())];
                match socket.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => request.body.extend_from_slice(&buffer[..read]),
                }
            }
            if let Some(seen) = self.seen.lock().unwrap().get_mut(number - 1) {
                seen.body = request.body;
            }
            match act {
                Act::Answer(answer) | Act::Slowly(_, _, answer) => {
                    if socket.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
                Act::Late(late, answer) => {
                    tokio::time::sleep(late).await;
                    self.unanswered.lock().unwrap().0 -= 1;
                    if socket.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
                Act::Drip(pieces, pause) => {
                    for piece in pieces {
                        if socket.write_all(piece.as_bytes()).await.is_err() {
                            return;
                        }
                        tokio::time::sleep(pause).await;
                    }
                    return;
                }
                Act::Cut(_) => return,
                Act::Stall(_) => std::future::pending().await,
            }
        }
    }
}

/// A request's head, and what came of its body in the same breath.
async fn head(socket: &mut TcpStream) -> Option<(Request, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let mut request = Request {
        method: first.next()?.to_owned(),
        target: first.next()?.to_owned(),
        ..Request::default()
    };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        request
            .headers
            .insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some((request, bytes.split_off(end + 4)))
}
