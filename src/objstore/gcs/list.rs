//! Listings of Google's store, page by page.

use http::Method;
use serde::Deserialize;

use super::{Described, Store, address};
use crate::objstore::{
    Error, ErrorKind, NameFilter, Object, Op,
    pages::Pages,
    rest::{Call, PAGE_LIMIT, encoded},
};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Page {
    items: Vec<Described>,
    prefixes: Vec<String>,
    next_page_token: Option<String>,
}

impl Store {
    /// All objects below `dir`.
    pub(super) async fn list_below(&self, dir: &str) -> Result<Vec<Object>, Error> {
        let query = format!(
            "prefix={}&fields=items(name,size),nextPageToken",
            encoded(&self.rest.below(dir))
        );
        let mut objects = Vec::new();
        self.pages(dir, &query, |page| {
            objects.extend(page.items.into_iter().filter_map(|item| self.object(item)));
        })
        .await?;
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        objects.dedup_by(|a, b| a.key == b.key);
        Ok(objects)
    }

    /// The directories at the top that sort after `after` and are `wanted`.
    pub(super) async fn list_dirs(&self, after: &str, wanted: NameFilter) -> Result<Vec<String>, Error> {
        let prefix = &self.rest.prefix;
        let mut query = format!("prefix={}&delimiter=%2F&fields=prefixes,nextPageToken", encoded(prefix));
        if !after.is_empty() {
            query.push_str(&format!("&startOffset={}", encoded(&self.rest.full(after))));
        }
        let mut dirs = Vec::new();
        self.pages("", &query, |page| {
            let names = page
                .prefixes
                .iter()
                .filter_map(|dir| self.rest.relative(dir)?.strip_suffix('/'));
            let names = names.filter(|name| !name.is_empty() && *name > after && wanted(name));
            dirs.extend(names.map(str::to_owned));
        })
        .await?;
        dirs.sort_unstable();
        dirs.dedup();
        Ok(dirs)
    }

    /// Marks that some tools set for directories are no objects.
    fn object(&self, item: Described) -> Option<Object> {
        let size = item.size().unwrap_or_default();
        let key = self.rest.relative(&item.name)?;
        (!key.is_empty() && !key.ends_with('/')).then(|| Object {
            key: key.to_owned(),
            size,
        })
    }

    async fn pages(&self, dir: &str, query: &str, mut each: impl FnMut(Page) + Send) -> Result<(), Error> {
        let google = &self.rest.dialect;
        let refused = |problem: String| self.rest.error(Op::Iter, dir, ErrorKind::Refused, problem);
        let mut pages = Pages::new();
        loop {
            let from = pages
                .at()
                .map(|token: &String| format!("&pageToken={}", encoded(token)));
            let text = format!(
                "{}/storage/v1/b/{}/o?{query}{}",
                google.base,
                encoded(&google.bucket),
                from.unwrap_or_default()
            );
            let call = Call {
                op: Op::Iter,
                method: Method::GET,
                uri: address(&text).map_err(refused)?,
                headers: Vec::new(),
                content: None,
                expected: &[],
            };
            let (_, body) = self.rest.call_whole(dir, &call, PAGE_LIMIT).await?;
            let mut page: Page = serde_json::from_slice(&body).map_err(|error| {
                let detail = format!("the listing is not that of Google Cloud Storage: {error}");
                self.rest.error(Op::Iter, dir, ErrorKind::Network, detail)
            })?;
            let next = page.next_page_token.take().filter(|token| !token.is_empty());
            each(page);
            let Some(next) = next else { return Ok(()) };
            pages.advance(next).map_err(refused)?;
        }
    }
}
