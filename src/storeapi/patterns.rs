//! Checks and evaluates the regular expressions of matchers, without blocking the thread that serves queries.
//!
//! Parsing a pattern takes time in proportion to its length, compiling one may take far more. So all but short ones go
//! to the [`BlockingPool`], and the results are cached: a valid pattern stays valid, and its verdict on a value never
//! changes. Compiled patterns are not cached: patterns are evaluated against external labels only, which are few and
//! rarely change.
//!
//! At most [`ENTRIES`] patterns with [`BYTES`] bytes are cached, the most recently used ones; refusals are not.
//! Dropping a call ends its work at the next pattern.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use tonic::Status;

use super::errors;
use crate::{
    model::{
        Matcher,
        matcher::{Op, PatternError},
    },
    threads::{BlockingPool, StopOnDrop},
};

/// Patterns that are kept.
const ENTRIES: usize = 256;
/// Bytes of the patterns that are kept, and of the values that they were held against.
const BYTES: usize = 1 << 20;
/// Longer ones are not kept.
const KEPT_MAX: usize = 64 << 10;
/// Values that are kept for a pattern.
const VALUES: usize = 8;
/// Patterns of no more bytes together are read at once: that is faster than asking another thread to.
const SHORT: usize = 256;
/// Patterns that are worked on at once: between them others get the pool, since one pattern can take ten milliseconds, and a
/// request may have a thousand.
const AT_ONCE: usize = 8;

/// A matcher, and what it is held against.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The matcher.
    pub matcher: Matcher,
    /// The value of the label; without one the matcher is only looked at, and holds.
    pub value: Option<String>,
}

/// Whether conditions hold.
#[derive(Debug)]
pub struct Evaluated {
    /// The conditions as they were given.
    pub conditions: Vec<Condition>,
    /// One for each.
    pub holds: Vec<bool>,
}

/// Patterns and what came of them; clones share it.
#[derive(Clone, Debug)]
pub struct Patterns {
    pool: BlockingPool,
    known: Arc<Mutex<Known>>,
}

impl Patterns {
    /// None yet; what takes time is done in `pool`.
    pub fn new(pool: BlockingPool) -> Self {
        Self {
            pool,
            known: Arc::default(),
        }
    }

    /// Evaluates all conditions.
    ///
    /// # Errors
    /// The first pattern that Go refuses, or that is held against a value and cannot be used here; its text is cut to what a
    /// client can take. `Internal`: a bug.
    pub async fn evaluate(&self, conditions: Vec<Condition>) -> Result<Evaluated, Failed> {
        let (mut holds, mut unknown, mut length) = (Vec::with_capacity(conditions.len()), Vec::new(), 0);
        for (at, condition) in conditions.iter().enumerate() {
            let verdict = match condition.matcher.needs_work() {
                false => Some(condition.evaluate()?),
                true => self.lock().find(condition),
            };
            if verdict.is_none() {
                unknown.push(at);
                // Compiling has no bound in the length of the pattern.
                length += condition
                    .value
                    .as_ref()
                    .map_or(condition.matcher.value.len(), |_| SHORT + 1);
            }
            holds.push(verdict.unwrap_or_default());
        }
        let mut evaluated = Evaluated { conditions, holds };
        if unknown.is_empty() {
            return Ok(evaluated);
        }
        if length <= SHORT {
            evaluated = evaluated.complete(&unknown, || false)?;
        } else {
            let stop = StopOnDrop::default();
            for some in unknown.chunks(AT_ONCE) {
                let (flag, at) = (stop.flag(), some.to_vec());
                let work = move || evaluated.complete(&at, || flag.load(Ordering::Relaxed));
                let done = self.pool.run(work).await;
                evaluated = done.map_err(|lost| Failed::Lost(lost.to_string()))??;
            }
        }
        let mut known = self.lock();
        for at in unknown {
            known.keep(&evaluated.conditions[at], evaluated.holds[at]);
        }
        Ok(evaluated)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why conditions were not judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// A pattern that cannot be used.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The work was lost.
    #[error("{0}")]
    Lost(String),
}

impl From<Failed> for Status {
    fn from(failed: Failed) -> Self {
        let text = errors::truncate(failed.to_string());
        match failed {
            Failed::Pattern(_) => Self::invalid_argument(text),
            Failed::Lost(_) => Self::internal(text),
        }
    }
}

impl Evaluated {
    /// Evaluates those that are not cached, until the call is dropped.
    fn complete(mut self, unknown: &[usize], stop: impl Fn() -> bool) -> Result<Self, PatternError> {
        for &at in unknown {
            if stop() {
                break;
            }
            self.holds[at] = self.conditions[at].evaluate()?;
        }
        Ok(self)
    }
}

impl Condition {
    fn evaluate(&self) -> Result<bool, PatternError> {
        self.matcher.check()?;
        match &self.value {
            Some(value) => self.matcher.matches(value),
            None => Ok(true),
        }
    }
}

/// What is known of patterns.
#[derive(Debug, Default)]
struct Known {
    patterns: HashMap<Box<str>, Entry>,
    bytes: usize,
    /// Counts what was found or kept.
    clock: u64,
}

/// A pattern that Go takes.
#[derive(Debug, Default)]
struct Entry {
    /// Whether it matches these, the oldest first.
    values: Vec<(Box<str>, bool)>,
    used: u64,
}

impl Known {
    fn find(&mut self, condition: &Condition) -> Option<bool> {
        self.clock += 1;
        let entry = self.patterns.get_mut(&*condition.matcher.value)?;
        let matches = match &condition.value {
            None => return Some(entry.touch(self.clock)),
            Some(value) => entry.values.iter().find(|(known, _)| **known == **value)?.1,
        };
        entry.touch(self.clock);
        Some(matches == (condition.matcher.op == Op::Regex))
    }

    fn keep(&mut self, condition: &Condition, holds: bool) {
        let Condition { matcher, value } = condition;
        let needed = matcher.value.len() + value.as_ref().map_or(0, String::len);
        if needed > KEPT_MAX {
            return;
        }
        self.clock += 1;
        while self.bytes + needed > BYTES || self.patterns.len() >= ENTRIES {
            self.forget_oldest();
        }
        let entry = match self.patterns.get_mut(&*matcher.value) {
            Some(entry) => entry,
            None => {
                self.bytes += matcher.value.len();
                self.patterns.entry(matcher.value.as_str().into()).or_default()
            }
        };
        entry.touch(self.clock);
        if let Some(value) = value
            && entry.values.iter().all(|(known, _)| **known != **value)
        {
            if entry.values.len() >= VALUES {
                self.bytes -= entry.values.remove(0).0.len();
            }
            self.bytes += value.len();
            let matches = holds == (matcher.op == Op::Regex);
            entry.values.push((value.as_str().into(), matches));
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.patterns.iter().min_by_key(|(_, entry)| entry.used);
        let Some(oldest) = oldest.map(|(pattern, _)| pattern.clone()) else {
            return;
        };
        if let Some(entry) = self.patterns.remove(&oldest) {
            let values = entry.values.iter().map(|(value, _)| value.len());
            self.bytes -= oldest.len() + values.sum::<usize>();
        }
    }
}

impl Entry {
    fn touch(&mut self, clock: u64) -> bool {
        self.used = clock;
        true
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    fn condition(op: Op, pattern: &str, value: Option<&str>) -> Condition {
        Condition {
            matcher: Matcher::new(op, "a", pattern),
            value: value.map(str::to_owned),
        }
    }

    fn patterns() -> Patterns {
        Patterns::new(BlockingPool::new(1))
    }

    #[tokio::test]
    async fn what_is_known_is_what_was_found() {
        let patterns = patterns();
        let conditions: Vec<_> = [Op::Regex, Op::NotRegex, Op::Equal, Op::NotEqual]
            .into_iter()
            .flat_map(|op| [None, Some("eu-1"), Some("us")].map(|value| condition(op, "eu-.", value)))
            .collect();
        let wanted = [
            true, true, false, true, false, true, true, false, false, true, true, true,
        ];
        for turn in 0..3 {
            let evaluated = match turn {
                0 => patterns.evaluate(conditions.clone()).await,
                // From now on nothing has to be waited for.
                _ => patterns
                    .evaluate(conditions.clone())
                    .now_or_never()
                    .expect("all is known"),
            };
            assert_eq!(evaluated.unwrap().holds, wanted);
        }
    }

    #[tokio::test]
    async fn short_patterns_are_read_at_once_and_long_ones_elsewhere() {
        let patterns = patterns();
        let short = vec![condition(Op::Regex, "n.*", None)];
        patterns.evaluate(short).now_or_never().expect("it is short").unwrap();
        let literals = vec![condition(Op::Regex, &"pod-1|".repeat(50_000), Some("pod-1"))];
        patterns
            .evaluate(literals)
            .now_or_never()
            .expect("it is no pattern")
            .unwrap();
        let long = vec![condition(Op::Regex, &"(a.|b)".repeat(1000), None)];
        // The only thread is busy.
        let (release, held) = std::sync::mpsc::channel();
        let mut busy = std::pin::pin!(patterns.pool.run(move || held.recv()));
        assert!(busy.as_mut().now_or_never().is_none());
        assert!(patterns.evaluate(long.clone()).now_or_never().is_none());
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        patterns.evaluate(long.clone()).await.unwrap();
        patterns.evaluate(long).now_or_never().expect("it is known").unwrap();
    }

    #[tokio::test]
    async fn others_get_the_lane_before_all_of_many_patterns_are_read() {
        let patterns = patterns();
        let conditions: Vec<_> = (0..10 * AT_ONCE)
            .map(|at| condition(Op::Regex, &format!("(a.|b){at}"), Some("eu")))
            .collect();
        let ended = Mutex::new(Vec::new());
        let evaluate = async {
            patterns.evaluate(conditions).await.unwrap();
            ended.lock().unwrap().push("patterns");
        };
        let other = async {
            patterns.pool.run(|| ()).await.unwrap();
            ended.lock().unwrap().push("other");
        };
        tokio::join!(evaluate, other);
        assert_eq!(*ended.lock().unwrap(), ["other", "patterns"]);
    }

    #[tokio::test]
    async fn a_pattern_that_cannot_be_used_is_told_each_time() {
        let patterns = patterns();
        for pattern in ["e(".to_owned(), format!("{}(", "a.".repeat(1000))] {
            for _ in 0..2 {
                let evaluated = patterns.evaluate(vec![condition(Op::Regex, &pattern, None)]).await;
                let status = Status::from(evaluated.unwrap_err());
                assert_eq!(status.code(), tonic::Code::InvalidArgument);
                assert!(status.message().starts_with("error parsing regexp: missing closing )"));
            }
        }
        // Prometheus may get it, and here it cannot be used.
        let large = r"\pL{1000}";
        patterns
            .evaluate(vec![condition(Op::Regex, large, None)])
            .await
            .unwrap();
        let evaluated = patterns.evaluate(vec![condition(Op::Regex, large, Some("eu"))]).await;
        assert!(evaluated.unwrap_err().to_string().contains("is not supported here"));
    }

    proptest! {
        #[test]
        fn what_is_kept_has_bounds(
            asked in proptest::collection::vec((0..400_usize, 1..40_000_usize, proptest::option::of(0..20_usize)), 1..400)
        ) {
            let mut known = Known::default();
            for (pattern, length, value) in asked {
                let pattern = format!("{pattern}.{}", "x".repeat(length));
                let value = value.map(|value| format!("v{value}"));
                let condition = condition(Op::Regex, &pattern, value.as_deref());
                known.keep(&condition, true);
                prop_assert_eq!(known.find(&condition), Some(true));
                let kept = known.patterns.iter().map(|(pattern, entry)| {
                    pattern.len() + entry.values.iter().map(|(value, _)| value.len()).sum::<usize>()
                });
                prop_assert_eq!(kept.sum::<usize>(), known.bytes);
                prop_assert!(known.bytes <= BYTES && known.patterns.len() <= ENTRIES);
                prop_assert!(known.patterns.values().all(|entry| entry.values.len() <= VALUES));
            }
        }
    }

    #[test]
    fn those_that_were_used_last_stay() {
        let mut known = Known::default();
        let of = |number: usize| condition(Op::Regex, &format!("a.{number}"), None);
        for number in 0..ENTRIES {
            known.keep(&of(number), true);
        }
        assert_eq!(known.find(&of(0)), Some(true));
        known.keep(&of(ENTRIES), true);
        assert_eq!((known.find(&of(0)), known.find(&of(1))), (Some(true), None));
        let long = condition(Op::Regex, &"a.".repeat(KEPT_MAX), None);
        known.keep(&long, true);
        assert_eq!((known.find(&long), known.find(&of(0))), (None, Some(true)));
    }
}
