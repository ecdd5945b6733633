//! Which label names Prometheus stores series with, as far as somebody wants to know.
//!
//! Whoever asks names them ([`StoredNames::may_be_stored`]); the heartbeat looks them up and tells ([`StoredNames::learned`]). Until
//! then, and whenever it is in doubt, a name counts as stored. What is told may be old by a heartbeat: a name that was
//! not stored may be now, so that whoever relies on it has to look at what comes, and say so ([`StoredNames::seen`]).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Names that are looked up at each heartbeat, at most; others count as stored.
const NAMES_MAX: usize = 64;

/// The names; clones share them.
#[derive(Clone, Debug, Default)]
pub struct StoredNames(Arc<Mutex<BTreeMap<String, Stored>>>);

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Unknown,
    Yes,
    No,
}

impl StoredNames {
    /// Whether there may be series with this label. A name that is new is looked up with the next heartbeat.
    pub fn may_be_stored(&self, name: &str) -> bool {
        let mut names = self.lock();
        match names.get(name) {
            Some(stored) => *stored != Stored::No,
            None => {
                if names.len() < NAMES_MAX {
                    names.insert(name.to_owned(), Stored::Unknown);
                }
                true
            }
        }
    }

    /// A series was seen that carries one of `names`, or the order of an answer says so.
    pub fn seen<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let mut known = self.lock();
        for name in names {
            if let Some(stored) = known.get_mut(name) {
                *stored = Stored::Unknown;
            }
        }
    }

    /// The names that somebody wants to know of.
    pub fn wanted(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// A look at Prometheus has told whether there are series with this label.
    pub fn learned(&self, name: &str, stored: bool) {
        if let Some(known) = self.lock().get_mut(name) {
            *known = if stored { Stored::Yes } else { Stored::No };
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_as_stored_until_a_look_says_otherwise_and_again_when_it_was_seen() {
        let names = StoredNames::default();
        assert!(names.may_be_stored("replica"));
        assert_eq!(names.wanted(), ["replica"]);
        names.learned("replica", false);
        assert!(!names.may_be_stored("replica"));
        names.seen(["replica", "cluster"]);
        assert!(names.may_be_stored("replica"));
        names.learned("replica", true);
        assert!(names.may_be_stored("replica"));
        names.learned("cluster", false);
        assert_eq!(names.wanted(), ["replica"]);
    }

    #[test]
    fn there_is_an_end_to_what_is_looked_up() {
        let names = StoredNames::default();
        for at in 0..2 * NAMES_MAX {
            assert!(names.may_be_stored(&format!("n{at}")));
        }
        assert_eq!(names.wanted().len(), NAMES_MAX);
    }
}
