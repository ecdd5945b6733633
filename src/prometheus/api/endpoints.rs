//! The endpoints besides labels: rules, targets, metadata, exemplars, TSDB statistics.
//!
//! Each response is handed over part by part while it arrives. Inner parts come before the part that holds them: the
//! alerts of a rule, then the rule; the rules of a group, then the group.

use serde::Deserialize;

use super::{
    answers::{
        ActiveTarget, Alert, DroppedTarget, Exemplar, HeadStats, Meta, ParsedSeparately, Rule, RuleGroup,
        SeriesExemplars, Statistic,
    },
    parameters::time,
    parser::{Accept, Form, Parts},
    request_options::RequestOptions,
};
use crate::prometheus::{
    Client,
    error::{Error, ErrorKind},
    json::{Item, Node},
    request_queue::Kind,
};

/// A part of the rules.
#[derive(Clone, Debug, PartialEq)]
pub enum RulePart {
    /// An alert of the rule that comes.
    Alert(Alert),
    /// A rule of the group that comes.
    Rule(Box<Rule>),
    /// A group.
    Group(RuleGroup),
}

/// A part of the targets.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// One that is scraped.
    Active(Box<ActiveTarget>),
    /// One that was found but is not scraped.
    Dropped(DroppedTarget),
}

/// A part of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataPart {
    /// Metadata of the metric that follows, from a target.
    Meta(Meta),
    /// The name of a metric.
    Metric(String),
}

/// A part of the exemplars.
#[derive(Clone, Debug, PartialEq)]
pub enum ExemplarPart {
    /// One of the series that comes.
    Exemplar(Exemplar),
    /// A series.
    Series(SeriesExemplars),
}

/// A part of the numbers of the storage.
#[derive(Clone, Debug, PartialEq)]
pub enum TsdbPart {
    /// A metric, with its series.
    SeriesByMetric(Statistic),
    /// A label, with how many values it has.
    ValuesByLabel(Statistic),
    /// A label, with the bytes of its values.
    BytesByLabel(Statistic),
    /// A label with a value, with its series.
    SeriesByPair(Statistic),
}

const GROUPS: u8 = 0;
const RULES: u8 = 1;
const ALERTS: u8 = 2;

pub(super) const RULE_FORM: Form = Form {
    kind: Kind::Others,
    root: &Node::Keys(&[("data", GROUP_LIST)]),
    expected: "groups of rules in data.groups",
};
const GROUP_LIST: Node = Node::Keys(&[(
    "groups",
    Node::List(
        GROUPS,
        Some(&Node::Keys(&[("rules", Node::List(RULES, Some(&ALERT_LIST)))])),
    ),
)]);
const ALERT_LIST: Node = Node::Keys(&[("alerts", Node::List(ALERTS, None))]);

pub(super) fn rule_part(item: Item<'_>) -> Result<RulePart, ErrorKind> {
    let expected = RULE_FORM.expected;
    Ok(match item.id {
        ALERTS => RulePart::Alert(item.read(expected)?),
        RULES => RulePart::Rule(item.read(expected)?),
        _ => RulePart::Group(item.read(expected)?),
    })
}

const ACTIVE: u8 = 0;
const DROPPED: u8 = 1;

pub(super) const TARGET_FORM: Form = Form {
    kind: Kind::Others,
    root: &Node::Keys(&[(
        "data",
        Node::Keys(&[
            ("activeTargets", Node::List(ACTIVE, None)),
            ("droppedTargets", Node::List(DROPPED, None)),
        ]),
    )]),
    expected: "targets in data",
};

pub(super) fn target(item: Item<'_>) -> Result<Target, ErrorKind> {
    let expected = TARGET_FORM.expected;
    Ok(match item.id {
        ACTIVE => Target::Active(item.read(expected)?),
        _ => Target::Dropped(item.read(expected)?),
    })
}

const METRICS: u8 = 0;
const METAS: u8 = 1;

pub(super) const METADATA_FORM: Form = Form {
    kind: Kind::Others,
    root: &Node::Keys(&[("data", Node::Members(METRICS, Some(&Node::List(METAS, None))))]),
    expected: "lists by metric in data",
};

pub(super) fn metadata_part(item: Item<'_>) -> Result<MetadataPart, ErrorKind> {
    let expected = METADATA_FORM.expected;
    if item.id == METAS {
        return Ok(MetadataPart::Meta(item.read(expected)?));
    }
    item.read::<ParsedSeparately>(expected)?;
    Ok(MetadataPart::Metric(item.key(expected)?))
}

const SERIES: u8 = 0;
const EXEMPLARS: u8 = 1;

pub(super) const EXEMPLAR_FORM: Form = Form {
    kind: Kind::Others,
    root: &Node::Keys(&[(
        "data",
        Node::List(SERIES, Some(&Node::Keys(&[("exemplars", Node::List(EXEMPLARS, None))]))),
    )]),
    expected: "exemplars of series in data",
};

pub(super) fn exemplar_part(item: Item<'_>) -> Result<ExemplarPart, ErrorKind> {
    let expected = EXEMPLAR_FORM.expected;
    Ok(match item.id {
        EXEMPLARS => ExemplarPart::Exemplar(item.read(expected)?),
        _ => ExemplarPart::Series(item.read(expected)?),
    })
}

pub(super) const TSDB_FORM: Form = Form {
    kind: Kind::Others,
    root: &Node::Keys(&[(
        "data",
        Node::Keys(&[
            ("seriesCountByMetricName", Node::List(0, None)),
            ("labelValueCountByLabelName", Node::List(1, None)),
            ("memoryInBytesByLabelName", Node::List(2, None)),
            ("seriesCountByLabelValuePair", Node::List(3, None)),
        ]),
    )]),
    expected: "numbers of the storage in data",
};

pub(super) fn tsdb_part(item: Item<'_>) -> Result<TsdbPart, ErrorKind> {
    let statistic = item.read(TSDB_FORM.expected)?;
    Ok(match item.id {
        0 => TsdbPart::SeriesByMetric(statistic),
        1 => TsdbPart::ValuesByLabel(statistic),
        2 => TsdbPart::BytesByLabel(statistic),
        _ => TsdbPart::SeriesByPair(statistic),
    })
}

/// The numbers of the head, in what is left of the answer without its lists; `None` if there is no `data`.
pub(super) fn head_stats(around: &[u8]) -> Result<Option<HeadStats>, ErrorKind> {
    #[derive(Deserialize)]
    struct Answer {
        data: Option<Data>,
    }
    #[derive(Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    #[derive(Default)]
    struct Data {
        head_stats: HeadStats,
    }
    let answer: Answer =
        serde_json::from_slice(around).map_err(|error| ErrorKind::from_json(&error, TSDB_FORM.expected))?;
    Ok(answer.data.map(|data| data.head_stats))
}

impl Client {
    /// Hands the groups of rules to `consumer`; of one `kind` only (`alert`, `record`), if it is given.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn rules<K: Accept<RulePart>>(
        &self,
        kind: Option<&str>,
        options: &RequestOptions,
        consumer: K,
    ) -> Result<K, Error> {
        let parameters: Vec<_> = kind.map(|kind| ("type", kind.to_owned())).into_iter().collect();
        let parts = Parts::new(consumer, rule_part);
        let asked = self.collect_parts(RULE_FORM, "/api/v1/rules", &parameters, options, parts);
        Ok(asked.await?.0.consumer)
    }

    /// Hands the targets to `consumer`; of one `state` only (`active`, `dropped`), if it is given.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn targets<K: Accept<Target>>(
        &self,
        state: Option<&str>,
        options: &RequestOptions,
        consumer: K,
    ) -> Result<K, Error> {
        let parameters: Vec<_> = state.map(|state| ("state", state.to_owned())).into_iter().collect();
        let parts = Parts::new(consumer, target);
        let asked = self.collect_parts(TARGET_FORM, "/api/v1/targets", &parameters, options, parts);
        Ok(asked.await?.0.consumer)
    }

    /// Hands over the metadata of metrics; of one `metric`, if it is not empty. A negative `limit` is none, and
    /// 0 asks for nothing.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn metadata<K: Accept<MetadataPart>>(
        &self,
        metric: &str,
        limit: i32,
        options: &RequestOptions,
        consumer: K,
    ) -> Result<K, Error> {
        let mut parameters = Vec::new();
        if limit >= 0 {
            parameters.push(("limit", limit.to_string()));
        }
        if !metric.is_empty() {
            parameters.push(("metric", metric.to_owned()));
        }
        let parts = Parts::new(consumer, metadata_part);
        let asked = self.collect_parts(METADATA_FORM, "/api/v1/metadata", &parameters, options, parts);
        Ok(asked.await?.0.consumer)
    }

    /// Hands over the exemplars of the series that `query` selects, between two times in ms since 1970.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn exemplars<K: Accept<ExemplarPart>>(
        &self,
        query: &str,
        (start_ms, end_ms): (i64, i64),
        options: &RequestOptions,
        consumer: K,
    ) -> Result<K, Error> {
        let parameters = [
            ("end", time(end_ms)),
            ("query", query.to_owned()),
            ("start", time(start_ms)),
        ];
        let parts = Parts::new(consumer, exemplar_part);
        let asked = self.collect_parts(EXEMPLAR_FORM, "/api/v1/query_exemplars", &parameters, options, parts);
        Ok(asked.await?.0.consumer)
    }

    /// What the storage holds, with at most `limit` entries in each list if it is positive; no numbers of its head if
    /// Prometheus does not tell.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn tsdb_status<K: Accept<TsdbPart>>(
        &self,
        limit: i32,
        options: &RequestOptions,
        consumer: K,
    ) -> Result<(K, Option<HeadStats>), Error> {
        let parameters: Vec<_> = (limit > 0).then(|| ("limit", limit.to_string())).into_iter().collect();
        let path = "/api/v1/status/tsdb";
        let parts = Parts::new(consumer, tsdb_part);
        let (parts, around) = self.collect_parts(TSDB_FORM, path, &parameters, options, parts).await?;
        let head = around.as_deref().map(head_stats).transpose();
        let head = head.map_err(|kind| Error {
            method: "GET",
            url: self.shown(path),
            kind,
        })?;
        Ok((parts.consumer, head.flatten()))
    }
}
