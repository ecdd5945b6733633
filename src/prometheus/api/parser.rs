//! Parses responses part by part: on the calling thread while they are short, else on a pool of other threads.
//!
//! One thread serves all queries. So what arrives of a long response is gathered into batches, and each batch is parsed
//! on the pool; between two batches that thread and the pool are free for others. Dropping the future waits for
//! nothing; a batch that is being parsed ends by itself.

use std::{fmt, ops::ControlFlow};

use bytes::Bytes;
use http::StatusCode;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::request_options::RequestOptions;
use crate::prometheus::{
    Client,
    error::{Error, ErrorKind},
    json::{Item, Node, Scanner, Sink},
    request_queue::Kind,
};

/// How much of a response is parsed on the calling thread when there is a pool, in bytes.
const INLINE_MAX: u64 = 128 << 10;
/// How much is parsed at once on the pool, in bytes.
const BATCH: usize = 512 << 10;
/// How much is parsed at once on the calling thread, in bytes: other tasks get a turn in between.
const STRETCH: usize = 64 << 10;
/// The most that may be around the parts, in bytes: counts of dropped targets by pool are there.
const AROUND: usize = 4 << 20;

/// What is asked and what should come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) kind: Kind,
    /// Where the parts are.
    pub(super) root: &'static Node,
    /// The same in words.
    pub(super) expected: &'static str,
}

/// Memory of the caller.
pub trait Reserve: Send + 'static {
    /// Whether there are so many bytes more: of what is held while it is read, and of what is collected.
    fn reserve(&mut self, bytes: usize) -> bool;
}

/// Accepts the parts of a response.
pub trait Accept<T>: Reserve {
    /// Accepts the next part; whether there was memory for what is made of it.
    fn accept(&mut self, part: T) -> bool;
}

/// Decodes the parts for the one who accepts them.
pub(super) struct Parts<K, T> {
    pub(super) consumer: K,
    pub(super) read: fn(Item<'_>) -> Result<T, ErrorKind>,
    pub(super) bytes: u64,
}

impl<K: Accept<T>, T> Parts<K, T> {
    pub(super) fn new(consumer: K, read: fn(Item<'_>) -> Result<T, ErrorKind>) -> Self {
        Self {
            consumer,
            read,
            bytes: 0,
        }
    }
}

impl<K: Accept<T>, T> Sink for Parts<K, T> {
    fn reserve(&mut self, bytes: usize) -> bool {
        self.consumer.reserve(bytes)
    }

    fn item(&mut self, item: Item<'_>) -> Result<ControlFlow<()>, ErrorKind> {
        self.bytes += item.len() as u64;
        match self.consumer.accept((self.read)(item)?) {
            true => Ok(ControlFlow::Continue(())),
            false => Err(ErrorKind::TooMuch { read: self.bytes }),
        }
    }
}

/// An answer that is being read.
#[derive(Debug)]
pub(super) struct AnswerParser<S> {
    scanner: Scanner,
    sink: S,
    expected: &'static str,
    /// Bytes since others had a turn.
    stretch: usize,
}

impl<S: Sink> AnswerParser<S> {
    pub(super) fn new(form: Form, sink: S) -> Self {
        Self {
            scanner: Scanner::new(form.root, AROUND),
            sink,
            expected: form.expected,
            stretch: 0,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<ControlFlow<()>, ErrorKind> {
        self.scanner.push(bytes, &mut self.sink)
    }

    /// The answer is complete: with what was around the parts.
    pub(super) fn finish(self) -> Result<(S, Vec<u8>), ErrorKind> {
        let Self {
            scanner,
            sink,
            expected,
            ..
        } = self;
        let head: Head =
            serde_json::from_slice(scanner.around()).map_err(|error| ErrorKind::from_json(&error, expected))?;
        if head.status != "success" {
            return Err(ErrorKind::failed(&head.error));
        }
        let around = scanner.finish(expected)?;
        Ok((sink, around))
    }
}

/// Status and error of a response. Keys are compared as Go does, without regard to case.
#[derive(Debug, Default)]
struct Head {
    status: String,
    error: String,
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Head;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head, A::Error> {
                let mut head = Head::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key.eq_ignore_ascii_case("status") {
                        head.status = map.next_value()?;
                    } else if key.eq_ignore_ascii_case("error") {
                        head.error = map.next_value()?;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(head)
            }
        }
        from.deserialize_map(Keys)
    }
}

impl Client {
    /// Parses a response, on the pool if there is one and the response is long. Returns the sink, with what was around
    /// the parts unless the response was empty.
    pub(super) async fn collect_parts<S: Sink + Send + 'static>(
        &self,
        form: Form,
        path: &str,
        parameters: &[(&str, String)],
        options: &RequestOptions,
        sink: S,
    ) -> Result<(S, Option<Vec<u8>>), Error> {
        let read = async |mut response: reqwest::Response| {
            if response.status() == StatusCode::NO_CONTENT {
                return Ok((sink, None));
            }
            let mut parser = AnswerParser::new(form, sink);
            let (mut received, mut batch) = (0, Batch::default());
            while let Some(piece) = response.chunk().await.map_err(ErrorKind::from_body)? {
                received += piece.len() as u64;
                if options.pool().is_none() || received <= INLINE_MAX {
                    // Those who want less than all read with `each`.
                    let _ = parse_inline(&mut parser, &piece).await?;
                    continue;
                }
                if received - piece.len() as u64 <= INLINE_MAX && !parser.sink.reserve(BATCH) {
                    return Err(ErrorKind::TooMuch { read: received });
                }
                batch.add(piece);
                if batch.length >= BATCH {
                    parser = parse_on_pool(parser, std::mem::take(&mut batch), options).await?;
                }
            }
            parser = parse_on_pool(parser, batch, options).await?;
            let (sink, around) = match options.pool().filter(|_| received > INLINE_MAX) {
                Some(pool) => pool.run(move || parser.finish()).await??,
                None => parser.finish()?,
            };
            Ok((sink, Some(around)))
        };
        self.query((form.kind, path), parameters, options, read).await
    }

    /// Reads an answer where it is asked for, until `sink` has enough.
    pub(super) async fn each<S: Sink>(
        &self,
        form: Form,
        path: &str,
        parameters: &[(&str, String)],
        options: &RequestOptions,
        sink: S,
    ) -> Result<(), Error> {
        let read = async |mut response: reqwest::Response| {
            if response.status() == StatusCode::NO_CONTENT {
                return Ok(());
            }
            let mut parser = AnswerParser::new(form, sink);
            while let Some(piece) = response.chunk().await.map_err(ErrorKind::from_body)? {
                if parse_inline(&mut parser, &piece).await?.is_break() {
                    return Ok(());
                }
            }
            parser.finish().map(drop)
        };
        self.query((form.kind, path), parameters, options, read).await
    }
}

/// Reads a piece, with a pause for others after each stretch.
pub(super) async fn parse_inline<S: Sink>(
    parser: &mut AnswerParser<S>,
    piece: &[u8],
) -> Result<ControlFlow<()>, ErrorKind> {
    for stretch in piece.chunks(STRETCH) {
        if parser.push(stretch)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        parser.stretch += stretch.len();
        if parser.stretch >= STRETCH {
            parser.stretch = 0;
            tokio::task::yield_now().await;
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Bytes that wait for the pool.
#[derive(Debug, Default)]
struct Batch {
    pieces: Vec<Bytes>,
    length: usize,
}

impl Batch {
    fn add(&mut self, piece: Bytes) {
        self.length += piece.len();
        self.pieces.push(piece);
    }
}

async fn parse_on_pool<S: Sink + Send + 'static>(
    mut parser: AnswerParser<S>,
    batch: Batch,
    options: &RequestOptions,
) -> Result<AnswerParser<S>, ErrorKind> {
    let Some(pool) = options.pool().filter(|_| batch.length > 0) else {
        return Ok(parser);
    };
    let work = move || {
        for piece in &batch.pieces {
            let _ = parser.push(piece)?;
        }
        Ok(parser)
    };
    pool.run(work).await?
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::threads::BlockingPool;

    const FORM: Form = Form {
        kind: Kind::Others,
        root: &Node::Keys(&[("data", Node::List(0, None))]),
        expected: "numbers in data",
    };

    struct Sum(u64);

    impl Reserve for Sum {
        fn reserve(&mut self, _bytes: usize) -> bool {
            true
        }
    }

    impl Accept<u64> for Sum {
        fn accept(&mut self, part: u64) -> bool {
            self.0 += part;
            self.0 < 1 << 40
        }
    }

    fn parser() -> AnswerParser<Parts<Sum, u64>> {
        AnswerParser::new(FORM, Parts::new(Sum(0), |item| item.read("numbers in data")))
    }

    #[tokio::test]
    async fn others_get_a_turn_after_each_stretch_also_of_what_came_at_once() {
        let turns = Arc::new(AtomicUsize::new(0));
        let other = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move {
                loop {
                    turns.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        });
        let answer = format!(r#"{{"status":"success","data":[{}1]}}"#, "1,".repeat(16 * STRETCH));
        let mut parser = parser();
        assert!(
            parse_inline(&mut parser, answer.as_bytes())
                .await
                .unwrap()
                .is_continue()
        );
        assert!(turns.load(Ordering::Relaxed) >= 31, "{turns:?}");
        let (parts, _) = parser.finish().unwrap();
        assert_eq!(parts.consumer.0, 16 * STRETCH as u64 + 1);
        other.abort();
    }

    /// Keeps on which threads it took something.
    struct Threads(Vec<std::thread::ThreadId>);

    impl Reserve for Threads {
        fn reserve(&mut self, _bytes: usize) -> bool {
            true
        }
    }

    impl Accept<u64> for Threads {
        fn accept(&mut self, _part: u64) -> bool {
            self.0.push(std::thread::current().id());
            true
        }
    }

    #[tokio::test]
    async fn what_comes_of_a_long_answer_is_read_on_the_lane() {
        let consumer = Parts::new(Threads(Vec::new()), |item: Item<'_>| item.read("numbers in data"));
        let mut parser = AnswerParser::new(FORM, consumer);
        let here = std::thread::current().id();
        let _ = parse_inline(&mut parser, br#"{"status":"success","data":[1"#)
            .await
            .unwrap();
        let mut batch = Batch::default();
        batch.add(Bytes::from_static(b",2,3"));
        batch.add(Bytes::from_static(b",4]}"));
        let options = RequestOptions::until(tokio::time::Instant::now()).on_pool(BlockingPool::new(1));
        let parser = parse_on_pool(parser, batch, &options).await.unwrap();
        let (parts, _) = parser.finish().unwrap();
        assert_eq!(parts.consumer.0.len(), 4);
        assert!(parts.consumer.0.iter().all(|thread| *thread != here));
    }

    #[test]
    fn an_answer_that_is_no_success_says_why_in_keys_of_any_case() {
        for (answer, words) in [
            (r#"{"status":"error","error":"no such thing"}"#, "(no such thing)"),
            (
                r#"{"STATUS":"error","data":[1],"Error":"no such thing"}"#,
                "(no such thing)",
            ),
            ("{}", "reports an error"),
            ("null", "not understood"),
            (r#"{"status":1}"#, "not understood"),
            ("<html>", "not JSON"),
        ] {
            let mut parser = parser();
            let _ = parser.push(answer.as_bytes()).unwrap();
            let error = parser.finish().err().unwrap().to_string();
            assert!(error.contains(words), "{answer}: {error}");
        }
    }

    #[test]
    fn what_is_made_of_an_answer_may_be_too_much() {
        let mut parser = parser();
        let error = parser.push(br#"{"data":[7,1099511627776,3"#).unwrap_err();
        assert!(matches!(error, ErrorKind::TooMuch { read: 14 }), "{error}");
    }
}
