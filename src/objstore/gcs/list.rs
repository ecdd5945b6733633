//! Listings of Google's store, page by page.

use serde::Deserialize;

use super::{Described, Store};
use crate::objstore::{Error, NameFilter, Object, rest::encoded};

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
        let at = |token: Option<&str>| {
            let from = token.map(|token| format!("&pageToken={}", encoded(token)));
            format!(
                "{}/storage/v1/b/{}/o?{query}{}",
                google.base,
                encoded(&google.bucket),
                from.unwrap_or_default()
            )
        };
        let read = |body: &[u8]| {
            let mut page: Page = serde_json::from_slice(body)
                .map_err(|error| format!("the listing is not that of Google Cloud Storage: {error}"))?;
            let next = page.next_page_token.take();
            each(page);
            Ok(next)
        };
        self.rest.pages(dir, at, read).await
    }
}
