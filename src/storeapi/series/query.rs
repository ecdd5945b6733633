//! From a request to the remote-read request for Prometheus. Pure.
//!
//! Prometheus answers the queries of one request one after another. A series that carries a label which will be set or
//! removed may be anywhere in the order, so it is queried separately, before the rest: with C = {c1..ck} the names of
//! those labels,
//!
//! ```text
//! query i   = ci != "" and matchers and cj = "" for all j < i      i = 1..k: disjoint, nearly always empty
//! the last  = matchers and cj = "" for all j                       streamed
//! ```
//!
//! `ci != ""` comes first, so that Prometheus finds the empty list of series at once. Only names that Prometheus may
//! store need a query ([`Query::split_by`]).
//!
//! Matchers are held once, however many queries there are: the request is encoded directly.

use std::ops::RangeInclusive;

use bytes::{BufMut as _, Bytes};
use tonic::Status;

use super::{relabel::Relabel, shard::Shard};
use crate::{
    model::{Matcher, matcher::Op, uvarint::put_uvarint},
    pb::{prometheus::label_matcher::Type, thanos::SeriesRequest},
    storeapi::{
        context::View,
        patterns::Patterns,
        selection::{Selection, select},
    },
};

/// With more labels to be set or removed than this there is one query only, and all of the answer is sorted in memory: the
/// request grows with the square of their number.
const APART_MAX: usize = 16;
/// The most bytes that a request may have when it is split: each of its queries holds all matchers.
const SPLIT_MAX: usize = 4 << 20;
/// The types of answers that are taken, best first: `STREAMED_XOR_CHUNKS`, `SAMPLES`, as the end of a `ReadRequest`.
const ACCEPTED: [u8; 4] = [0x12, 2, 1, 0];

/// A request for remote read, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The encoded `ReadRequest`.
    pub bytes: Bytes,
    /// How many queries it holds.
    pub queries: usize,
}

/// What one call asks for.
#[derive(Clone, Debug)]
pub struct Query {
    /// Start in ms, not before what is served.
    pub start_ms: i64,
    /// End in ms, inclusive.
    pub end_ms: i64,
    /// At least one; none on an external label.
    pub matchers: Vec<Matcher>,
    /// How labels change.
    pub relabel: Relabel,
    /// The shard that is asked for.
    pub shard: Option<Shard>,
    /// Labels only.
    pub skip_chunks: bool,
    /// At most so many series; 0 is no limit.
    pub limit: usize,
    /// Series in one message; 1 is messages of a series each.
    pub batch: usize,
}

impl Query {
    /// Reads a request; `None` if the answer is empty whatever Prometheus holds.
    ///
    /// # Errors
    /// `InvalidArgument`: matchers that cannot be used, none that is left for Prometheus.
    pub async fn new(mut request: SeriesRequest, view: &View, patterns: &Patterns) -> Result<Option<Self>, Status> {
        let matchers = std::mem::take(&mut request.matchers);
        let selection = select(patterns, matchers, &view.labels).await?;
        Self::of(selection, &request, view)
    }

    /// What is asked for by all but the matchers of `request`, of which `selection` is left.
    ///
    /// # Errors
    /// `InvalidArgument`: no matcher is left for Prometheus.
    pub fn of(selection: Selection, request: &SeriesRequest, view: &View) -> Result<Option<Self>, Status> {
        let matchers = match selection {
            Selection::Nothing => return Ok(None),
            Selection::Matching(matchers) => matchers,
        };
        if matchers.is_empty() {
            return Err(Status::invalid_argument(
                "no matchers specified (excluding external labels)",
            ));
        }
        Ok(Some(Self {
            start_ms: request.min_time.max(view.min_time_ms),
            end_ms: request.max_time,
            matchers,
            relabel: Relabel::new(&view.labels, &request.without_replica_labels),
            shard: Shard::new(request.shard_info.as_ref()),
            skip_chunks: request.skip_chunks,
            limit: usize::try_from(request.limit).unwrap_or(0),
            batch: usize::try_from(request.response_batch_size).unwrap_or(1).max(1),
        }))
    }

    /// Whether [`Query::split_by`] these names is of use: its answer can be streamed, and the request is not too long.
    pub fn can_split_by<N: AsRef<str>>(&self, names: &[N]) -> bool {
        let matchers = || {
            self.matchers
                .iter()
                .map(|matcher| matcher.name.len() + matcher.value.len())
        };
        names.len() <= APART_MAX && (names.is_empty() || (names.len() + 1) * matchers().sum::<usize>() <= SPLIT_MAX)
    }

    /// Queries of which the last comes nearly in order and the others hold what may belong anywhere: the series with one of
    /// these names, which are the ones of [`Relabel::touched`] that may be stored. Without any it is the plain request.
    /// It is for `range` (ms since 1970) of what is asked for.
    pub fn split_by<N: AsRef<str>>(&self, names: &[N], range: &RangeInclusive<i64>) -> Written {
        let mut matchers = Vec::new();
        for Matcher { op, name, value } in &self.matchers {
            put_matcher(&mut matchers, *op, name, value);
        }
        let (mut absent, mut out) = (Vec::new(), Vec::new());
        for name in names {
            let mut present = Vec::new();
            put_matcher(&mut present, Op::NotEqual, name.as_ref(), "");
            put_query(&mut out, range, &[&present, &matchers, &absent]);
            put_matcher(&mut absent, Op::Equal, name.as_ref(), "");
        }
        put_query(&mut out, range, &[&matchers, &absent]);
        out.put_slice(&ACCEPTED);
        Written {
            bytes: out.into(),
            queries: names.len() + 1,
        }
    }
}

/// Appends a query with these encoded matchers, as a field of `ReadRequest`.
fn put_query(out: &mut Vec<u8>, range: &RangeInclusive<i64>, matchers: &[&[u8]]) {
    let mut times = Vec::new();
    put_number(&mut times, 0x08, *range.start() as u64);
    put_number(&mut times, 0x10, *range.end() as u64);
    let length = times.len() + matchers.iter().map(|part| part.len()).sum::<usize>();
    put_head(out, 0x0a, length);
    out.reserve(length);
    out.put_slice(&times);
    for part in matchers {
        out.put_slice(part);
    }
}

/// Appends a matcher, as a field of `Query`.
fn put_matcher(out: &mut Vec<u8>, op: Op, name: &str, value: &str) {
    let op = match op {
        Op::Equal => Type::Eq,
        Op::NotEqual => Type::Neq,
        Op::Regex => Type::Re,
        Op::NotRegex => Type::Nre,
    };
    let mut start = Vec::new();
    put_number(&mut start, 0x08, op as u64);
    if !name.is_empty() {
        put_head(&mut start, 0x12, name.len());
        start.put_slice(name.as_bytes());
    }
    if !value.is_empty() {
        put_head(&mut start, 0x1a, value.len());
    }
    put_head(out, 0x1a, start.len() + value.len());
    out.put_slice(&start);
    out.put_slice(value.as_bytes());
}

/// Appends a number with its tag, unless it is 0.
fn put_number(out: &mut Vec<u8>, tag: u8, number: u64) {
    if number != 0 {
        out.put_u8(tag);
        put_uvarint(out, number);
    }
}

/// Appends the tag and length of a text or a message.
fn put_head(out: &mut Vec<u8>, tag: u8, length: usize) {
    out.put_u8(tag);
    put_uvarint(out, length as u64);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::{
        model::Labels,
        pb::{
            prometheus::{self, ReadRequest, read_request::ResponseType},
            thanos::{LabelMatcher, ShardInfo, label_matcher::Type},
        },
        storeapi::selection::read,
    };

    /// Without a look at the patterns.
    fn new(request: &SeriesRequest, view: &View) -> Result<Option<Query>, Status> {
        let matchers = request.matchers.iter().cloned().map(read);
        let selection = Selection::Matching(matchers.collect::<Result<_, _>>()?);
        Query::of(selection, request, view)
    }

    fn split<N: AsRef<str>>(query: &Query, names: &[N]) -> Written {
        query.split_by(names, &(query.start_ms..=query.end_ms))
    }

    fn plain(query: &Query) -> Written {
        split::<&str>(query, &[])
    }

    fn decoded(written: &Written) -> ReadRequest {
        let request = ReadRequest::decode(&written.bytes[..]).unwrap();
        assert_eq!(request.queries.len(), written.queries);
        request
    }

    fn view(external: &[(&str, &str)]) -> View {
        View {
            labels: Labels::from_pairs(external.iter().copied()),
            min_time_ms: i64::MIN,
            limit_ms: i64::MIN,
            version: "2.42.0".to_owned(),
            seen: true,
            reads_elsewhere: false,
        }
    }

    fn request() -> SeriesRequest {
        let matcher = |op: Type, name: &str, value: &str| LabelMatcher {
            r#type: op.into(),
            name: name.into(),
            value: value.into(),
        };
        SeriesRequest {
            min_time: 1_700_000_000_000,
            max_time: 1_700_000_300_000,
            matchers: vec![matcher(Type::Eq, "__name__", "up"), matcher(Type::Re, "job", "n.*")],
            ..Default::default()
        }
    }

    fn texts(request: &ReadRequest) -> Vec<String> {
        let ops = ["=", "!=", "=~", "!~"];
        let matcher = |matcher: &prometheus::LabelMatcher| {
            format!("{}{}{}", matcher.name, ops[matcher.r#type as usize], matcher.value)
        };
        let query = |query: &prometheus::Query| query.matchers.iter().map(matcher).collect::<Vec<_>>().join(",");
        request.queries.iter().map(query).collect()
    }

    /// The vector of the contract, section 2.2.
    #[test]
    fn a_plain_request_is_that_of_thanos() {
        let query = new(&request(), &view(&[])).unwrap().unwrap();
        let wanted =
            "0a2c0880d095ffbc3110e0f7a7ffbc311a0e12085f5f6e616d655f5f1a0275701a0c080212036a6f621a036e2e2a12020100";
        let found: String = plain(&query).bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, wanted);
        assert_eq!(split(&query, query.relabel.touched()), plain(&query));
    }

    #[test]
    fn what_may_belong_anywhere_is_asked_for_apart_and_first() {
        let mut request = request();
        request.without_replica_labels = vec!["replica".to_owned(), "job2".to_owned()];
        let query = new(&request, &view(&[("cluster", "eu"), ("replica", "a")]))
            .unwrap()
            .unwrap();
        assert_eq!(
            texts(&decoded(&split(&query, query.relabel.touched()))),
            [
                "cluster!=,__name__=up,job=~n.*",
                "job2!=,__name__=up,job=~n.*,cluster=",
                "replica!=,__name__=up,job=~n.*,cluster=,job2=",
                "__name__=up,job=~n.*,cluster=,job2=,replica=",
            ]
        );
        assert_eq!(
            texts(&decoded(&split(&query, &["replica"]))),
            ["replica!=,__name__=up,job=~n.*", "__name__=up,job=~n.*,replica="]
        );
    }

    #[test]
    fn many_replica_labels_are_not_asked_for_one_by_one_and_long_matchers_not_again_and_again() {
        let mut request = request();
        request.without_replica_labels = (0..16).map(|at| format!("r{at}")).collect();
        let can = |query: &Query| query.can_split_by(query.relabel.touched());
        assert!(can(&new(&request, &view(&[])).unwrap().unwrap()));
        let one_more = new(&request, &view(&[("cluster", "eu")])).unwrap().unwrap();
        assert!(!can(&one_more) && one_more.can_split_by(&["cluster"]));
        request.matchers[1].value = "x".repeat(SPLIT_MAX / 2);
        let long = new(&request, &view(&[])).unwrap().unwrap();
        assert!(!long.can_split_by(&["r1"]) && long.can_split_by::<&str>(&[]));
    }

    #[test]
    fn old_times_are_cut_and_a_range_that_ends_before_it_starts_passes() {
        let mut view = view(&[]);
        view.min_time_ms = 1_700_000_200_000;
        let query = new(&request(), &view).unwrap().unwrap();
        assert_eq!((query.start_ms, query.end_ms), (1_700_000_200_000, 1_700_000_300_000));
        view.min_time_ms = i64::MAX;
        assert_eq!(new(&request(), &view).unwrap().unwrap().start_ms, i64::MAX);
    }

    #[test]
    fn a_selector_of_external_labels_alone_is_refused_and_numbers_below_zero_are_none() {
        let mut request = request();
        request.response_batch_size = -5;
        request.limit = -1;
        let query = new(&request, &view(&[])).unwrap().unwrap();
        assert_eq!((query.batch, query.limit), (1, 0));
        let none = Selection::Matching(Vec::new());
        let error = Query::of(none, &request, &view(&[])).unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        assert_eq!(error.message(), "no matchers specified (excluding external labels)");
        assert!(Query::of(Selection::Nothing, &request, &view(&[])).unwrap().is_none());
    }

    proptest! {
        /// Against the generated code.
        #[test]
        fn requests_are_written_as_the_generated_code_writes_them(
            start in any::<i64>(), end in any::<i64>(),
            matchers in proptest::collection::vec((0..4_i32, "\\PC{0,3}", "\\PC{0,200}"), 1..4),
            names in proptest::collection::vec("[a-c]{1,3}", 0..3),
        ) {
            let request = SeriesRequest {
                min_time: start,
                max_time: end,
                matchers: matchers.iter().map(|(op, name, value)| LabelMatcher {
                    r#type: *op, name: name.clone(), value: value.clone(),
                }).collect(),
                shard_info: Some(ShardInfo::default()),
                ..SeriesRequest::default()
            };
            let query = new(&request, &view(&[])).unwrap().unwrap();
            let matcher = |op: i32, name: &str, value: &str| prometheus::LabelMatcher {
                r#type: op, name: name.to_owned(), value: value.to_owned(),
            };
            let own = || matchers.iter().map(|(op, name, value)| matcher(*op, name, value));
            let without = |count: usize| names[..count].iter().map(|name| matcher(0, name, ""));
            let apart = (0..names.len()).map(|at| {
                [matcher(1, &names[at], "")].into_iter().chain(own()).chain(without(at)).collect()
            });
            let rest = own().chain(without(names.len())).collect();
            let queries = apart.chain([rest]).map(|matchers| prometheus::Query {
                start_timestamp_ms: start, end_timestamp_ms: end, matchers, hints: None,
            });
            let wanted = ReadRequest {
                queries: queries.collect(),
                accepted_response_types: vec![ResponseType::StreamedXorChunks.into(), ResponseType::Samples.into()],
            };
            prop_assert_eq!(split(&query, &names).bytes, wanted.encode_to_vec());
        }
    }
}
