//! Sending an object in a resumable session.
//!
//! The session is opened with what is known of the object: its name, the condition that it is to be new, and its CRC32C, which the
//! store compares at the end. Then its bytes go out, in one request if their number is known, else in chunks. After a break the store
//! is asked how much it has, and the rest is sent; a session that is gone is opened anew. The object appears with the last byte. A session that is not finished is
//! ended in the background, with a time limit of its own.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, Method, StatusCode, Uri, header};
use serde_json::json;

use super::{Described, Google, Store, text};
use crate::objstore::{
    Error, ErrorKind, Op, Pieces, Placed,
    batches::{Batches, Unusable},
    rest::{ANSWER_LIMIT, Answer, Call, Failed, Rest, Tries, address, encoded, whole},
    transfer::{
        body::{Hasher, Sum as _},
        content::Content,
    },
};

/// What a chunk's length must be a multiple of, in bytes.
const GRAIN: u64 = 256 << 10;

/// A chunk of an object of unknown length, unless the configuration says so (in bytes). Two are held in memory.
const CHUNK: u64 = 8 << 20;

/// The largest object of the store, in bytes.
const MAX_OBJECT: u64 = 5 << 40;

/// How long ending a session may take; it must not be cut by what cut the upload.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Statuses of a session that goes on.
const GOES_ON: u16 = StatusCode::PERMANENT_REDIRECT.as_u16();

/// An open session. Dropped before it is complete, it is ended.
struct Session {
    store: Arc<Store>,
    uri: Uri,
    key: String,
    complete: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        let (rest, uri, key) = (
            Arc::clone(&self.store.rest),
            self.uri.clone(),
            std::mem::take(&mut self.key),
        );
        let end = async move { end(&rest, uri, &key).await };
        self.store.rest.cleanup.spawn_on(end, &self.store.runtime);
    }
}

/// Ends a session. Best effort: one that stays is gone after a week, and costs nothing.
async fn end(rest: &Rest<Google>, uri: Uri, key: &str) {
    let call = Call {
        op: Op::Delete,
        method: Method::DELETE,
        uri,
        headers: Vec::new(),
        content: None,
        // 499 says that it was ended by its client; 404 and 410 that it is gone.
        expected: &[404, 410, 499],
    };
    if let Ok(Err(failed)) = tokio::time::timeout(END_LIMIT, rest.send(&call)).await {
        tracing::debug!(
            object = rest.place(key),
            why = failed.detail,
            "an upload was given up, and its session could not be ended"
        );
    }
}

/// How a step of a session went.
enum Step {
    /// The object is there.
    Done(Described),
    /// The store has so many bytes.
    Has(u64),
    /// Somebody else has made the object meanwhile.
    Exists,
}

/// What opens a session.
enum Opened {
    Session(Session),
    /// There is an object of that name already.
    Exists,
}

/// Bytes of an object, from one of its bytes to another one.
struct Part {
    content: Content,
    start: u64,
    end: u64,
    /// The length of the object, if this is its last part.
    total: Option<u64>,
}

/// What became of a part.
enum Sent {
    /// It was the last one, and this is the object.
    Object(Described),
    More,
    /// Somebody else has made the object meanwhile.
    Exists,
}

/// An object in one part, and what is known of it.
struct Whole<'a> {
    content: &'a Content,
    len: u64,
    checksum: &'a str,
    /// Only if there is none of that key.
    new: bool,
}

impl Part {
    /// What there is from a byte on, and where that is in the object.
    fn from(&self, at: u64) -> Result<(Content, Option<String>), Failed> {
        let rest = at.checked_sub(self.start).and_then(|at| self.content.from(at));
        let rest = rest.ok_or_else(|| lost(at))?;
        // All of it needs no range, and nothing can have none.
        let range = (at > 0 || self.total != Some(self.end)).then(|| {
            let all = self.total.map_or("*".to_owned(), |total| total.to_string());
            format!("bytes {at}-{}/{all}", self.end.saturating_sub(1))
        });
        Ok((rest, range))
    }
}

impl Store {
    /// Sends `len` bytes; with `new` only if there is none of that key. All that is tried again counts as one call.
    pub(super) async fn put_content(
        self: &Arc<Self>,
        key: &str,
        content: Content,
        len: u64,
        new: bool,
    ) -> Result<Placed, Error> {
        let sum = content.digest(Hasher::crc32c(), &self.rest.buffers).await;
        let sum = sum.map_err(|reason| self.rest.error(Op::Upload, key, ErrorKind::Local, reason))?;
        let (content, checksum) = (&content, &text(&sum.finish()));
        let mut tries = self.rest.tries();
        loop {
            let whole = Whole {
                content,
                len,
                checksum,
                new,
            };
            match self.send_whole(key, whole, &mut tries).await {
                Ok(placed) => return Ok(placed),
                Err(failed) => {
                    let error = self.rest.error(Op::Upload, key, failed.kind, failed.detail);
                    tries.wait_for_another(error).await?;
                }
            }
        }
    }

    /// Sends an object in one session.
    async fn send_whole(self: &Arc<Self>, key: &str, whole: Whole<'_>, tries: &mut Tries) -> Result<Placed, Failed> {
        let _permit = self.rest.permit().await;
        let opened = self.open(key, Some(whole.checksum), whole.new).await?;
        let Opened::Session(mut session) = opened else {
            return Ok(Placed::Exists);
        };
        let part = Part {
            content: whole.content.clone(),
            start: 0,
            end: whole.len,
            total: Some(whole.len),
        };
        match session.send_part(&part, tries).await? {
            Sent::Object(described) => acknowledged(&described, whole.len, whole.checksum).map(|()| Placed::Created),
            Sent::Exists if whole.new => Ok(Placed::Exists),
            Sent::Exists => Err(unasked()),
            Sent::More => Err(lost(whole.len)),
        }
    }

    async fn open(self: &Arc<Self>, key: &str, checksum: Option<&str>, new: bool) -> Result<Opened, Failed> {
        let rest = &self.rest;
        let google = &rest.dialect;
        let condition = if new { "&ifGenerationMatch=0" } else { "" };
        let target = format!(
            "{}/upload/storage/v1/b/{}/o?uploadType=resumable&name={}{condition}",
            google.base,
            encoded(&google.bucket),
            encoded(&rest.full(key))
        );
        let refused = |problem: String| Failed::new(ErrorKind::Refused, problem);
        let about = match checksum {
            Some(checksum) => json!({"crc32c": checksum}),
            None => json!({}),
        };
        let call = Call {
            op: Op::Upload,
            method: Method::POST,
            uri: address(&target).map_err(refused)?,
            headers: vec![(header::CONTENT_TYPE, "application/json".to_owned())],
            content: Some(Content::Memory(bytes::Bytes::from(about.to_string()).into())),
            expected: &[412],
        };
        let answer = rest.send(&call).await?;
        if answer.status == 412 {
            return if new { Ok(Opened::Exists) } else { Err(unasked()) };
        }
        let Some(session) = answer.header("location") else {
            let detail = "the store opened an upload without saying where to send it";
            return Err(Failed::new(ErrorKind::Server, detail));
        };
        Ok(Opened::Session(Session {
            store: Arc::clone(self),
            uri: google.session(session).map_err(refused)?,
            key: key.to_owned(),
            complete: false,
        }))
    }

    /// Sends what `pieces` bring, at most `at_most` bytes; returns how many they were.
    pub(super) async fn put_pieces(
        self: &Arc<Self>,
        key: &str,
        pieces: Pieces<'_>,
        at_most: u64,
    ) -> Result<u64, Error> {
        let size = self.chunk_size.max(CHUNK).next_multiple_of(GRAIN);
        let unusable = |unusable: Unusable| unusable.into_error(self.rest.place(key));
        let mut batches = Batches::new(pieces, at_most.min(MAX_OBJECT));
        let first = batches.next(size).await.map_err(unusable)?;
        if !batches.has_more().await.map_err(unusable)? {
            let len = first.len();
            self.put_content(key, Content::Memory(first), len, false).await?;
            return Ok(len);
        }
        let failed = |failed: Failed| self.rest.error(Op::Upload, key, failed.kind, failed.detail);
        let mut session = self.open_for_parts(key).await?;
        let sending = async {
            let (mut sum, mut at, mut batch) = (Hasher::crc32c(), 0, first);
            loop {
                let more = batches.has_more().await.map_err(unusable)?;
                batch.pieces().iter().for_each(|piece| sum.update(piece));
                let end = at + batch.len();
                let part = Part {
                    content: Content::Memory(batch),
                    start: at,
                    end,
                    total: (!more).then_some(end),
                };
                let permit = self.rest.permit().await;
                let sent = session.send_part(&part, &mut self.rest.tries()).await.map_err(failed)?;
                drop(permit);
                at = end;
                match (sent, more) {
                    (Sent::More, true) => batch = batches.next(size).await.map_err(unusable)?,
                    (Sent::Object(described), false) => {
                        acknowledged(&described, at, &text(&sum.finish())).map_err(failed)?;
                        return Ok(at);
                    }
                    (Sent::Exists, _) => return Err(failed(unasked())),
                    (Sent::Object(_), true) | (Sent::More, false) => {
                        let detail = "the store takes the object for whole at another byte than its last one";
                        return Err(failed(Failed::new(ErrorKind::Server, detail)));
                    }
                }
            }
        };
        // Waited for by `settle` until it is dropped.
        self.rest.cleanup.track_future(sending).await
    }

    async fn open_for_parts(self: &Arc<Self>, key: &str) -> Result<Session, Error> {
        let mut tries = self.rest.tries();
        loop {
            let failed = match self.open(key, None, false).await {
                Ok(Opened::Session(session)) => return Ok(session),
                Ok(Opened::Exists) => unasked(),
                Err(failed) => failed,
            };
            let error = self.rest.error(Op::Upload, key, failed.kind, failed.detail);
            tries.wait_for_another(error).await?;
        }
    }
}

/// The store says something of the session that cannot be.
fn lost(has: u64) -> Failed {
    let detail = format!("the store says that it has {has} bytes of the object, which cannot be");
    Failed::new(ErrorKind::Server, detail)
}

fn unasked() -> Failed {
    Failed::new(
        ErrorKind::Refused,
        "the store refuses a condition that was not set (412)",
    )
}

/// Compares what the store says it holds with what was sent.
fn acknowledged(described: &Described, len: u64, checksum: &str) -> Result<(), Failed> {
    let damaged = |what: String| {
        let detail = format!("{what}: the data was damaged on the way, or the store is at fault");
        Err(Failed::new(ErrorKind::Integrity, detail))
    };
    match described.size() {
        Some(size) if size != len => return damaged(format!("the store has {size} bytes, and {len} were sent")),
        _ => {}
    }
    match &described.checksum {
        Some(theirs) if theirs != checksum => damaged(format!(
            "the store acknowledged CRC32C {theirs}, but {checksum} was sent"
        )),
        Some(_) => Ok(()),
        None => Err(Failed::new(
            ErrorKind::Integrity,
            "the store acknowledged the object without its CRC32C",
        )),
    }
}

impl Session {
    /// Sends a part. After a break, or where the store has taken some of it only, it goes on from there.
    ///
    /// # Errors
    /// What cannot be mended within this session.
    async fn send_part(&mut self, part: &Part, tries: &mut Tries) -> Result<Sent, Failed> {
        let (mut at, mut broken) = (part.start, false);
        loop {
            let all_there = at == part.end && at > part.start;
            let step = match broken || all_there {
                true => self.ask(part.total).await,
                false => {
                    let (content, range) = part.from(at)?;
                    self.send(Some(content), range).await
                }
            };
            let failed = match step {
                Ok(Step::Done(described)) => {
                    self.complete = true;
                    return Ok(Sent::Object(described));
                }
                Ok(Step::Exists) => return Ok(Sent::Exists),
                Ok(Step::Has(has)) if has < at || has > part.end => return Err(lost(has)),
                Ok(Step::Has(has)) if has == part.end && part.total.is_none() => return Ok(Sent::More),
                Ok(Step::Has(has)) => {
                    let (before, was_broken) = (at, std::mem::take(&mut broken));
                    at = has;
                    if has >= before + GRAIN {
                        tries.renew();
                        continue;
                    }
                    // A break was counted when it came.
                    if was_broken || has == part.end && has > before {
                        continue;
                    }
                    Failed::new(ErrorKind::Server, "the store takes no more of it")
                }
                // Such a session is of no more use.
                Err(failed) if failed.kind == ErrorKind::Integrity => return Err(failed),
                Err(failed) if failed.kind == ErrorKind::NotFound => {
                    let detail = format!("the session of the upload is gone: {}", failed.detail);
                    return Err(Failed::new(ErrorKind::Server, detail));
                }
                Err(failed) => {
                    broken = true;
                    failed
                }
            };
            let error = self.store.rest.error(Op::Upload, &self.key, failed.kind, failed.detail);
            let waited = tries.wait_for_another(error).await;
            waited.map_err(|error| Failed::new(error.kind, error.detail))?;
        }
    }

    /// Sends bytes, all of the object without a range.
    async fn send(&self, content: Option<Content>, range: Option<String>) -> Result<Step, Failed> {
        let mut headers: Vec<(HeaderName, String)> = Vec::new();
        headers.extend(range.map(|range| (header::CONTENT_RANGE, range)));
        let call = Call {
            op: Op::Upload,
            method: Method::PUT,
            uri: self.uri.clone(),
            headers,
            content,
            expected: &[GOES_ON, 412],
        };
        let answer = self.store.rest.send(&call).await?;
        self.step(answer).await
    }

    /// Asks how much the store has.
    async fn ask(&self, total: Option<u64>) -> Result<Step, Failed> {
        let total = total.map_or("*".to_owned(), |total| total.to_string());
        self.send(None, Some(format!("bytes */{total}"))).await
    }

    async fn step(&self, mut answer: Answer) -> Result<Step, Failed> {
        match answer.status {
            412 => Ok(Step::Exists),
            GOES_ON => Ok(Step::Has(match answer.header("range") {
                None => 0,
                Some(range) => {
                    let last = range.strip_prefix("bytes=0-").and_then(|last| last.parse::<u64>().ok());
                    last.map(|last| last + 1).ok_or_else(|| {
                        Failed::new(
                            ErrorKind::Server,
                            "the store does not say in plain words how much it has",
                        )
                    })?
                }
            })),
            _ => {
                let body = whole(&mut answer.body, ANSWER_LIMIT).await?;
                let described = serde_json::from_slice(&body).map_err(|error| {
                    Failed::new(
                        ErrorKind::Network,
                        format!("the answer is not that of Google Cloud Storage: {error}"),
                    )
                })?;
                Ok(Step::Done(described))
            }
        }
    }
}
