//! From a request to the question for Prometheus. Pure.
//!
//! `Prometheus` answers the queries of one request one after another. A series that carries a label which will be set or
//! removed may stand anywhere in the order, so it is asked for apart, before the rest: with C = {c1..ck} the names of those
//! labels,
//!
//! ```text
//! query i   = ci != "" and matchers and cj = "" for all j < i      i = 1..k: disjoint, nearly always empty
//! the last  = matchers and cj = "" for all j                       streamed
//! ```
//!
//! `ci != ""` comes first, so that Prometheus finds the empty list of series at once.

use tonic::Status;

use super::{relabel::Relabel, shard::Shard};
use crate::{
    model::{Matcher, matcher::Op},
    pb::{
        prometheus::{self, ReadRequest, read_request::ResponseType},
        thanos::SeriesRequest,
    },
    storeapi::{
        View,
        selection::{Selection, select},
    },
};

/// With more labels to be set or removed than this there is one query only, and all of the answer is sorted in memory: the
/// request grows with the square of their number.
const APART_MAX: usize = 16;

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
    pub fn new(request: &SeriesRequest, view: &View) -> Result<Option<Self>, Status> {
        let matchers = match select(&request.matchers, &view.labels)? {
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

    /// Whether [`Query::split`] is of use: its answer can be streamed.
    pub fn can_split(names: &[String]) -> bool {
        names.len() <= APART_MAX
    }

    /// One query for all series, which come in the order of their stored labels.
    pub fn plain(&self) -> ReadRequest {
        self.request([self.matchers.clone()])
    }

    /// Queries of which the last comes nearly in order and the others hold what may belong anywhere.
    pub fn split_by(&self, names: &[String]) -> ReadRequest {
        let apart = |at: usize| {
            let first = Matcher::new(Op::NotEqual, &names[at], "");
            let mut matchers = vec![first];
            matchers.extend(self.matchers.iter().cloned());
            matchers.extend(names[..at].iter().map(without));
            matchers
        };
        let rest = self.matchers.iter().cloned().chain(names.iter().map(without)).collect();
        self.request((0..names.len()).map(apart).chain([rest]))
    }

    fn request(&self, queries: impl IntoIterator<Item = Vec<Matcher>>) -> ReadRequest {
        let query = |matchers: Vec<Matcher>| prometheus::Query {
            start_timestamp_ms: self.start_ms,
            end_timestamp_ms: self.end_ms,
            matchers: matchers.iter().map(write).collect(),
            hints: None,
        };
        ReadRequest {
            queries: queries.into_iter().map(query).collect(),
            accepted_response_types: vec![ResponseType::StreamedXorChunks.into(), ResponseType::Samples.into()],
        }
    }
}

fn without(name: &String) -> Matcher {
    Matcher::new(Op::Equal, name, "")
}

fn write(matcher: &Matcher) -> prometheus::LabelMatcher {
    use prometheus::label_matcher::Type;
    let op = match matcher.op {
        Op::Equal => Type::Eq,
        Op::NotEqual => Type::Neq,
        Op::Regex => Type::Re,
        Op::NotRegex => Type::Nre,
    };
    prometheus::LabelMatcher {
        r#type: op.into(),
        name: matcher.name.clone(),
        value: matcher.value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::{
        model::Labels,
        pb::thanos::{LabelMatcher, label_matcher::Type},
    };

    fn view(external: &[(&str, &str)]) -> View {
        View {
            labels: Labels::from_pairs(external.iter().copied()),
            min_time_ms: i64::MIN,
            version: "2.42.0".to_owned(),
            seen: true,
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
    fn a_plain_question_is_that_of_thanos() {
        let query = Query::new(&request(), &view(&[])).unwrap().unwrap();
        let wanted =
            "0a2c0880d095ffbc3110e0f7a7ffbc311a0e12085f5f6e616d655f5f1a0275701a0c080212036a6f621a036e2e2a12020100";
        let found: String = query
            .plain()
            .encode_to_vec()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(found, wanted);
        assert_eq!(query.split_by(query.relabel.touched()), query.plain());
    }

    #[test]
    fn what_may_belong_anywhere_is_asked_for_apart_and_first() {
        let mut request = request();
        request.without_replica_labels = vec!["replica".to_owned(), "job2".to_owned()];
        let query = Query::new(&request, &view(&[("cluster", "eu"), ("replica", "a")]))
            .unwrap()
            .unwrap();
        assert_eq!(
            texts(&query.split_by(query.relabel.touched())),
            [
                "cluster!=,__name__=up,job=~n.*",
                "job2!=,__name__=up,job=~n.*,cluster=",
                "replica!=,__name__=up,job=~n.*,cluster=,job2=",
                "__name__=up,job=~n.*,cluster=,job2=,replica=",
            ]
        );
    }

    #[test]
    fn many_replica_labels_are_not_asked_for_one_by_one() {
        let mut request = request();
        request.without_replica_labels = (0..16).map(|at| format!("r{at}")).collect();
        let query = Query::new(&request, &view(&[])).unwrap().unwrap();
        assert!(Query::can_split(query.relabel.touched()));
        let one_more = Query::new(&request, &view(&[("cluster", "eu")])).unwrap().unwrap();
        assert!(!Query::can_split(one_more.relabel.touched()));
        assert_eq!(one_more.plain().queries.len(), 1);
    }

    #[test]
    fn old_times_are_cut_and_a_range_that_ends_before_it_starts_passes() {
        let mut view = view(&[]);
        view.min_time_ms = 1_700_000_200_000;
        let query = Query::new(&request(), &view).unwrap().unwrap();
        assert_eq!((query.start_ms, query.end_ms), (1_700_000_200_000, 1_700_000_300_000));
        view.min_time_ms = i64::MAX;
        assert_eq!(Query::new(&request(), &view).unwrap().unwrap().start_ms, i64::MAX);
    }

    #[test]
    fn a_selector_of_external_labels_alone_is_refused_and_numbers_below_zero_are_none() {
        let mut request = request();
        request.response_batch_size = -5;
        request.limit = -1;
        let query = Query::new(&request, &view(&[])).unwrap().unwrap();
        assert_eq!((query.batch, query.limit), (1, 0));
        let error = Query::new(&request, &view(&[("__name__", "up"), ("job", "n1")])).unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        assert_eq!(error.message(), "no matchers specified (excluding external labels)");
        assert!(Query::new(&request, &view(&[("job", "x")])).unwrap().is_none());
    }
}
