//! What is counted in the request of each method: every field that may be repeated, wherever it is.
//!
//! A message field that occurs twice counts as one with the fields of both, as a decoder reads it.

use crate::model::fields::{Holds, Known};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Matchers,
    ReplicaLabels,
    ShardLabels,
    PatternBytes,
    Aggregates,
    GroupingLabels,
    ProjectionLabels,
    MatcherStrings,
    RuleNames,
    RuleGroups,
    Files,
    /// A message that is there once: its fields count.
    Message,
}

/// How many kinds there are.
pub(super) const KINDS: usize = Kind::Message as usize + 1;

impl Kind {
    pub(super) const ALL: [Self; KINDS] = [
        Self::Matchers,
        Self::ReplicaLabels,
        Self::ShardLabels,
        Self::PatternBytes,
        Self::Aggregates,
        Self::GroupingLabels,
        Self::ProjectionLabels,
        Self::MatcherStrings,
        Self::RuleNames,
        Self::RuleGroups,
        Self::Files,
        Self::Message,
    ];

    /// How many there may be in one request.
    pub(super) fn most(self) -> usize {
        match self {
            Self::ReplicaLabels => 256,
            Self::PatternBytes => 1 << 20,
            Self::Aggregates => 10_000,
            Self::Message => usize::MAX,
            _ => 1000,
        }
    }

    /// Its name in an error.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Matchers => "matchers",
            Self::ReplicaLabels => "replica labels",
            Self::ShardLabels => "labels to shard by",
            Self::PatternBytes => "bytes of patterns and values in its matchers",
            Self::Aggregates => "aggregates",
            Self::GroupingLabels => "labels to group by",
            Self::ProjectionLabels => "labels to project to",
            Self::MatcherStrings => "selectors",
            Self::RuleNames => "names of rules",
            Self::RuleGroups => "names of groups of rules",
            Self::Files => "files of rules",
            Self::Message => "messages",
        }
    }

    /// What a field with so many values and bytes counts.
    pub(super) fn weight(self, values: usize, bytes: usize) -> usize {
        match self {
            Self::PatternBytes => bytes,
            _ => values,
        }
    }
}

type Table = &'static [Known<Kind>];

const fn text(number: u64, what: Kind) -> Known<Kind> {
    let holds = Holds::Bytes;
    Known { number, what, holds }
}

const fn message(number: u64, what: Kind, known: Table) -> Known<Kind> {
    let holds = Holds::Message(known);
    Known { number, what, holds }
}

const fn matchers(number: u64) -> Known<Kind> {
    message(number, Kind::Matchers, MATCHER)
}

static MATCHER: Table = &[text(3, Kind::PatternBytes)];
static SERIES: Table = &[
    matchers(3),
    Known {
        number: 5,
        what: Kind::Aggregates,
        holds: Holds::Varints,
    },
    message(12, Kind::Message, QUERY_HINTS),
    message(13, Kind::Message, &[text(4, Kind::ShardLabels)]),
    text(14, Kind::ReplicaLabels),
];
static QUERY_HINTS: Table = &[
    message(4, Kind::Message, &[text(3, Kind::GroupingLabels)]),
    text(6, Kind::ProjectionLabels),
];
static LABEL_NAMES: Table = &[matchers(6), text(7, Kind::ReplicaLabels)];
static LABEL_VALUES: Table = &[matchers(7), text(8, Kind::ReplicaLabels)];
static RULES: Table = &[
    text(3, Kind::MatcherStrings),
    text(4, Kind::RuleNames),
    text(5, Kind::RuleGroups),
    text(6, Kind::Files),
];
static TSDB_STATISTICS: Table = &[matchers(4)];

/// What is counted for calls of this path. The requests of all other methods hold nothing more than once.
pub(super) fn request(path: &str) -> Table {
    match path {
        "/thanos.Store/Series" => SERIES,
        "/thanos.Store/LabelNames" => LABEL_NAMES,
        "/thanos.Store/LabelValues" => LABEL_VALUES,
        "/thanos.Rules/Rules" => RULES,
        "/thanos.Status/TSDBStatistics" => TSDB_STATISTICS,
        _ => &[],
    }
}
