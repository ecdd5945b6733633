//! An S3 server inside this process, whose objects are files, with scripted faults in front of it.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use s3s::service::S3Service;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch};

use super::{
    bucket::BucketView,
    fault::{Fault, Rule, Script, Seen},
    s3_client::S3Client,
    tools::temp_dir,
    weed::{ACCESS_KEY, SECRET_KEY},
};

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// What the server is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Down,
    End,
}

/// A running server; it runs on a thread of its own, so that a test may block, and ends when dropped.
///
/// It checks signatures and checksums, and makes a bucket that does not exist on the first put. It is a simulator: what
/// it accepts says less than what [`super::Weed`] accepts.
#[derive(Debug)]
pub(crate) struct S3Server {
    address: SocketAddr,
    script: Arc<Script>,
    state: watch::Sender<State>,
    thread: Option<JoinHandle<()>>,
    dir: TempDir,
}

impl S3Server {
    /// Starts one.
    pub(crate) fn start() -> S3Server {
        let dir = temp_dir("s3");
        let files = s3s_fs::FileSystem::new(dir.path()).expect("the directory is there");
        let mut builder = s3s::service::S3ServiceBuilder::new(files);
        builder.set_auth(s3s::auth::SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there are free ports");
        listener
            .set_nonblocking(true)
            .expect("a listener can be made asynchronous");
        let address = listener.local_addr().expect("a listener has an address");
        let script = Arc::new(Script::default());
        let (state, states) = watch::channel(State::Up);
        let front = Front {
            service,
            script: Arc::clone(&script),
        };
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .expect("a runtime can be made")
                .block_on(serve(listener, address, states, front));
        };
        let thread = std::thread::Builder::new()
            .name("s3".to_owned())
            .spawn(run)
            .expect("a thread can be started");
        S3Server {
            address,
            script,
            state,
            thread: Some(thread),
            dir,
        }
    }

    /// Makes a bucket.
    pub(crate) fn bucket(&self, name: &str) -> BucketView {
        fs_err::create_dir_all(self.dir.path().join(name)).expect("the directory can be written");
        BucketView::s3(S3Client::new(format!("http://{}", self.address), name))
    }

    /// Its address without the scheme.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// The file behind an object, to be damaged.
    pub(crate) fn file(&self, bucket: &str, key: &str) -> PathBuf {
        self.dir.path().join(bucket).join(key)
    }

    /// From now on these requests meet this fault.
    pub(crate) fn fault(&self, rule: Rule) {
        self.script.add(rule);
    }

    /// No more faults.
    pub(crate) fn heal(&self) {
        self.script.clear();
    }

    /// All requests so far, in the order in which they came; those of a [`BucketView`] too.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.seen()
    }

    /// How many of the requests so far are such.
    pub(crate) fn count(&self, such: impl Fn(&Seen) -> bool) -> usize {
        self.script.count(such)
    }

    /// Cuts all connections and refuses new ones, until [`S3Server::up`].
    pub(crate) fn down(&self) {
        self.state.send_replace(State::Down);
    }

    /// Serves again.
    pub(crate) fn up(&self) {
        self.state.send_replace(State::Up);
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.state.send_replace(State::End);
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed and must not become a second one here.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: std::net::TcpListener, address: SocketAddr, mut states: watch::Receiver<State>, front: Front) {
    let mut listener = Some(TcpListener::from_std(listener).expect("we are in a runtime"));
    loop {
        let state = *states.borrow_and_update();
        match state {
            State::End => return,
            State::Down => drop(listener.take()),
            State::Up if listener.is_none() => {
                listener = Some(
                    TcpListener::bind(address)
                        .await
                        .expect("nobody has taken the port meanwhile"),
                );
            }
            State::Up => {}
        }
        let Some(open) = &listener else {
            let _ = states.changed().await;
            continue;
        };
        tokio::select! {
            _ = states.changed() => {}
            Ok((socket, _)) = open.accept() => {
                let (front, mut states) = (front.clone(), states.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| front.clone().answer(request));
                    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                    tokio::select! {
                        // An error is a connection that was cut, by a fault or by the client.
                        _ = connection => {}
                        _ = states.changed() => {}
                    }
                });
            }
        }
    }
}

/// The faults, and the server behind them.
#[derive(Clone, Debug)]
struct Front {
    service: S3Service,
    script: Arc<Script>,
}

impl Front {
    /// An error closes the connection.
    async fn answer(self, request: Request<Incoming>) -> Result<Answer, io::Error> {
        match self.script.meet(&request) {
            None => self.carry_out(request).await,
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                self.carry_out(request).await
            }
            Some(Fault::Hold) => {
                self.script.over().await;
                self.carry_out(request).await
            }
            Some(Fault::Answer(status, code)) => Ok(refusal(status, code)),
            Some(Fault::Elsewhere(status, code, region)) => Ok(elsewhere(status, code, region)),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::CutBody(bytes)) => {
                drop(read(request.into_body(), bytes).await?);
                Err(io::Error::other("cut by the script"))
            }
            Some(Fault::StallBody(bytes)) => {
                // The body must stay, or the connection would be closed.
                let _body = read(request.into_body(), bytes).await?;
                std::future::pending().await
            }
            Some(Fault::Swallow) => {
                let headers = request.headers().clone();
                drop(read(request.into_body(), u64::MAX).await?);
                Ok(acknowledgement(&headers))
            }
            Some(Fault::LoseAnswer) => {
                drain(self.carry_out(request).await?).await?;
                Err(io::Error::other("cut by the script"))
            }
            Some(Fault::DoneBut(status, code)) => {
                drain(self.carry_out(request).await?).await?;
                Ok(refusal(status, code))
            }
            Some(Fault::CutAnswer(bytes)) => Ok(cut(self.carry_out(request).await?, bytes)),
        }
    }

    async fn carry_out(&self, request: Request<Incoming>) -> Result<Answer, io::Error> {
        let answer = hyper::service::Service::call(&self.service, request)
            .await
            .map_err(io::Error::other)?;
        Ok(answer.map(|body| body.map_err(io::Error::other).boxed_unsync()))
    }
}

/// Reads `bytes` bytes of a body, or all of it.
async fn read(mut body: Incoming, bytes: u64) -> Result<Incoming, io::Error> {
    let mut seen = 0;
    while seen < bytes {
        match body.frame().await {
            Some(frame) => seen += frame.map_err(io::Error::other)?.data_ref().map_or(0, Bytes::len) as u64,
            None => break,
        }
    }
    Ok(body)
}

/// Runs an answer to its end, as if it had been sent.
async fn drain(answer: Answer) -> Result<(), io::Error> {
    answer.into_body().collect().await.map(drop)
}

fn refusal(status: u16, code: &str) -> Answer {
    refusal_with(status, code, "")
}

fn elsewhere(status: u16, code: &str, region: &'static str) -> Answer {
    let mut answer = refusal_with(status, code, &format!("<Region>{region}</Region>"));
    let name = http::HeaderValue::from_static(region);
    answer.headers_mut().insert("x-amz-bucket-region", name);
    answer
}

fn refusal_with(status: u16, code: &str, more: &str) -> Answer {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>by the script</Message>{more}</Error>"
    );
    let mut answer = Response::new(full(text.into()));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a script names real statuses");
    answer
}

fn acknowledgement(request: &HeaderMap) -> Answer {
    let mut answer = Response::new(full(Bytes::new()));
    answer.headers_mut().insert(
        "etag",
        http::HeaderValue::from_static("\"0123456789abcdef0123456789abcdef\""),
    );
    for (name, value) in request {
        if name.as_str().starts_with("x-amz-checksum-") {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}

fn full(bytes: Bytes) -> UnsyncBoxBody<Bytes, io::Error> {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Lets `bytes` bytes of the body through; then the connection breaks.
fn cut(answer: Answer, bytes: u64) -> Answer {
    answer.map(|body| {
        let frames = stream::unfold((body, Some(bytes)), |(mut body, left)| async move {
            let left = left?;
            if left == 0 {
                // Time for the connection to send what it has.
                tokio::time::sleep(Duration::from_millis(20)).await;
                return Some((Err(io::Error::other("cut by the script")), (body, None)));
            }
            let mut data = match body.frame().await? {
                Ok(frame) => frame.into_data().unwrap_or_default(),
                Err(error) => return Some((Err(error), (body, None))),
            };
            data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left - data.len() as u64;
            Some((Ok(Frame::data(data)), (body, Some(left))))
        });
        StreamBody::new(frames).boxed_unsync()
    })
}
