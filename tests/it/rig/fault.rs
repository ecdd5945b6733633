//! What can go wrong in front of an S3 server, by script.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

/// What happens to a request in place of, or around, carrying it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answers with this status and S3 error code at once, e.g. 503 `SlowDown`; the body is not read.
    Answer(u16, &'static str),
    /// As [`Fault::Answer`], and names this region as the bucket's, in a header and in the body.
    Elsewhere(u16, &'static str, &'static str),
    /// Reads so many bytes of the body, then closes the connection. Nothing is stored.
    CutBody(u64),
    /// Reads so many bytes of the body, then no more, and never answers.
    StallBody(u64),
    /// Answers 200 with the checksums that were sent, but stores nothing.
    Swallow,
    /// Carries the request out, then closes the connection without an answer.
    LoseAnswer,
    /// Carries the request out, then answers with this status and S3 error code.
    DoneBut(u16, &'static str),
    /// Answers a GET with so many bytes of the object, then closes the connection.
    CutAnswer(u64),
    /// Waits, then carries the request out.
    Delay(Duration),
    /// Waits until all faults are over, then carries the request out.
    Hold,
    /// Reads nothing and never answers.
    Hang,
}

/// Which requests meet a [`Fault`].
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    method: &'static str,
    pattern: String,
    skip: u32,
    times: u32,
    fault: Fault,
}

impl Rule {
    /// Requests of this method (`*` for any) whose key, with `?` and the query if there is one, fits the pattern, in which
    /// `*` stands for anything: `*/meta.json`, `*/chunks/000001?*partNumber=2*`, `*?list-type=2*`. All of them.
    pub(crate) fn on(method: &'static str, pattern: &str, fault: Fault) -> Rule {
        Rule {
            method,
            pattern: pattern.to_owned(),
            skip: 0,
            times: u32::MAX,
            fault,
        }
    }

    /// Only so many.
    pub(crate) fn times(mut self, times: u32) -> Rule {
        self.times = times;
        self
    }

    /// Not the first ones.
    pub(crate) fn skip(mut self, skip: u32) -> Rule {
        self.skip = skip;
        self
    }
}

/// A request as the server has seen it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub method: String,
    /// The key, without the bucket.
    pub key: String,
    /// The query, without `?`.
    pub query: String,
    /// The length of the body as announced.
    pub length: u64,
    pub headers: http::HeaderMap,
    /// What was done to it.
    pub fault: Option<Fault>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}?{} {:?}", self.method, self.key, self.query, self.fault)
    }
}

/// The script and the record of one server.
#[derive(Debug, Default)]
pub(crate) struct Script {
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    cleared: watch::Sender<()>,
}

impl Script {
    pub(crate) fn add(&self, rule: Rule) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
    }

    pub(crate) fn clear(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.cleared.send_replace(());
    }

    /// Waits until there are no more rules.
    pub(crate) async fn over(&self) {
        let none = || self.rules.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        // The sender lives as long as we.
        let _ = self.cleared.subscribe().wait_for(|()| none()).await;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn count(&self, such: impl Fn(&Seen) -> bool) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|seen| such(seen)).count()
    }

    /// Records a request and tells what is to happen to it: what the first rule says that fits and is not used up.
    pub(crate) fn meet<B>(&self, request: &http::Request<B>) -> Option<Fault> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let path = request.uri().path().trim_start_matches('/');
        let key = path.split_once('/').map_or("", |(_, key)| key).to_owned();
        let method = request.method().as_str().to_owned();
        let text = if query.is_empty() {
            key.clone()
        } else {
            format!("{key}?{query}")
        };
        let fault = self
            .rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter_mut()
            .find_map(|rule| {
                let fits = (rule.method == "*" || rule.method == method) && fits(&rule.pattern, &text);
                if !fits || rule.times == 0 {
                    None
                } else if rule.skip > 0 {
                    rule.skip -= 1;
                    None
                } else {
                    rule.times -= 1;
                    Some(rule.fault.clone())
                }
            });
        let headers = request.headers().clone();
        let length = headers
            .get("content-length")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .unwrap_or(0);
        let seen = Seen {
            method,
            key,
            query,
            length,
            headers,
            fault: fault.clone(),
        };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        fault
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => {
            let Some(text) = text.strip_prefix(start) else {
                return false;
            };
            text.char_indices()
                .map(|(at, _)| at)
                .chain([text.len()])
                .any(|at| fits(rest, &text[at..]))
        }
    }
}

#[test]
fn a_star_stands_for_anything() {
    for (pattern, text, good) in [
        ("*/meta.json", "01A/meta.json", true),
        ("*/meta.json", "01A/meta.json.tmp", false),
        ("*", "", true),
        ("a*b*c", "a--b-b--c", true),
        ("a*b*c", "a--c", false),
        ("*?uploads*", "01A/chunks/000001?uploads=", true),
    ] {
        assert_eq!(fits(pattern, text), good, "{pattern} {text}");
    }
}
