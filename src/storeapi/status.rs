//! Status: TSDB statistics of Prometheus.

use std::mem;

use tonic::Status;

use super::{
    context::Context,
    errors,
    message_buffer::MessageBuffer,
    patterns::{Condition, Patterns},
    respond::{Answer, Call},
    selection,
};
use crate::{
    model::Labels,
    ops::grpc::Caller,
    pb::thanos::{HeadStatistics, LabelMatcher, Statistic, TsdbStatisticsRequest},
    prometheus::api::{self, Accept, Reserve, TsdbPart},
};

/// The service `thanos.Status`.
#[derive(Clone, Debug)]
pub struct StatusService {
    context: Context,
}

impl StatusService {
    /// A service for this Prometheus.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

impl Call for StatusService {
    const SERVICE: &'static str = "thanos.Status";
    const PATH: &'static str = "/thanos.Status/TSDBStatistics";
    type Request = TsdbStatisticsRequest;

    #[expect(deprecated, reason = "older readers may still ask for a tenant")]
    /// One message; its map is empty if a matcher contradicts an external label, or a tenant is asked for.
    async fn answer(&self, request: TsdbStatisticsRequest, caller: Caller) -> Result<Answer, Status> {
        if self.context.probe.ready().is_err() {
            return Err(Status::unknown("not ready"));
        }
        let mut answer = Answer::new(self.context.budget.reservation());
        let mut statistics = MessageBuffer::default();
        if matches(&self.context.patterns, request.matchers, &self.context.view().labels).await?
            && request.tenant.is_empty()
        {
            let failed = "failed to get tsdb status from prometheus";
            let numbers = Numbers::new(answer, request.limit);
            let options = self.context.request_options(&caller);
            let found = self.context.client.tsdb_status(request.limit, &options, numbers).await;
            let (numbers, head) = found.map_err(|error| {
                let status = errors::status(error);
                Status::new(status.code(), format!("{failed}: {}", status.message()))
            })?;
            let head =
                head.ok_or_else(|| Status::unknown(format!("{failed}: empty data field in TSDB status response")))?;
            let entry;
            (answer, entry) = numbers.entry(head);
            let mut tenant = MessageBuffer::default();
            // One Prometheus has one tenant, without a name.
            tenant.text(1, "");
            tenant.nested(2, entry);
            statistics.nested(1, tenant);
        }
        let mut message = MessageBuffer::default();
        message.nested(1, statistics);
        answer.add(message)?;
        Ok(answer)
    }
}

/// The lists so far, as fields of a `TsdbStatisticsEntry`.
#[derive(Debug)]
struct Numbers {
    answer: Answer,
    lists: [(usize, MessageBuffer); 4],
    /// Entries of each list, at most.
    most: usize,
}

impl Reserve for Numbers {
    fn reserve(&mut self, bytes: usize) -> bool {
        self.answer.reservation.reserve(bytes)
    }
}

impl Accept<TsdbPart> for Numbers {
    fn accept(&mut self, part: TsdbPart) -> bool {
        let (at, from) = match part {
            TsdbPart::SeriesByMetric(from) => (0, from),
            TsdbPart::ValuesByLabel(from) => (1, from),
            TsdbPart::BytesByLabel(from) => (2, from),
            TsdbPart::SeriesByPair(from) => (3, from),
        };
        let (count, list) = &mut self.lists[usize::from(at)];
        *count += 1;
        if *count > self.most {
            return true;
        }
        let before = list.len();
        let api::Statistic { name, value } = from;
        // The lists have the numbers from 2 on.
        list.field(2 + at, &Statistic { name, value });
        self.answer.reservation.reserve(list.len() - before)
    }
}

impl Numbers {
    fn new(answer: Answer, limit: i32) -> Self {
        let most = usize::try_from(limit).ok().filter(|&limit| limit > 0);
        Self {
            answer,
            lists: Default::default(),
            most: most.unwrap_or(usize::MAX),
        }
    }

    /// All of it, as fields of a `TsdbStatisticsEntry`.
    fn entry(mut self, head: api::HeadStats) -> (Answer, MessageBuffer) {
        let mut entry = MessageBuffer::default();
        entry.field(
            1,
            &HeadStatistics {
                num_series: head.num_series,
                num_label_pairs: head.num_label_pairs,
                chunk_count: head.chunk_count,
                min_time: head.min_time,
                // Without a sample it is the smallest number there is.
                max_time: head.max_time.max(0),
            },
        );
        for (_, list) in &mut self.lists {
            entry.append(mem::take(list));
        }
        (self.answer, entry)
    }
}

/// Whether all matchers fit the external labels, where a label that is not there has the empty value.
async fn matches(patterns: &Patterns, matchers: Vec<LabelMatcher>, external: &Labels) -> Result<bool, tonic::Status> {
    let bad = |text: &str| tonic::Status::unknown(errors::truncate(format!("failed to convert matchers: {text}")));
    let condition = |matcher| {
        let matcher = selection::read(matcher).map_err(|status| bad(status.message()))?;
        let value = Some(external.get(&matcher.name).unwrap_or_default().to_owned());
        Ok(Condition { matcher, value })
    };
    let conditions = matchers
        .into_iter()
        .map(condition)
        .collect::<Result<_, tonic::Status>>()?;
    // Those behind one that does not fit are read all the same: a bad one is an error wherever it stands.
    let evaluated = patterns.evaluate(conditions).await;
    let evaluated = evaluated.map_err(|failed| bad(&failed.to_string()))?;
    Ok(!evaluated.holds.contains(&false))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::{
        pb::thanos::{TsdbStatisticsEntry, label_matcher::Type},
        prometheus::api::testing,
        storeapi::budget::Budget,
        threads::BlockingPool,
    };

    #[test]
    fn lists_are_cut_and_the_numbers_of_an_empty_head_make_sense() {
        let json = r#"{"headStats": {"numSeries": 3, "numLabelPairs": 2, "chunkCount": 4,
            "minTime": 9223372036854775807, "maxTime": -9223372036854775808},
            "seriesCountByMetricName": [{"name": "a", "value": 2}, {"name": "b", "value": 1}],
            "labelValueCountByLabelName": null}"#;
        let found = |limit| {
            let numbers = Numbers::new(Answer::new(Budget::new(1 << 20).reservation()), limit);
            let (numbers, head) = testing::tsdb_status(json, numbers).unwrap();
            let entry: Vec<u8> = numbers.entry(head.unwrap()).1.into_pieces().flatten().collect();
            TsdbStatisticsEntry::decode(&*entry).unwrap()
        };
        let head = found(0).head_statistics.unwrap();
        assert_eq!((head.num_series, head.num_label_pairs, head.chunk_count), (3, 2, 4));
        assert_eq!((head.min_time, head.max_time), (i64::MAX, 0));
        for (limit, want) in [(-1, 2), (0, 2), (1, 1), (9, 2)] {
            assert_eq!(found(limit).series_count_by_metric_name.len(), want, "{limit}");
        }
        assert!(found(0).label_value_count_by_label_name.is_empty());
    }

    #[tokio::test]
    async fn matchers_are_held_against_external_labels_only() {
        let external = Labels::from_pairs([("cluster", "eu")]);
        let matcher = |op: Type, name: &str, value: &str| LabelMatcher {
            r#type: op.into(),
            name: name.into(),
            value: value.into(),
        };
        let patterns = Patterns::new(BlockingPool::new(1));
        let fits = async |list: &[LabelMatcher]| matches(&patterns, list.to_vec(), &external).await;
        assert!(fits(&[]).await.unwrap());
        assert!(
            fits(&[matcher(Type::Re, "cluster", "e."), matcher(Type::Eq, "job", "")])
                .await
                .unwrap()
        );
        assert!(!fits(&[matcher(Type::Eq, "job", "node")]).await.unwrap());
        let unknown = LabelMatcher {
            r#type: 9,
            ..LabelMatcher::default()
        };
        let error = fits(&[matcher(Type::Eq, "job", "node"), unknown]).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::Unknown);
        assert_eq!(
            error.message(),
            "failed to convert matchers: unrecognized label matcher type 9"
        );
    }
}
