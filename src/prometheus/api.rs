//! The part of Prometheus' JSON API that the StoreAPI needs.
//!
//! **Bounds.** Each request has a time limit ([`RequestOptions`]), which covers the wait in the queue and the whole
//! response, and takes memory from its caller ([`Reserve`]). Responses are parsed part by part while they arrive, so
//! that a response and what is made of it are never both in memory. Without memory a request fails; it never returns a
//! shorter answer. Long responses are parsed on other threads.
//!
//! **Tolerance.** Any status of 2xx is success; 204 and `null` are empty answers. Prometheus' warnings are not passed
//! on, because a querier would report a partial answer.

mod answers;
mod endpoints;
mod parameters;
mod parser;
mod request_options;

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
    endpoints::{ExemplarPart, MetadataPart, RulePart, Target, TsdbPart},
    parser::{Accept, Reserve},
    request_options::RequestOptions,
};
use self::{
    parameters::{escaped_name, path_element, selector, time},
    parser::Form,
};
use super::{
    Client,
    error::{Error, ErrorKind},
    json::{Item, Node, Sink},
    request_queue::Kind,
    version::at_least,
};
use crate::model::{LabelBytes, Matcher, matcher::Op};

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

/// Which series a request is about.
#[derive(Clone, Copy, Debug)]
pub struct SeriesFilter<'a> {
    /// Conditions that all hold for them; none at all asks about every series, where Prometheus allows that.
    pub matchers: &'a [Matcher],
    /// The beginning of the time in which they had samples, in ms since 1970.
    pub start_ms: i64,
    /// Its end, inclusive.
    pub end_ms: i64,
    /// The largest number of results, if positive. Older versions of Prometheus do not know it and give all.
    pub limit: i64,
}

impl SeriesFilter<'_> {
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
    /// Hands over the label sets of series, in Prometheus' order, each in one piece of memory, encoded as in a message,
    /// until `accept` has enough: the rest of the answer is not read then. Within the time of `options` and the memory of `reserve`, which
    /// is asked for what is held of the answer while it is read.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn each_series(
        &self,
        filter: &SeriesFilter<'_>,
        options: &RequestOptions,
        mut accept: impl FnMut(LabelBytes) -> ControlFlow<()>,
        reserve: &mut (dyn FnMut(usize) -> bool + Send),
    ) -> Result<(), Error> {
        let sink = EachSeries {
            reserve,
            accept: |pairs: &Pairs<'_>| {
                let pairs = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
                // A copy is as large as it has to be; what was built may be twice that.
                accept(LabelBytes::from_pairs(pairs).detached())
            },
        };
        self.each(SERIES, "/api/v1/series", &filter.parameters(), options, sink)
            .await
    }

    /// Whether there is any series. No more of the answer is read than shows it.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn any_series(
        &self,
        filter: &SeriesFilter<'_>,
        options: &RequestOptions,
        reserve: &mut (dyn FnMut(usize) -> bool + Send),
    ) -> Result<bool, Error> {
        let mut any = false;
        let sink = EachSeries {
            reserve,
            accept: |_: &Pairs<'_>| {
                any = true;
                ControlFlow::Break(())
            },
        };
        let parameters = SeriesFilter { limit: 1, ..*filter }.parameters();
        self.each(SERIES, "/api/v1/series", &parameters, options, sink).await?;
        Ok(any)
    }

    /// The names of the labels of series, sorted, with the `reservation` of the memory that they take.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn label_names<R: Reserve>(
        &self,
        filter: &SeriesFilter<'_>,
        options: &RequestOptions,
        reservation: R,
    ) -> Result<Texts<R>, Error> {
        self.texts(NAMES, "/api/v1/labels", filter, options, reservation).await
    }

    /// The values of one label of series, sorted, with the `reservation` of the memory that they take. `version` is Prometheus' own: names that
    /// are no classic ones are written as it understands them, and where no way of writing one is known, the series are
    /// looked through.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn label_values<R: Reserve>(
        &self,
        (label, version): (&str, &str),
        filter: &SeriesFilter<'_>,
        options: &RequestOptions,
        reservation: R,
    ) -> Result<Texts<R>, Error> {
        let element = if at_least(version, 3, 0) {
            escaped_name(label)
        } else if !label.contains('/') && label != "." && label != ".." {
            path_element(label)
        } else {
            let mut matchers = filter.matchers.to_vec();
            matchers.push(Matcher::new(Op::NotEqual, label, ""));
            let matchers = &matchers;
            let filter = SeriesFilter { matchers, ..*filter };
            return self.label_values_of_series(label, &filter, options, reservation).await;
        };
        let path = format!("/api/v1/label/{element}/values");
        self.texts(VALUES, &path, filter, options, reservation).await
    }

    /// As [`Client::label_values`], from the series themselves.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn label_values_of_series<R: Reserve>(
        &self,
        label: &str,
        filter: &SeriesFilter<'_>,
        options: &RequestOptions,
        reservation: R,
    ) -> Result<Texts<R>, Error> {
        self.texts_of_series(Some(label.to_owned()), filter, options, reservation)
            .await
    }

    /// As [`Client::label_names`], from the series themselves.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn label_names_of_series<R: Reserve>(
        &self,
        filter: &SeriesFilter<'_>,
        options: &RequestOptions,
        reservation: R,
    ) -> Result<Texts<R>, Error> {
        self.texts_of_series(None, filter, options, reservation).await
    }

    async fn texts<R: Reserve>(
        &self,
        form: Form,
        path: &str,
        filter: &SeriesFilter<'_>,
        options: &RequestOptions,
        reservation: R,
    ) -> Result<Texts<R>, Error> {
        let sink = TextList {
            texts: Texts::new(reservation),
            expected: form.expected,
        };
        let asked = self
            .collect_parts(form, path, &filter.parameters(), options, sink)
            .await;
        Ok(asked?.0.texts)
    }

    async fn texts_of_series<R: Reserve>(
        &self,
        label: Option<String>,
        filter: &SeriesFilter<'_>,
        options: &RequestOptions,
        reservation: R,
    ) -> Result<Texts<R>, Error> {
        let sink = OfSeries {
            texts: Texts::new(reservation),
            label,
        };
        // The limit is on series there, and the texts beyond it are wanted.
        let all = SeriesFilter { limit: 0, ..*filter };
        let asked = self
            .collect_parts(SERIES, "/api/v1/series", &all.parameters(), options, sink)
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
    pub reservation: R,
    bytes: u64,
}

impl<R: Reserve> Texts<R> {
    fn new(reservation: R) -> Self {
        Self {
            texts: BTreeSet::new(),
            reservation,
            bytes: 0,
        }
    }

    fn add(&mut self, text: &str) -> Result<(), ErrorKind> {
        self.bytes += text.len() as u64;
        if !self.texts.contains(text) {
            if !self.reservation.reserve(text.len() + OVERHEAD) {
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

impl<R: Reserve> Sink for TextList<R> {
    fn reserve(&mut self, bytes: usize) -> bool {
        self.texts.reservation.reserve(bytes)
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

impl<R: Reserve> Sink for OfSeries<R> {
    fn reserve(&mut self, bytes: usize) -> bool {
        self.texts.reservation.reserve(bytes)
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
    reserve: &'a mut (dyn FnMut(usize) -> bool + Send),
    accept: F,
}

impl<F: FnMut(&Pairs<'_>) -> ControlFlow<()>> Sink for EachSeries<'_, F> {
    fn reserve(&mut self, bytes: usize) -> bool {
        (self.reserve)(bytes)
    }

    fn item(&mut self, item: Item<'_>) -> Result<ControlFlow<()>, ErrorKind> {
        let PairList(pairs) = item.read(SERIES.expected)?;
        Ok((self.accept)(&pairs))
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
        endpoints::{self, RulePart},
        parser::{AnswerParser, Form, Parts},
        *,
    };

    fn read<K: Accept<T>, T>(
        form: Form,
        part: fn(Item<'_>) -> Result<T, ErrorKind>,
        data: &str,
        consumer: K,
    ) -> Result<(K, Vec<u8>), ErrorKind> {
        let answer = format!(r#"{{"status": "success", "data": {data}}}"#);
        let mut parser = AnswerParser::new(form, Parts::new(consumer, part));
        for piece in answer.as_bytes().chunks(7) {
            assert!(parser.push(piece)?.is_continue());
        }
        let (parts, around) = parser.finish()?;
        Ok((parts.consumer, around))
    }

    pub(crate) fn rules<K: Accept<RulePart>>(data: &str, consumer: K) -> Result<K, ErrorKind> {
        Ok(read(endpoints::RULE_FORM, endpoints::rule_part, data, consumer)?.0)
    }

    pub(crate) fn targets<K: Accept<Target>>(data: &str, consumer: K) -> Result<K, ErrorKind> {
        Ok(read(endpoints::TARGET_FORM, endpoints::target, data, consumer)?.0)
    }

    pub(crate) fn metadata<K: Accept<MetadataPart>>(data: &str, consumer: K) -> Result<K, ErrorKind> {
        Ok(read(endpoints::METADATA_FORM, endpoints::metadata_part, data, consumer)?.0)
    }

    pub(crate) fn exemplars<K: Accept<ExemplarPart>>(data: &str, consumer: K) -> Result<K, ErrorKind> {
        Ok(read(endpoints::EXEMPLAR_FORM, endpoints::exemplar_part, data, consumer)?.0)
    }

    pub(crate) fn tsdb_status<K: Accept<TsdbPart>>(
        data: &str,
        consumer: K,
    ) -> Result<(K, Option<HeadStats>), ErrorKind> {
        let (consumer, around) = read(endpoints::TSDB_FORM, endpoints::tsdb_part, data, consumer)?;
        Ok((consumer, endpoints::head_stats(&around)?))
    }
}
