//! Which label names Prometheus stores series with, of those that queries need to know.
//!
//! Queries ask for names ([`StoredNames::may_be_stored`]); the heartbeat looks them up ([`StoredNames::due`]) and
//! records the result ([`StoredNames::looked_up`]). Until then, and whenever it is not certain, a name counts as
//! stored. The result may be as old as a heartbeat: a name that was not stored may be stored now, so that whoever
//! relies on it has to check the series that it receives, and to report names that it finds ([`StoredNames::seen`]).
//!
//! **Bounds.** At most 64 names of at most 256 bytes are held; others count as stored. The names of external labels are
//! never evicted ([`StoredNames::keep`]). Another one is dropped when no query has needed it for an hour, and sooner
//! when a new one needs its place and no query has needed it since the last lookup.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Names that are looked up, at most.
const NAMES_MAX: usize = 64;

/// The longest name that is looked up, in bytes.
const LENGTH_MAX: usize = 256;

/// How long a name is looked up that no query needs.
const ASKED_WITHIN: Duration = Duration::from_secs(60 * 60);

/// How long a name counts as stored without another lookup, when it is stored or cannot be looked up. A lookup may be expensive
/// then: a Prometheus before 2.52 gives all values. That the name is gone meanwhile costs it some work, and nothing else.
const STORED_FOR: Duration = Duration::from_secs(5 * 60);

/// The names; clones share them.
#[derive(Clone, Debug, Default)]
pub struct StoredNames(Arc<Mutex<Names>>);

#[derive(Debug, Default)]
struct Names {
    known: BTreeMap<String, Name>,
    /// When a round of lookups last began.
    last_lookup: Option<Instant>,
}

#[derive(Debug)]
struct Name {
    stored: Stored,
    asked: Instant,
    /// It is that of an external label.
    kept: bool,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Unknown,
    /// A series had it after the last round of lookups had begun.
    Seen,
    Yes {
        since: Instant,
    },
    /// It was looked up, and nothing came of that.
    Doubted {
        since: Instant,
    },
    No,
}

/// How many names are stored, are not, and are not known to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that are stored.
    pub stored: usize,
    /// Those that are not.
    pub absent: usize,
    /// Those that count as stored because nothing else is known.
    pub unknown: usize,
}

impl StoredNames {
    /// Whether there may be series with this label. A name that is new is looked up with the next heartbeat.
    pub fn may_be_stored(&self, name: &str) -> bool {
        let mut names = self.lock();
        let now = Instant::now();
        match names.known.get_mut(name) {
            Some(known) => {
                known.asked = now;
                known.stored != Stored::No
            }
            None => {
                names.add(name, now, false);
                true
            }
        }
    }

    /// A series was seen that carries one of `names`, or the order of an answer implies it.
    pub fn seen<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let mut held = self.lock();
        for name in names {
            if let Some(known) = held.known.get_mut(name) {
                known.stored = Stored::Seen;
            }
        }
    }

    /// From now on these are the names of the external labels.
    pub fn keep<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let mut held = self.lock();
        let now = Instant::now();
        for known in held.known.values_mut() {
            known.kept = false;
        }
        for name in names {
            match held.known.get_mut(name) {
                Some(known) => known.kept = true,
                None => held.add(name, now, true),
            }
        }
    }

    /// The names to look up now, at the beginning of a round. Names that no query needs any more are dropped then.
    pub fn due(&self) -> Vec<String> {
        let mut held = self.lock();
        let now = Instant::now();
        held.last_lookup = Some(now);
        held.known
            .retain(|_, known| known.kept || now.duration_since(known.asked) < ASKED_WITHIN);
        let mut due = Vec::new();
        for (name, known) in &mut held.known {
            match known.stored {
                Stored::Yes { since } | Stored::Doubted { since } if now.duration_since(since) < STORED_FOR => continue,
                Stored::Seen => known.stored = Stored::Unknown,
                _ => {}
            }
            due.push(name.clone());
        }
        due
    }

    /// A lookup has found out whether there are series with this label. That there are none does not count for one
    /// that was seen meanwhile.
    pub fn looked_up(&self, name: &str, stored: bool) {
        if let Some(known) = self.lock().known.get_mut(name) {
            known.stored = match (stored, known.stored) {
                (true, _) => Stored::Yes { since: Instant::now() },
                (false, Stored::Seen) => Stored::Seen,
                (false, _) => Stored::No,
            };
        }
    }

    /// A lookup of this name has failed: it counts as stored, and is not looked up for a while.
    pub fn lookup_failed(&self, name: &str) {
        self.set(name, Stored::Doubted { since: Instant::now() });
    }

    /// A round of lookups has ended before it came to this name: it counts as stored until the next one.
    pub fn postponed(&self, name: &str) {
        self.set(name, Stored::Unknown);
    }

    fn set(&self, name: &str, stored: Stored) {
        if let Some(known) = self.lock().known.get_mut(name) {
            known.stored = stored;
        }
    }

    /// Nothing that was learned counts any more: this may be another Prometheus.
    pub fn forget(&self) {
        for known in self.lock().known.values_mut() {
            known.stored = Stored::Unknown;
        }
    }

    /// What is known now.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for known in self.lock().known.values() {
            match known.stored {
                Stored::Yes { .. } => counts.stored += 1,
                Stored::No => counts.absent += 1,
                Stored::Unknown | Stored::Seen | Stored::Doubted { .. } => counts.unknown += 1,
            }
        }
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    /// Adds a name if there is a place for it.
    fn add(&mut self, name: &str, now: Instant, kept: bool) {
        if name.len() > LENGTH_MAX || self.known.len() >= NAMES_MAX && !self.make_room(kept) {
            return;
        }
        let (stored, asked) = (Stored::Unknown, now);
        self.known.insert(name.to_owned(), Name { stored, asked, kept });
    }

    /// Drops the name that was not asked for the longest: for an external label whichever it is, else only one that nobody
    /// has asked for since the last round.
    fn make_room(&mut self, whichever: bool) -> bool {
        let others = self.known.iter().filter(|(_, known)| !known.kept);
        let Some((oldest, known)) = others.min_by_key(|(_, known)| known.asked) else {
            return false;
        };
        if !whichever && self.last_lookup.is_none_or(|last_lookup| known.asked >= last_lookup) {
            return false;
        }
        let oldest = oldest.clone();
        self.known.remove(&oldest).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_as_stored_until_a_look_says_otherwise_and_again_when_it_was_seen() {
        let names = StoredNames::default();
        assert!(names.may_be_stored("replica"));
        assert_eq!(names.due(), ["replica"]);
        names.looked_up("replica", false);
        assert!(!names.may_be_stored("replica"));
        names.seen(["replica", "cluster"]);
        assert!(names.may_be_stored("replica"));
        names.looked_up("replica", true);
        assert!(names.may_be_stored("replica"));
        names.looked_up("cluster", false);
        assert_eq!(
            names.counts(),
            Counts {
                stored: 1,
                ..Counts::default()
            }
        );
        let doubts: [fn(&StoredNames); 3] = [
            |names| names.lookup_failed("replica"),
            |names| names.postponed("replica"),
            StoredNames::forget,
        ];
        for doubt in doubts {
            names.looked_up("replica", false);
            assert!(!names.may_be_stored("replica"));
            doubt(&names);
            assert!(names.may_be_stored("replica"));
            let (unknown, known) = (1, Counts::default());
            assert_eq!(names.counts(), Counts { unknown, ..known });
        }
    }

    #[test]
    fn a_look_that_began_before_a_name_was_seen_does_not_say_that_it_is_absent() {
        let names = StoredNames::default();
        names.may_be_stored("replica");
        names.due();
        names.seen(["replica"]);
        names.looked_up("replica", false);
        assert!(names.may_be_stored("replica"));
        names.due();
        names.looked_up("replica", false);
        assert!(!names.may_be_stored("replica"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_stored_or_cannot_be_told_is_looked_up_seldom_and_all_else_each_time() {
        let names = StoredNames::default();
        let all = ["doubted", "no", "postponed", "unknown", "yes"];
        for name in all {
            names.may_be_stored(name);
        }
        let learn = || {
            names.looked_up("yes", true);
            names.looked_up("no", false);
            names.lookup_failed("doubted");
            names.postponed("postponed");
        };
        learn();
        for _ in 0..2 {
            assert_eq!(names.due(), ["no", "postponed", "unknown"]);
        }
        tokio::time::advance(STORED_FOR).await;
        assert_eq!(names.due(), all);
        learn();
        names.seen(["doubted", "yes"]);
        assert_eq!(names.due(), all);
        learn();
        names.forget();
        assert_eq!(names.due(), all);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_falls_out_and_external_labels_stay() {
        let names = StoredNames::default();
        names.keep(["cluster", "old"]);
        names.may_be_stored("replica");
        names.may_be_stored("once");
        names.keep(["cluster"]);
        for _ in 0..2 {
            tokio::time::advance(ASKED_WITHIN / 2).await;
            names.may_be_stored("replica");
        }
        assert_eq!(names.due(), ["cluster", "replica"]);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_an_end_to_what_is_looked_up_and_one_that_is_in_use_keeps_its_place() {
        let names = StoredNames::default();
        assert!(names.may_be_stored(&"x".repeat(LENGTH_MAX + 1)));
        let name = |at: usize| format!("n{at:02}");
        for at in 0..2 * NAMES_MAX {
            assert!(names.may_be_stored(&name(at)));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let first: Vec<String> = (0..NAMES_MAX).map(name).collect();
        assert_eq!(names.due(), first);
        // All but one are in use.
        for at in (0..NAMES_MAX).filter(|at| *at != 7) {
            names.may_be_stored(&name(at));
        }
        names.may_be_stored("new");
        names.may_be_stored("too many");
        let now = names.due();
        assert!(now.len() == NAMES_MAX && now.contains(&"new".to_owned()), "{now:?}");
        assert!(
            !now.contains(&name(7)) && !now.contains(&"too many".to_owned()),
            "{now:?}"
        );
        // An external label has a place in any case.
        names.may_be_stored("new");
        names.keep(["cluster"]);
        let now = names.due();
        assert!(now.len() == NAMES_MAX && now.contains(&"cluster".to_owned()), "{now:?}");
    }
}
