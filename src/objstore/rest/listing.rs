//! Going through a listing of any length; what it takes in at once is one page.

use http::Method;

use super::{Dialect, Rest, address};
use crate::objstore::{Error, ErrorKind, Op, pages::Pages};

/// How much one page of a listing may have, in bytes: 5000 entries with long names.
const PAGE_LIMIT: usize = 64 << 20;

impl<D: Dialect> Rest<D> {
    /// Goes through a listing. A page is at the address that `at` makes of what the page before it said; `read` takes a page in,
    /// and returns what it says of the next one.
    pub(in crate::objstore) async fn pages(
        &self,
        dir: &str,
        at: impl Fn(Option<&str>) -> String + Send,
        mut read: impl FnMut(&[u8]) -> Result<Option<String>, String> + Send,
    ) -> Result<(), Error> {
        let mut pages = Pages::new();
        loop {
            let uri = address(&at(pages.at().map(String::as_str)));
            let call = self.prepare(Op::Iter, dir, Method::GET, uri)?;
            let (_, body) = self.call_whole(dir, &call, PAGE_LIMIT).await?;
            let next = read(&body).map_err(|problem| self.error(Op::Iter, dir, ErrorKind::Network, problem))?;
            let Some(next) = next.filter(|next| !next.is_empty()) else {
                return Ok(());
            };
            let advanced = pages.advance(next);
            advanced.map_err(|problem| self.error(Op::Iter, dir, ErrorKind::Refused, problem))?;
        }
    }
}
