//! Prometheus' JSON API, as far as the StoreAPI asks it.
//!
//! **Bounds.** Each question has a time ([`Ask`]), its turn and the answer included, and memory that its caller gives
//! ([`Room`]). Answers are read part by part while they arrive, so that an answer and what is made of it are never both in
//! memory. One for which there is no memory is an error that says so, never a shorter answer. A long one is read on other threads.
//!
//! **Tolerance.** Any status of 2xx is good; 204 is an empty answer, as is `null`. Prometheus' warnings are not passed on:
//! a reader would take them for a partial answer.

mod answers;
mod ask;
mod parameters;
mod questions;
mod reading;

use std::{borrow::Cow, collections::BTreeSet, fmt, ops::ControlFlow};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

pub(super) use self::parameters::label_in_path;
pub use self::{
    answers::{
        ActiveTarget, Alert, DroppedTarget, Exemplar, HeadStats, LabelMap, Meta, Rule, RuleGroup, SeriesExemplars,
        Statistic,
    },
    ask::Ask,
    questions::{ExemplarPart, MetadataPart, RulePart, Target, TsdbPart},
    reading::{Room, Take},
};
use self::{
    parameters::{escaped_name, path_element, selector, time},
    reading::Form,
};
use super::{
    Client,
    error::{Error, ErrorKind},
    json::{Item, Node, Sink},
    remote_read::wire::LabelBytes,
    turns::Kind,
    version::at_least,
};
use crate::model::{Matcher, matcher::Op};

/// What each text costs beside its bytes.
const OVERHEAD: usize = 96;

const SERIES: Form = list_in_data("label sets in data");
const NAMES: Form = list_in_data("names in data");
const VALUES: Form = list_in_data("values in data");

const fn list_in_data(expected: &'static str) -> Form {
    Form {
        kind: Kind::Labels,
        root: &Node::Keys(&[("data", Node::List(0, None))]),
        expected,
    }
}

/// Which series are asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Conditions that all hold for them; none at all asks about every series, where Prometheus allows that.
    pub matchers: &'a [Matcher],
    /// The beginning of the time in which they had samples, in ms since 1970.
    pub start_ms: i64,
    /// Its end, inclusive.
    pub end_ms: i64,
    /// The largest number of results, if positive. Older versions of Prometheus do not know it and give all.
    pub limit: i64,
}

impl Question<'_> {
    /// The parameters by name.
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters = vec![("end", time(self.end_ms))];
        if self.limit > 0 {
            parameters.push(("limit", self.limit.to_string()));
        }
        if !self.matchers.is_empty() {
            parameters.push(("match[]", selector(self.matchers)));
        }
        parameters.push(("start", time(self.start_ms)));
        parameters
    }
}

/// Name and value of each label of a series, in the order of the answer.
type Pairs<'a> = [(Cow<'a, str>, Cow<'a, str>)];

impl Client {
    /// Hands over the label sets of series, in Prometheus' order, each in one piece of memory, as it stands in a message,
    /// until `take` has enough: the rest of the answer is not read then. Within the time of `ask` and the memory of `room`, which
    /// is asked for what is held of the answer while it is read.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn each_series(
        &self,
        question: &Question<'_>,
        ask: &Ask,
        mut take: impl FnMut(LabelBytes) -> ControlFlow<()>,
        room: &mut (dyn FnMut(usize) -> bool + Send),
    ) -> Result<(), Error> {
        let sink = EachSeries {
            room,
            take: |pairs: &Pairs<'_>| {
                let pairs = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
                // A copy is as large as it has to be; what was built may be twice that.
                take(LabelBytes::from_pairs(pairs).detached())
            },
        };
        self.each(SERIES, "/api/v1/series", &question.parameters(), ask, sink)
            .await
    }

    /// Whether there is any series. No more of the answer is read than shows it.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn any_series(
        &self,
        question: &Question<'_>,
        ask: &Ask,
        room: &mut (dyn FnMut(usize) -> bool + Send),
    ) -> Result<bool, Error> {
        let mut any = false;
        let sink = EachSeries {
            room,
            take: |_: &Pairs<'_>| {
                any = true;
                ControlFlow::Break(())
            },
        };
        let parameters = Question { limit: 1, ..*question }.parameters();
        self.each(SERIES, "/api/v1/series", &parameters, ask, sink).await?;
        Ok(any)
    }

    /// The names of the labels of series, sorted, with the `room` that they take.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn label_names<R: Room>(&self, question: &Question<'_>, ask: &Ask, room: R) -> Result<Texts<R>, Error> {
        self.texts(NAMES, "/api/v1/labels", question, ask, room).await
    }

    /// The values of one label of series, sorted, with the `room` that they take. `version` is Prometheus' own: names that
    /// are no classic ones are written as it understands them, and where no way of writing one is known, the series are
    /// looked through.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn label_values<R: Room>(
        &self,
        (label, version): (&str, &str),
        question: &Question<'_>,
        ask: &Ask,
        room: R,
    ) -> Result<Texts<R>, Error> {
        let element = if at_least(version, 3, 0) {
            escaped_name(label)
        } else if !label.contains('/') && label != "." && label != ".." {
            path_element(label)
        } else {
            let mut matchers = question.matchers.to_vec();
            matchers.push(Matcher::new(Op::NotEqual, label, ""));
            let matchers = &matchers;
            let question = Question { matchers, ..*question };
            return self.label_values_of_series(label, &question, ask, room).await;
        };
        let path = format!("/api/v1/label/{element}/values");
        self.texts(VALUES, &path, question, ask, room).await
    }

    /// As [`Client::label_values`], from the series themselves.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn label_values_of_series<R: Room>(
        &self,
        label: &str,
        question: &Question<'_>,
        ask: &Ask,
        room: R,
    ) -> Result<Texts<R>, Error> {
        self.texts_of_series(Some(label.to_owned()), question, ask, room).await
    }

    /// As [`Client::label_names`], from the series themselves.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn label_names_of_series<R: Room>(
        &self,
        question: &Question<'_>,
        ask: &Ask,
        room: R,
    ) -> Result<Texts<R>, Error> {
        self.texts_of_series(None, question, ask, room).await
    }

    async fn texts<R: Room>(
        &self,
        form: Form,
        path: &str,
        question: &Question<'_>,
        ask: &Ask,
        room: R,
    ) -> Result<Texts<R>, Error> {
        let sink = TextList {
            texts: Texts::new(room),
            expected: form.expected,
        };
        let asked = self.gather(form, path, &question.parameters(), ask, sink).await;
        Ok(asked?.0.texts)
    }

    async fn texts_of_series<R: Room>(
        &self,
        label: Option<String>,
        question: &Question<'_>,
        ask: &Ask,
        room: R,
    ) -> Result<Texts<R>, Error> {
        let sink = OfSeries {
            texts: Texts::new(room),
            label,
        };
        // The limit is on series there, and the texts beyond it are wanted.
        let all = Question { limit: 0, ..*question };
        let asked = self
            .gather(SERIES, "/api/v1/series", &all.parameters(), ask, sink)
            .await;
        Ok(asked?.0.texts)
    }
}

/// Names or values, sorted, each once, and the memory that they take.
#[derive(Debug)]
pub struct Texts<R> {
    /// They themselves.
    pub texts: BTreeSet<String>,
    /// Their memory, to be kept as long as they are.
    pub room: R,
    bytes: u64,
}

impl<R: Room> Texts<R> {
    fn new(room: R) -> Self {
        Self {
            texts: BTreeSet::new(),
            room,
            bytes: 0,
        }
    }

    fn add(&mut self, text: &str) -> Result<(), ErrorKind> {
        self.bytes += text.len() as u64;
        if !self.texts.contains(text) {
            if !self.room.room(text.len() + OVERHEAD) {
                return Err(ErrorKind::TooMuch { read: self.bytes });
            }
            self.texts.insert(text.to_owned());
        }
        Ok(())
    }
}

/// Takes a list of texts.
struct TextList<R> {
    texts: Texts<R>,
    expected: &'static str,
}

impl<R: Room> Sink for TextList<R> {
    fn room(&mut self, bytes: usize) -> bool {
        self.texts.room.room(bytes)
    }

    fn item(&mut self, item: Item<'_>) -> Result<ControlFlow<()>, ErrorKind> {
        let text: Text<'_> = item.read(self.expected)?;
        self.texts.add(&text.0)?;
        Ok(ControlFlow::Continue(()))
    }
}

/// Takes the values of one label of series, or the names of all.
struct OfSeries<R> {
    texts: Texts<R>,
    label: Option<String>,
}

impl<R: Room> Sink for OfSeries<R> {
    fn room(&mut self, bytes: usize) -> bool {
        self.texts.room.room(bytes)
    }

    fn item(&mut self, item: Item<'_>) -> Result<ControlFlow<()>, ErrorKind> {
        let PairList(pairs) = item.read(SERIES.expected)?;
        for (name, value) in &pairs {
            let text = match &self.label {
                Some(label) if label == name => value,
                Some(_) => continue,
                None => name,
            };
            if !text.is_empty() {
                self.texts.add(text)?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Hands over the labels of series until there are enough.
struct EachSeries<'a, F> {
    room: &'a mut (dyn FnMut(usize) -> bool + Send),
    take: F,
}

impl<F: FnMut(&Pairs<'_>) -> ControlFlow<()>> Sink for EachSeries<'_, F> {
    fn room(&mut self, bytes: usize) -> bool {
        (self.room)(bytes)
    }

    fn item(&mut self, item: Item<'_>) -> Result<ControlFlow<()>, ErrorKind> {
        let PairList(pairs) = item.read(SERIES.expected)?;
        Ok((self.take)(&pairs))
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The labels of a series, borrowed from the answer where they can be.
struct PairList<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de> Deserialize<'de> for PairList<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(PairVisitor)
    }
}

struct PairVisitor;

impl<'de> Visitor<'de> for PairVisitor {
    type Value = PairList<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PairList<'de>, A::Error> {
        let mut pairs = Vec::new();
        while let Some((name, value)) = map.next_entry::<Text<'de>, Text<'de>>()? {
            pairs.push((name.0, value.0));
        }
        Ok(PairList(pairs))
    }
}

/// For tests: what `read` reads of an answer that arrives in pieces.
#[cfg(test)]
pub(crate) mod testing {
    use super::{
        questions::{self, RulePart},
        reading::{Form, Parts, Reading},
        *,
    };

    fn read<K: Take<T>, T>(
        form: Form,
        part: fn(Item<'_>) -> Result<T, ErrorKind>,
        data: &str,
        taker: K,
    ) -> Result<(K, Vec<u8>), ErrorKind> {
        let answer = format!(r#"{{"status": "success", "data": {data}}}"#);
        let mut reading = Reading::new(form, Parts::new(taker, part));
        for piece in answer.as_bytes().chunks(7) {
            assert!(reading.push(piece)?.is_continue());
        }
        let (parts, around) = reading.finish()?;
        Ok((parts.taker, around))
    }

    pub(crate) fn rules<K: Take<RulePart>>(data: &str, taker: K) -> Result<K, ErrorKind> {
        Ok(read(questions::RULE_FORM, questions::rule_part, data, taker)?.0)
    }

    pub(crate) fn targets<K: Take<Target>>(data: &str, taker: K) -> Result<K, ErrorKind> {
        Ok(read(questions::TARGET_FORM, questions::target, data, taker)?.0)
    }

    pub(crate) fn metadata<K: Take<MetadataPart>>(data: &str, taker: K) -> Result<K, ErrorKind> {
        Ok(read(questions::METADATA_FORM, questions::metadata_part, data, taker)?.0)
    }

    pub(crate) fn exemplars<K: Take<ExemplarPart>>(data: &str, taker: K) -> Result<K, ErrorKind> {
        Ok(read(questions::EXEMPLAR_FORM, questions::exemplar_part, data, taker)?.0)
    }

    pub(crate) fn tsdb_status<K: Take<TsdbPart>>(data: &str, taker: K) -> Result<(K, Option<HeadStats>), ErrorKind> {
        let (taker, around) = read(questions::TSDB_FORM, questions::tsdb_part, data, taker)?;
        Ok((taker, questions::head_stats(&around)?))
    }
}
