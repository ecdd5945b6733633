//! Prometheus' JSON API, as far as the StoreAPI asks it.
//!
//! **Bounds.** Each call ends after [`DEADLINE`], its turn included: sixteen are asked at once. A list is read element by element while it arrives, so that an answer
//! and what is made of it are never both in memory; what is collected is bounded. Other answers are read whole, up to
//! [`BUDGET`]. A larger one is an error that says so, never a shorter answer.
//!
//! **Tolerance.** Any status of 2xx is good; 204 is an empty answer, as is `null`. Prometheus' warnings are not passed on:
//! a reader would take them for a partial answer.

mod answers;
mod elements;
mod parameters;

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::ControlFlow, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};

pub use self::answers::{
    ActiveTarget, Alert, DroppedTarget, Exemplar, HeadStats, LabelMap, Meta, Rule, RuleGroup, SeriesExemplars,
    Statistic, Targets, TsdbStatus,
};
pub(super) use self::parameters::label_in_path;
use self::{
    elements::Elements,
    parameters::{escaped_name, path_element, selector, time},
};
use super::{
    Client, answer,
    error::{Error, ErrorKind},
    remote_read::wire::LabelBytes,
    version::at_least,
};
use crate::model::{Matcher, matcher::Op};

/// How long a question may take, answer included.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// How much may be collected from one answer, in bytes. Sixteen questions at most are asked at once.
pub const BUDGET: usize = 64 << 20;

/// What each element costs beside its bytes.
const OVERHEAD: usize = 64;

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
    /// until `take` has enough: the rest of the answer is not read then.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn each_series(
        &self,
        question: &Question<'_>,
        mut take: impl FnMut(LabelBytes) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.read_series(question, |pairs| {
            let pairs = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            // A copy is as large as it has to be; what was built may be twice that.
            Ok(take(LabelBytes::from_pairs(pairs).detached()))
        })
        .await
    }

    /// Whether there is any series. No more of the answer is read than shows it.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn any_series(&self, question: &Question<'_>) -> Result<bool, Error> {
        let mut any = false;
        self.read_series(&Question { limit: 1, ..*question }, |_| {
            any = true;
            Ok(ControlFlow::Break(()))
        })
        .await?;
        Ok(any)
    }

    async fn read_series(
        &self,
        question: &Question<'_>,
        mut take: impl FnMut(&Pairs<'_>) -> Result<ControlFlow<()>, ErrorKind>,
    ) -> Result<(), Error> {
        let read = |element: &[u8]| {
            let labels: Result<PairList<'_>, _> = serde_json::from_slice(element);
            let labels = labels.map_err(|error| ErrorKind::from_json(&error, "label sets in data"))?;
            take(&labels.0)
        };
        self.each("/api/v1/series", &question.parameters(), &["data"], read)
            .await
    }

    /// The names of the labels of series, in Prometheus' order.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn label_names(&self, question: &Question<'_>) -> Result<Vec<String>, Error> {
        self.list("/api/v1/labels", &question.parameters(), &["data"], "names in data")
            .await
    }

    /// The values of one label of series, in Prometheus' order. `version` is Prometheus' own: names that are no classic
    /// ones are written as it understands them, and where no way of writing one is known, the series are looked through.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn label_values(
        &self,
        label: &str,
        version: &str,
        question: &Question<'_>,
    ) -> Result<Vec<String>, Error> {
        let element = if at_least(version, 3, 0) {
            escaped_name(label)
        } else if !label.contains('/') && label != "." && label != ".." {
            path_element(label)
        } else {
            let mut matchers = question.matchers.to_vec();
            matchers.push(Matcher::new(Op::NotEqual, label, ""));
            let matchers = &matchers;
            return self
                .label_values_of_series(label, &Question { matchers, ..*question })
                .await;
        };
        let path = format!("/api/v1/label/{element}/values");
        self.list(&path, &question.parameters(), &["data"], "values in data")
            .await
    }

    /// As [`Client::label_values`], sorted, from the series themselves.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn label_values_of_series(&self, label: &str, question: &Question<'_>) -> Result<Vec<String>, Error> {
        self.texts_of_series(question, |pairs, add| {
            let values = pairs.iter().filter(|(name, _)| name == label);
            values.map(|(_, value)| value).try_for_each(add)
        })
        .await
    }

    /// As [`Client::label_names`], sorted, from the series themselves.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn label_names_of_series(&self, question: &Question<'_>) -> Result<Vec<String>, Error> {
        self.texts_of_series(question, |pairs, add| {
            pairs.iter().map(|(name, _)| name).try_for_each(add)
        })
        .await
    }

    async fn texts_of_series(
        &self,
        question: &Question<'_>,
        pick: impl Fn(&Pairs<'_>, &mut dyn FnMut(&Cow<'_, str>) -> Result<(), ErrorKind>) -> Result<(), ErrorKind>,
    ) -> Result<Vec<String>, Error> {
        let mut texts = std::collections::BTreeSet::new();
        let mut budget = Budget::new(BUDGET);
        // The limit is on series there, and the texts beyond it are wanted.
        let all = Question { limit: 0, ..*question };
        self.read_series(&all, |pairs| {
            pick(pairs, &mut |text| {
                if !text.is_empty() && !texts.contains(&**text) {
                    budget.spend(text.len())?;
                    texts.insert(text.clone().into_owned());
                }
                Ok(())
            })?;
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        Ok(texts.into_iter().collect())
    }

    /// The groups of rules; of one `kind` only (`alert`, `record`), if it is given.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn rules(&self, kind: Option<&str>) -> Result<Vec<RuleGroup>, Error> {
        let parameters: Vec<_> = kind.map(|kind| ("type", kind.to_owned())).into_iter().collect();
        self.list(
            "/api/v1/rules",
            &parameters,
            &["data", "groups"],
            "groups of rules in data.groups",
        )
        .await
    }

    /// The targets; of one `state` only (`active`, `dropped`), if it is given.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn targets(&self, state: Option<&str>) -> Result<Targets, Error> {
        let parameters: Vec<_> = state.map(|state| ("state", state.to_owned())).into_iter().collect();
        let targets = self.whole("/api/v1/targets", &parameters, "targets in data").await?;
        Ok(targets.unwrap_or_default())
    }

    /// What targets say of their metrics; of one `metric`, if it is not empty. A negative `limit` is none, and 0 asks for
    /// nothing.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn metadata(&self, metric: &str, limit: i32) -> Result<BTreeMap<String, Vec<Meta>>, Error> {
        let mut parameters = Vec::new();
        if limit >= 0 {
            parameters.push(("limit", limit.to_string()));
        }
        if !metric.is_empty() {
            parameters.push(("metric", metric.to_owned()));
        }
        let expected = "lists by metric in data";
        let metadata: Option<BTreeMap<String, Option<Vec<Meta>>>> =
            self.whole("/api/v1/metadata", &parameters, expected).await?;
        let metadata = metadata.unwrap_or_default().into_iter();
        Ok(metadata
            .map(|(metric, metas)| (metric, metas.unwrap_or_default()))
            .collect())
    }

    /// The exemplars of the series that `query` selects, between two times in ms since 1970.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn exemplars(&self, query: &str, start_ms: i64, end_ms: i64) -> Result<Vec<SeriesExemplars>, Error> {
        let parameters = [
            ("end", time(end_ms)),
            ("query", query.to_owned()),
            ("start", time(start_ms)),
        ];
        self.list(
            "/api/v1/query_exemplars",
            &parameters,
            &["data"],
            "exemplars of series in data",
        )
        .await
    }

    /// What the storage holds, with at most `limit` entries in each list if it is positive; `None` if Prometheus does not
    /// tell.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn tsdb_status(&self, limit: i32) -> Result<Option<TsdbStatus>, Error> {
        let parameters: Vec<_> = (limit > 0).then(|| ("limit", limit.to_string())).into_iter().collect();
        self.whole("/api/v1/status/tsdb", &parameters, "numbers of the storage in data")
            .await
    }

    /// A list of things that serde can read; `expected` says in words what it should be.
    async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        list: &'static [&'static str],
        expected: &str,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        let mut budget = Budget::new(BUDGET);
        let read = |element: &[u8]| {
            budget.spend(element.len())?;
            found.push(serde_json::from_slice(element).map_err(|error| ErrorKind::from_json(&error, expected))?);
            Ok(ControlFlow::Continue(()))
        };
        self.each(path, parameters, list, read).await?;
        Ok(found)
    }

    /// Hands each element of a list to `take`.
    async fn each(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        list: &'static [&'static str],
        mut take: impl FnMut(&[u8]) -> Result<ControlFlow<()>, ErrorKind>,
    ) -> Result<(), Error> {
        let read = async |mut response: reqwest::Response| {
            if response.status() == http::StatusCode::NO_CONTENT {
                return Ok(());
            }
            let mut elements = Elements::new(list);
            while let Some(chunk) = response.chunk().await.map_err(ErrorKind::from_body)? {
                if elements.push(&chunk, &mut take)?.is_break() {
                    return Ok(());
                }
            }
            elements.finish()
        };
        self.query(path, parameters, DEADLINE, read).await
    }

    /// An answer that is read whole; `None` if it is empty.
    async fn whole<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        expected: &str,
    ) -> Result<Option<T>, Error> {
        #[derive(Deserialize)]
        struct Answer<T> {
            #[serde(default)]
            status: String,
            #[serde(default)]
            error: String,
            data: Option<T>,
        }
        let read = async |mut response: reqwest::Response| {
            if response.status() == http::StatusCode::NO_CONTENT {
                return Ok(None);
            }
            let body = answer::collect(&mut response, BUDGET).await?;
            let answer: Answer<T> =
                serde_json::from_slice(&body).map_err(|error| ErrorKind::from_json(&error, expected))?;
            match &*answer.status {
                "success" => Ok(answer.data),
                _ => Err(ErrorKind::failed(&answer.error)),
            }
        };
        self.query(path, parameters, DEADLINE, read).await
    }
}

/// What may still be collected.
#[derive(Debug)]
struct Budget {
    limit: usize,
    left: usize,
}

impl Budget {
    fn new(limit: usize) -> Self {
        Self { limit, left: limit }
    }

    fn spend(&mut self, bytes: usize) -> Result<(), ErrorKind> {
        let limit = self.limit;
        let left = self.left.checked_sub(bytes.saturating_add(OVERHEAD));
        self.left = left.ok_or(ErrorKind::TooMuch { limit })?;
        Ok(())
    }
}

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
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
        let mut pairs = Vec::new();
        while let Some((name, value)) = map.next_entry::<Text<'de>, Text<'de>>()? {
            pairs.push((name.0, value.0));
        }
        Ok(PairList(pairs))
    }
}
