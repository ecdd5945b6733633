//! A bucket that fails on demand. Tests of what is built on buckets use it; nothing else does.

use std::{
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::objstore::{Bucket, Comparison, Error, ErrorKind, Object, Op, Reading, Source};

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
    /// Nothing is stored, and the call succeeds (uploads only).
    Lose,
    /// The object is stored without its last byte, and the call succeeds (uploads only).
    Truncate,
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
    /// empty one), [`Op::Delete`] for `abort_stale`.
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
            None | Some(Fault::Lose | Fault::Truncate) => work.await,
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
            fault => {
                self.apply(fault, Op::Upload, key, self.inner.put_bytes(key, body))
                    .await
            }
        }
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        self.call(Op::Get, key, self.inner.get(key, limit)).await
    }

    async fn read(&self, key: &str, offset: u64) -> Result<Reading, Error> {
        self.call(Op::Get, key, self.inner.read(key, offset)).await
    }

    async fn compare(&self, key: &str, source: &Source) -> Result<Comparison, Error> {
        self.call(Op::Get, key, self.inner.compare(key, source)).await
    }

    fn requests_for(&self, len: u64) -> u64 {
        self.inner.requests_for(len)
    }

    async fn list(&self, dir: &str) -> Result<Vec<Object>, Error> {
        self.call(Op::Iter, dir, self.inner.list(dir)).await
    }

    async fn list_top(&self, after: &str) -> Result<Vec<String>, Error> {
        self.call(Op::Iter, "", self.inner.list_top(after)).await
    }

    async fn abort_stale(&self, dir: &str) -> Result<(), Error> {
        self.call(Op::Delete, dir, self.inner.abort_stale(dir)).await
    }

    async fn settle(&self) {
        self.inner.settle().await;
    }
}
