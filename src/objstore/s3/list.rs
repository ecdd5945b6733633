//! Reading: listings, page by page, and small objects.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use bytes::{Bytes, BytesMut};

use super::{
    Store, errors,
    headers::Purpose,
    retries::{Failed, RetryBudget},
};
use crate::objstore::{Error, ErrorKind, NameFilter, Object, Op, config::ListVersion, pages::Pages, rate_limit};

/// What one page of a listing holds, whichever call it came from.
struct Page {
    objects: Vec<Object>,
    dirs: Vec<String>,
    /// Where the next page starts; `None` at the end.
    next: Option<Next>,
}

#[derive(Hash)]
enum Next {
    Token(String),
    Marker(String),
}

/// What to list, with full keys.
struct Query<'a> {
    dir: &'a str,
    prefix: String,
    delimiter: Option<&'static str>,
    after: Option<String>,
}

impl Store {
    /// All objects below `dir`.
    pub(super) async fn list_below(&self, dir: &str) -> Result<Vec<Object>, Error> {
        let prefix = self.below(dir);
        let mut objects = Vec::new();
        let query = Query {
            dir,
            prefix,
            delimiter: None,
            after: None,
        };
        self.pages(&query, |page| objects.extend(page.objects)).await?;
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        objects.dedup_by(|a, b| a.key == b.key);
        Ok(objects)
    }

    /// The directories at the top that sort after `after` and are `wanted`.
    pub(super) async fn list_dirs(&self, after: &str, wanted: NameFilter) -> Result<Vec<String>, Error> {
        // Starting right after the bare name loses nothing that sorts after it, and the rest is sorted out below.
        let start = (!after.is_empty()).then(|| self.full(after));
        let query = Query {
            dir: "",
            prefix: self.prefix.clone(),
            delimiter: Some("/"),
            after: start,
        };
        let mut dirs = Vec::new();
        let wanted = |dir: &String| !dir.is_empty() && dir.as_str() > after && wanted(dir);
        self.pages(&query, |page| dirs.extend(page.dirs.into_iter().filter(wanted)))
            .await?;
        dirs.sort_unstable();
        dirs.dedup();
        Ok(dirs)
    }

    async fn pages(&self, query: &Query<'_>, mut each: impl FnMut(Page)) -> Result<(), Error> {
        let mut pages = Pages::new();
        loop {
            let budget = self.retry_budget();
            let once = || async {
                Ok(match self.list_version {
                    ListVersion::V1 => self.page_v1(query, pages.at(), &budget).await?,
                    ListVersion::V2 => self.page_v2(query, pages.at(), &budget).await?,
                })
            };
            let mut page = budget.run(once).await?;
            let next = page.next.take();
            each(page);
            let Some(next) = next else { return Ok(()) };
            let advanced = pages.advance(next);
            advanced.map_err(|problem| self.error(Op::Iter, query.dir, ErrorKind::Refused, problem))?;
        }
    }

    async fn page_v2(&self, query: &Query<'_>, next: Option<&Next>, budget: &RetryBudget) -> Result<Page, Error> {
        let request = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(&query.prefix)
            .set_delimiter(query.delimiter.map(str::to_owned))
            .set_start_after(query.after.clone());
        let token = match next {
            Some(Next::Token(token) | Next::Marker(token)) => Some(token.clone()),
            None => None,
        };
        let request = request.set_continuation_token(token).customize();
        let answer = self.within_budget(request, Purpose::List, budget).send().await;
        let answer = answer.map_err(|error| self.sdk_error(Op::Iter, query.dir, error))?;
        let next = match (answer.is_truncated, answer.next_continuation_token) {
            (Some(true), Some(token)) => Some(Next::Token(token)),
            (Some(true), None) => return Err(self.cut_listing(query.dir)),
            _ => None,
        };
        let objects = answer.contents.unwrap_or_default();
        let dirs = answer.common_prefixes.unwrap_or_default();
        Ok(self.page(objects, dirs, next))
    }

    async fn page_v1(&self, query: &Query<'_>, next: Option<&Next>, budget: &RetryBudget) -> Result<Page, Error> {
        let marker = match next {
            Some(Next::Marker(marker) | Next::Token(marker)) => Some(marker.clone()),
            None => query.after.clone(),
        };
        let request = self
            .client
            .list_objects()
            .bucket(&self.bucket)
            .prefix(&query.prefix)
            .set_delimiter(query.delimiter.map(str::to_owned))
            .set_marker(marker);
        let answer = self
            .within_budget(request.customize(), Purpose::List, budget)
            .send()
            .await
            .map_err(|error| self.sdk_error(Op::Iter, query.dir, error))?;
        let objects = answer.contents.unwrap_or_default();
        let dirs = answer.common_prefixes.unwrap_or_default();
        // Without a delimiter the store tells no marker: it is the last key then.
        let last_key = objects.last().and_then(|object| object.key.clone());
        let last_dir = dirs.last().and_then(|dir| dir.prefix.clone());
        let next = match (answer.is_truncated, answer.next_marker.or(last_key.max(last_dir))) {
            (Some(true), Some(marker)) => Some(Next::Marker(marker)),
            (Some(true), None) => return Err(self.cut_listing(query.dir)),
            _ => None,
        };
        Ok(self.page(objects, dirs, next))
    }

    fn cut_listing(&self, dir: &str) -> Error {
        let detail = "the store's listing breaks off without saying how to go on".to_owned();
        self.error(Op::Iter, dir, ErrorKind::Server, detail)
    }

    /// Keys without the prefix. Marks that some tools set for directories are no objects.
    fn page(
        &self,
        objects: Vec<aws_sdk_s3::types::Object>,
        dirs: Vec<aws_sdk_s3::types::CommonPrefix>,
        next: Option<Next>,
    ) -> Page {
        let objects = objects.into_iter().filter_map(|object| {
            let key = self.relative(object.key.as_deref()?)?;
            let size = u64::try_from(object.size.unwrap_or(0)).unwrap_or(0);
            (!key.is_empty() && !key.ends_with('/')).then(|| Object {
                key: key.to_owned(),
                size,
            })
        });
        let dirs = dirs.into_iter().filter_map(|dir| {
            let dir = self.relative(dir.prefix.as_deref()?)?;
            Some(dir.strip_suffix('/')?.to_owned())
        });
        Page {
            objects: objects.collect(),
            dirs: dirs.collect(),
            next,
        }
    }

    /// Reads a small object.
    pub(super) async fn read(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        self.read_some(key, limit, None).await
    }

    /// Reads the first `len` bytes of an object, or all of a shorter one. A store that knows no ranges is not listened to for
    /// longer.
    pub(super) async fn read_start(&self, key: &str, len: u64) -> Result<Bytes, Error> {
        // A range of no bytes cannot be asked for.
        match len.checked_sub(1) {
            Some(last) => self.read_some(key, len, Some(format!("bytes=0-{last}"))).await,
            None => Ok(Bytes::new()),
        }
    }

    async fn read_some(&self, key: &str, limit: u64, range: Option<String>) -> Result<Bytes, Error> {
        let budget = self.retry_budget();
        let once = || async {
            let request = self.client.get_object().bucket(&self.bucket).key(self.full(key));
            let request = request.set_range(range.clone());
            let request = self.within_budget(request.customize(), Purpose::Bytes, &budget);
            let answer = request.send().await;
            let answer = answer.map_err(|error| self.sdk_error(Op::Get, key, error))?;
            match self.read_body(key, limit, range.is_some(), answer).await {
                // The SDK tries again up to the head of the answer; what breaks off later is ours.
                Err(error) if error.kind == ErrorKind::Network => Err(Failed::Again(error)),
                result => Ok(result?),
            }
        };
        budget.run(once).await
    }

    /// The body of an answer; of one that is longer than `limit` its `start`, if that is enough.
    async fn read_body(&self, key: &str, limit: u64, start: bool, mut answer: GetObjectOutput) -> Result<Bytes, Error> {
        let expected = answer.content_length.and_then(|len| u64::try_from(len).ok());
        let expected = expected.map(|len| if start { len.min(limit) } else { len });
        let too_large = || {
            let detail = format!("the object has more than the {limit} bytes that are read at most");
            self.error(Op::Get, key, ErrorKind::TooLarge, detail)
        };
        if expected.is_some_and(|len| len > limit) {
            return Err(too_large());
        }
        let mut body = BytesMut::with_capacity(expected.and_then(|len| usize::try_from(len).ok()).unwrap_or(0));
        while (!start || (body.len() as u64) < limit)
            && let Some(piece) = answer.body.next().await
        {
            let mut piece = piece.map_err(|error| {
                let kind = errors::broken_off(&error);
                let detail = format!(
                    "the answer broke off after {} bytes: {}",
                    body.len(),
                    errors::chain(&error)
                );
                self.error(Op::Get, key, kind, detail)
            })?;
            let room = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(body.len());
            if piece.len() > room {
                match start {
                    true => piece.truncate(room),
                    false => return Err(too_large()),
                }
            }
            body.extend_from_slice(&piece);
            rate_limit::wait(self.rate_limit.receive(piece.len())).await;
        }
        match expected {
            Some(expected) if expected != body.len() as u64 => {
                let detail = format!("the answer has {} bytes where {expected} were announced", body.len());
                Err(self.error(Op::Get, key, ErrorKind::Network, detail))
            }
            _ => Ok(body.freeze()),
        }
    }
}
