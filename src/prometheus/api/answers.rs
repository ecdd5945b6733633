//! The parts of Prometheus' responses that are passed on. Unknown keys are ignored; a list or label set that is missing
//! or `null` is empty.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, SeqAccess, Visitor},
};

use crate::model::yaml_text::or_default;

/// Labels or annotations by name.
pub type LabelMap = BTreeMap<String, String>;

/// A group of rules.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RuleGroup {
    /// Its name, unique within its file.
    pub name: String,
    /// The file that it comes from.
    pub file: String,
    /// Its rules were handed over before, in the order in which they are evaluated.
    #[serde(rename = "rules")]
    _rules: ParsedSeparately,
    /// Time between two evaluations, in seconds.
    pub interval: f64,
    /// How long the last evaluation took, in seconds.
    pub evaluation_time: f64,
    /// When it was last evaluated, if ever.
    #[serde(deserialize_with = "time")]
    pub last_evaluation: Option<Timestamp>,
    /// How many series or alerts a rule may give; 0 is no limit.
    pub limit: i64,
}

/// A rule of either kind; what the other kind has is empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    /// `recording` or `alerting`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The name of the series or alert that it gives.
    pub name: String,
    /// Its expression.
    pub query: String,
    /// Labels that it adds.
    #[serde(deserialize_with = "or_default")]
    pub labels: LabelMap,
    /// `ok`, `err` or `unknown`.
    pub health: String,
    /// Why the last evaluation failed, if it did.
    pub last_error: String,
    /// How long the last evaluation took, in seconds.
    pub evaluation_time: f64,
    /// When it was last evaluated, if ever.
    #[serde(deserialize_with = "time")]
    pub last_evaluation: Option<Timestamp>,
    /// `inactive`, `pending`, `firing` or `unknown`.
    pub state: String,
    /// For how long the expression must hold before the alert fires, in seconds.
    pub duration: f64,
    /// For how long the alert fires after the expression has held, in seconds.
    pub keep_firing_for: f64,
    /// The annotations of its alerts, not expanded.
    #[serde(deserialize_with = "or_default")]
    pub annotations: LabelMap,
    /// Its alerts that are pending or firing were handed over before.
    #[serde(rename = "alerts")]
    _alerts: ParsedSeparately,
}

/// An alert that is pending or firing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Alert {
    /// Its labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: LabelMap,
    /// Its annotations.
    #[serde(deserialize_with = "or_default")]
    pub annotations: LabelMap,
    /// `inactive`, `pending`, `firing` or `unknown`.
    pub state: String,
    /// Since when the expression holds.
    #[serde(deserialize_with = "time")]
    pub active_at: Option<Timestamp>,
    /// The value of the expression.
    pub value: String,
}

/// A target that is scraped.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ActiveTarget {
    /// Its labels before relabelling.
    #[serde(deserialize_with = "or_default")]
    pub discovered_labels: LabelMap,
    /// Its labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: LabelMap,
    /// The job of the configuration that it belongs to.
    pub scrape_pool: String,
    /// The address as Prometheus sees it.
    pub scrape_url: String,
    /// The address as others may see it.
    pub global_url: String,
    /// Why the last scrape failed, if it did.
    pub last_error: String,
    /// When it was last scraped, if ever.
    #[serde(deserialize_with = "time")]
    pub last_scrape: Option<Timestamp>,
    /// How long that took, in seconds.
    pub last_scrape_duration: f64,
    /// `up`, `down` or `unknown`.
    pub health: String,
}

/// A target that is not scraped.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DroppedTarget {
    /// Its labels before relabelling.
    #[serde(deserialize_with = "or_default")]
    pub discovered_labels: LabelMap,
}

/// Metadata of a metric, from a target.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// Its type, e.g. `counter`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it means.
    pub help: String,
    /// Its unit.
    pub unit: String,
}

/// The exemplars of one series.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SeriesExemplars {
    /// The labels of the series.
    #[serde(deserialize_with = "or_default")]
    pub series_labels: LabelMap,
    /// Its exemplars, by time, were handed over before.
    #[serde(rename = "exemplars")]
    _exemplars: ParsedSeparately,
}

/// An example behind a sample.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Exemplar {
    /// Its own labels, e.g. the id of a trace.
    #[serde(deserialize_with = "or_default")]
    pub labels: LabelMap,
    /// Its value.
    #[serde(deserialize_with = "quoted")]
    pub value: f64,
    /// Its time in ms since 1970.
    #[serde(rename = "timestamp", deserialize_with = "milliseconds")]
    pub time_ms: i64,
}

/// Numbers of the part of the storage that is in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeadStats {
    /// How many series.
    pub num_series: u64,
    /// How many different labels with values.
    pub num_label_pairs: i64,
    /// How many chunks.
    pub chunk_count: i64,
    /// The oldest time in ms; the largest number if there is none.
    pub min_time: i64,
    /// The newest time in ms; the smallest number if there is none.
    pub max_time: i64,
}

/// A number that something has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Statistic {
    /// What has it.
    pub name: String,
    /// The number.
    pub value: u64,
}

/// A list whose elements were handed over before: there are none left. One whose key was written in a way that hid it
/// from the scanner is an error, so that nothing is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ParsedSeparately;

impl<'de> Deserialize<'de> for ParsedSeparately {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct NoElements;
        impl<'de> Visitor<'de> for NoElements {
            type Value = ParsedSeparately;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E: de::Error>(self) -> Result<ParsedSeparately, E> {
                Ok(ParsedSeparately)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ParsedSeparately, A::Error> {
                match list.next_element::<IgnoredAny>()? {
                    None => Ok(ParsedSeparately),
                    Some(_) => Err(de::Error::custom("its elements were not seen")),
                }
            }
        }
        from.deserialize_any(NoElements)
    }
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let text: Option<String> = Option::deserialize(from)?;
    text.map(|text| text.parse().map_err(|_| de::Error::custom("no time")))
        .transpose()
}

/// A number written as text, as it must be for those that JSON has no other way to write.
fn quoted<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| de::Error::custom("no number"))
}

/// Seconds with up to three decimals.
fn milliseconds<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let seconds = f64::deserialize(from)?;
    Ok((seconds * 1000.0).round() as i64)
}
