//! Going through a listing page by page: a store that sends us in a circle, however long, is found out and not asked for ever.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, Hash, RandomState},
};

/// Which page is asked for.
#[derive(Debug)]
pub(super) struct Pages<T> {
    at: Option<T>,
    hasher: RandomState,
    /// What was asked for: 8 bytes for each page.
    seen: HashSet<u64>,
}

impl<T: Hash> Pages<T> {
    /// From the first page on.
    pub(super) fn new() -> Self {
        Self {
            at: None,
            hasher: RandomState::new(),
            seen: HashSet::new(),
        }
    }

    /// With what the page is asked for; `None` for the first one.
    pub(super) fn at(&self) -> Option<&T> {
        self.at.as_ref()
    }

    /// Goes on to the next page.
    ///
    /// # Errors
    /// It was asked for before.
    pub(super) fn advance(&mut self, next: T) -> Result<(), String> {
        if !self.seen.insert(self.hasher.hash_one(&next)) {
            return Err("the store's listing does not advance from page to page".to_owned());
        }
        self.at = Some(next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_comes_twice() {
        let mut pages = Pages::new();
        assert_eq!(pages.at(), None);
        pages.advance("a").unwrap();
        pages.advance("b").unwrap();
        assert_eq!(pages.at(), Some(&"b"));
        assert!(pages.advance("a").unwrap_err().contains("does not advance"));
    }
}
