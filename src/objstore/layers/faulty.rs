//! A bucket that fails on demand. Tests of what is built on buckets use it; nothing else does.

use std::{
    ops::{Bound, RangeBounds},
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::objstore::{
    Bucket, CanaryKey, Comparison, Error, ErrorKind, NameFilter, Object, Op, Pieces, Placed, Reading, Source,
    batches::Batches,
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and the call fails.
    Fail(ErrorKind),
    /// All is done, and the call fails all the same: the answer was lost.
    FailAfter(ErrorKind),
    /// Nothing is done, and the call never ends.
    Hang,
    /// Nothing is done, and the call panics.
    Panic,
    /// Uploads: nothing is stored, and the call succeeds. Listings of a directory: nothing of it is shown.
    Lose,
    /// Uploads: the object is stored without its last byte, and the call succeeds. Readings: the stream ends one byte
    /// early, with an error.
    Truncate,
    /// One byte in the middle is another one: of what is stored, or of what is read; a comparison finds a difference.
    Flip,
}

#[derive(Clone, Debug)]
struct Rule {
    op: Op,
    key: String,
    calls: (Bound<u32>, Bound<u32>),
    seen: u32,
    fault: Fault,
}

/// A bucket with faults.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Bucket>,
    rules: Mutex<Vec<Rule>>,
    log: Mutex<Vec<(Op, String)>>,
}

impl Faulty {
    /// A bucket that does what `inner` does, until told otherwise.
    pub fn new(inner: Arc<dyn Bucket>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            rules: Mutex::default(),
            log: Mutex::default(),
        })
    }

    /// Lets those calls fail, counted from 1, that do `op` on a key (or directory) which contains `key`: `1..=1` is the
    /// first one, `..` all of them. Of several rules that apply to a call the one that was given first wins.
    pub fn on(&self, op: Op, key: &str, calls: impl RangeBounds<u32>, fault: Fault) {
        let calls = (calls.start_bound().cloned(), calls.end_bound().cloned());
        lock(&self.rules).push(Rule {
            op,
            key: key.to_owned(),
            calls,
            seen: 0,
            fault,
        });
    }

    /// From now on nothing fails.
    pub fn heal(&self) {
        lock(&self.rules).clear();
    }

    /// What was called, in order: [`Op::Upload`], [`Op::Get`] and [`Op::Iter`] with key or directory ("list_top" has an
    /// empty one), [`Op::Delete`] for `abort_stale` and `remove`.
    pub fn calls(&self) -> Vec<(Op, String)> {
        lock(&self.log).clone()
    }

    fn fault(&self, op: Op, key: &str) -> Option<Fault> {
        lock(&self.log).push((op, key.to_owned()));
        let mut found = None;
        for rule in lock(&self.rules)
            .iter_mut()
            .filter(|rule| rule.op == op && key.contains(&rule.key))
        {
            rule.seen += 1;
            if rule.calls.contains(&rule.seen) {
                found = found.or(Some(rule.fault));
            }
        }
        found
    }

    fn error(&self, op: Op, key: &str, kind: ErrorKind) -> Error {
        let detail = "a fault that a test asked for".to_owned();
        Error {
            op,
            key: format!("{}/{key}", self.identity()),
            kind,
            detail,
            source: None,
        }
    }

    /// All bytes of an object that are made while it is sent.
    async fn all(&self, key: &str, pieces: Pieces<'_>, at_most: u64) -> Result<Bytes, Error> {
        match Batches::new(pieces, at_most).next(u64::MAX).await {
            Ok(all) => Ok(all.pieces().concat().into()),
            Err(unusable) => Err(unusable.into_error(format!("{}/{key}", self.identity()))),
        }
    }

    /// A reading that lacks its last byte.
    fn cut(&self, key: &str, reading: Reading) -> Reading {
        let mut left = reading.len.saturating_sub(1);
        let shorter = reading.pieces.map_ok(move |mut piece| {
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= piece.len() as u64;
            piece
        });
        let error = self.error(Op::Get, key, ErrorKind::Network);
        let pieces = shorter.chain(stream::once(async { Err(error) }));
        Reading {
            len: reading.len,
            pieces: pieces.boxed(),
        }
    }

    async fn call<T>(&self, op: Op, key: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let fault = self.fault(op, key);
        self.apply(fault, op, key, work).await
    }

    async fn apply<T>(
        &self,
        fault: Option<Fault>,
        op: Op,
        key: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match fault {
            None | Some(Fault::Lose | Fault::Truncate | Fault::Flip) => work.await,
            Some(Fault::Fail(kind)) => Err(self.error(op, key, kind)),
            Some(Fault::FailAfter(kind)) => {
                work.await?;
                Err(self.error(op, key, kind))
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Panic) => panic!("a panic that a test asked for"),
        }
    }
}

/// With another byte at `at`, if there is such a place.
fn flip(bytes: Bytes, at: u64) -> Bytes {
    let mut bytes = Vec::from(bytes);
    if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
        *byte ^= 1;
    }
    bytes.into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[async_trait]
impl Bucket for Faulty {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn identity(&self) -> &str {
        self.inner.identity()
    }

    async fn put_file(&self, key: &str, source: &Source) -> Result<(), Error> {
        match self.fault(Op::Upload, key) {
            Some(Fault::Lose) => Ok(()),
            Some(Fault::Truncate) => {
                let shorter = Source {
                    len: source.len.saturating_sub(1),
                    ..source.clone()
                };
                self.inner.put_file(key, &shorter).await
            }
            Some(Fault::Flip) => {
                let mut body = vec![0; usize::try_from(source.len).unwrap_or(usize::MAX)];
                if source.file.read_exact_at(&mut body, source.start).is_err() {
                    return Err(self.error(Op::Upload, key, ErrorKind::Local));
                }
                self.inner.put_bytes(key, flip(body.into(), source.len / 2)).await
            }
            fault => {
                self.apply(fault, Op::Upload, key, self.inner.put_file(key, source))
                    .await
            }
        }
    }

    async fn put_bytes(&self, key: &str, body: Bytes) -> Result<(), Error> {
        match self.fault(Op::Upload, key) {
            Some(Fault::Lose) => Ok(()),
            Some(Fault::Truncate) => {
                let shorter = body.slice(..body.len().saturating_sub(1));
                self.inner.put_bytes(key, shorter).await
            }
            Some(Fault::Flip) => {
                let at = body.len() as u64 / 2;
                self.inner.put_bytes(key, flip(body, at)).await
            }
            fault => {
                self.apply(fault, Op::Upload, key, self.inner.put_bytes(key, body))
                    .await
            }
        }
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<Placed, Error> {
        match self.fault(Op::Upload, key) {
            Some(Fault::Lose) => Ok(Placed::Created),
            Some(Fault::Truncate) => {
                let shorter = body.slice(..body.len().saturating_sub(1));
                self.inner.put_new(key, shorter).await
            }
            Some(Fault::Flip) => {
                let at = body.len() as u64 / 2;
                self.inner.put_new(key, flip(body, at)).await
            }
            fault => self.apply(fault, Op::Upload, key, self.inner.put_new(key, body)).await,
        }
    }

    async fn put_stream(&self, key: &str, pieces: Pieces<'_>, at_most: u64) -> Result<u64, Error> {
        let fault = self.fault(Op::Upload, key);
        if !matches!(fault, Some(Fault::Lose | Fault::Truncate | Fault::Flip)) {
            let put = self.inner.put_stream(key, pieces, at_most);
            return self.apply(fault, Op::Upload, key, put).await;
        }
        let all = self.all(key, pieces, at_most).await?;
        let len = all.len() as u64;
        match fault {
            Some(Fault::Truncate) => {
                let shorter = all.slice(..all.len().saturating_sub(1));
                self.inner.put_bytes(key, shorter).await?;
            }
            Some(Fault::Flip) => self.inner.put_bytes(key, flip(all, len / 2)).await?,
            _ => {}
        }
        Ok(len)
    }

    async fn stat(&self, key: &str) -> Result<Option<u64>, Error> {
        self.call(Op::Get, key, self.inner.stat(key)).await
    }

    async fn incarnation(&self) -> Result<Option<String>, Error> {
        self.inner.incarnation().await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        let fault = self.fault(Op::Get, key);
        let bytes = self.apply(fault, Op::Get, key, self.inner.get(key, limit)).await?;
        let at = bytes.len() as u64 / 2;
        Ok(match fault {
            Some(Fault::Flip) => flip(bytes, at),
            _ => bytes,
        })
    }

    async fn read(&self, key: &str, offset: u64) -> Result<Reading, Error> {
        let fault = self.fault(Op::Get, key);
        let reading = self.apply(fault, Op::Get, key, self.inner.read(key, offset)).await?;
        let len = reading.len;
        Ok(match fault {
            Some(Fault::Truncate) => self.cut(key, reading),
            Some(Fault::Flip) => {
                let mut passed = 0;
                let pieces = reading.pieces.map_ok(move |piece| {
                    let at = (len / 2).wrapping_sub(passed);
                    passed += piece.len() as u64;
                    flip(piece, at)
                });
                Reading {
                    len,
                    pieces: pieces.boxed(),
                }
            }
            _ => reading,
        })
    }

    async fn read_start(&self, key: &str, len: u64) -> Result<Bytes, Error> {
        self.call(Op::Get, key, self.inner.read_start(key, len)).await
    }

    async fn compare(&self, key: &str, source: &Source) -> Result<Comparison, Error> {
        let fault = self.fault(Op::Get, key);
        let found = self.apply(fault, Op::Get, key, self.inner.compare(key, source)).await?;
        Ok(match (fault, found) {
            (Some(Fault::Flip), Comparison::Same(_)) => {
                Comparison::Different(format!("byte {} differs (counted from 0)", source.len / 2))
            }
            (_, found) => found,
        })
    }

    fn requests_for(&self, len: u64) -> u64 {
        self.inner.requests_for(len)
    }

    async fn list(&self, dir: &str) -> Result<Vec<Object>, Error> {
        match self.fault(Op::Iter, dir) {
            Some(Fault::Lose) => Ok(Vec::new()),
            fault => self.apply(fault, Op::Iter, dir, self.inner.list(dir)).await,
        }
    }

    async fn list_top(&self, after: &str, wanted: NameFilter) -> Result<Vec<String>, Error> {
        self.call(Op::Iter, "", self.inner.list_top(after, wanted)).await
    }

    async fn abort_stale(&self, dir: &str) -> Result<(), Error> {
        self.call(Op::Delete, dir, self.inner.abort_stale(dir)).await
    }

    async fn remove(&self, canary: &CanaryKey) -> Result<(), Error> {
        let key = canary.as_str();
        self.call(Op::Delete, key, self.inner.remove(canary)).await
    }

    async fn settle(&self) {
        self.inner.settle().await;
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tempfile::TempDir;

    use super::*;
    use crate::objstore::{Limits, config, open};

    async fn faulty() -> (TempDir, Arc<Faulty>) {
        let dir = tempfile::tempdir().unwrap();
        let yaml = format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", dir.path().display());
        let config = config::parse(&yaml).unwrap();
        let bucket = open(&config, &Limits::default(), &mut Registry::default()).await;
        (dir, Faulty::new(bucket.unwrap()))
    }

    #[tokio::test]
    async fn faults_apply_to_the_calls_that_they_name() {
        let (_dir, faulty) = faulty().await;
        for key in ["a/b", "b"] {
            faulty.put_bytes(key, Bytes::from_static(b"abc")).await.unwrap();
        }
        faulty.on(Op::Get, "a/", 2..=3, Fault::FailAfter(ErrorKind::Stalled));
        let mut outcomes = Vec::new();
        for _ in 0..4 {
            outcomes.push(faulty.get("a/b", 10).await.is_ok());
        }
        assert_eq!(outcomes, [true, false, false, true]);
        assert!(faulty.get("b", 10).await.is_ok() && faulty.list("a").await.is_ok());
        faulty.heal();
        assert_eq!(faulty.calls().len(), 8);
        assert_eq!(faulty.calls()[7], (Op::Iter, "a".to_owned()));
    }

    #[tokio::test]
    async fn what_is_made_while_it_is_sent_has_the_faults_of_a_file() {
        let (_dir, faulty) = faulty().await;
        let put = async |key: &str| {
            let pieces = ["012", "345", "6"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
            faulty.put_stream(key, stream::iter(pieces).boxed(), 7).await
        };
        let stored = async |key: &str| faulty.inner.get(key, 9).await.ok();
        for (key, fault, expected) in [
            ("lose", Fault::Lose, None),
            ("cut", Fault::Truncate, Some("012345")),
            ("flip", Fault::Flip, Some("0122456")),
        ] {
            faulty.on(Op::Upload, key, .., fault);
            assert_eq!(put(key).await.unwrap(), 7, "it was acknowledged");
            assert_eq!(stored(key).await.as_deref(), expected.map(str::as_bytes), "{key}");
        }
        for (key, fault, expected) in [
            ("fail", Fault::Fail(ErrorKind::Server), None),
            ("after", Fault::FailAfter(ErrorKind::Server), Some("0123456")),
        ] {
            faulty.on(Op::Upload, key, .., fault);
            assert_eq!(put(key).await.unwrap_err().kind, ErrorKind::Server);
            assert_eq!(stored(key).await.as_deref(), expected.map(str::as_bytes), "{key}");
        }
        assert_eq!(put("good").await.unwrap(), 7);
        assert_eq!(stored("good").await.unwrap(), "0123456");
        assert_eq!(faulty.calls().len(), 6);
    }

    #[tokio::test]
    async fn a_flipped_byte_is_in_the_middle() {
        let (dir, faulty) = faulty().await;
        let content = Bytes::from((0..600_001).map(|i| i as u8).collect::<Vec<_>>());
        let mut flipped = content.to_vec();
        flipped[300_000] ^= 1;
        let path = dir.path().join("file");
        fs_err::write(&path, &content).unwrap();
        let opened = Arc::new(fs_err::File::open(&path).unwrap().into_parts().0);
        let source = Source::new(opened, path, content.len() as u64);

        faulty.on(Op::Upload, "", 1..=2, Fault::Flip);
        faulty.put_bytes("a", content.clone()).await.unwrap();
        faulty.put_file("b", &source).await.unwrap();
        for key in ["a", "b"] {
            assert!(faulty.get(key, 1 << 20).await.unwrap() == flipped, "{key}");
        }
        faulty.put_file("c", &source).await.unwrap();
        assert!(matches!(
            faulty.compare("c", &source).await.unwrap(),
            Comparison::Same(_)
        ));
        faulty.on(Op::Get, "c", .., Fault::Flip);
        assert!(faulty.get("c", 1 << 20).await.unwrap() == flipped);
        let pieces: Vec<_> = faulty.read("c", 0).await.unwrap().pieces.try_collect().await.unwrap();
        assert!(pieces.len() > 1 && pieces.concat() == flipped);
        assert!(matches!(
            faulty.compare("c", &source).await.unwrap(),
            Comparison::Different(_)
        ));
    }
}
