//! Status: what Prometheus' storage holds.

use std::collections::BTreeMap;

use tonic::{Request, Response, async_trait};

use super::{
    Context, Messages, errors, one,
    patterns::{Condition, Patterns},
    selection,
};
use crate::{
    model::Labels,
    pb::thanos::{
        HeadStatistics, LabelMatcher, Statistic, TsdbStatistics, TsdbStatisticsEntry, TsdbStatisticsRequest,
        TsdbStatisticsResponse, status_server::Status, tsdb_statistics_response,
    },
    prometheus::api,
};

/// The service `thanos.Status`.
#[derive(Clone, Debug)]
pub struct StatusService {
    context: Context,
    patterns: Patterns,
}

impl StatusService {
    /// Answers for this Prometheus.
    pub fn new(context: Context) -> Self {
        let patterns = Patterns::new(context.lane.clone());
        Self { context, patterns }
    }
}

#[async_trait]
impl Status for StatusService {
    type TSDBStatisticsStream = Messages<TsdbStatisticsResponse>;

    #[expect(deprecated, reason = "older readers may still ask for a tenant")]
    /// One message; its map is empty if a matcher contradicts an external label, or a tenant is asked for.
    async fn tsdb_statistics(
        &self,
        request: Request<TsdbStatisticsRequest>,
    ) -> Result<Response<Self::TSDBStatisticsStream>, tonic::Status> {
        if self.context.probe.ready().is_err() {
            return Err(tonic::Status::unknown("not ready"));
        }
        let request = request.into_inner();
        let mut statistics = BTreeMap::new();
        if matches(&self.patterns, request.matchers, &self.context.view().labels).await? && request.tenant.is_empty() {
            let failed = "failed to get tsdb status from prometheus";
            let found = self.context.client.tsdb_status(request.limit).await.map_err(|error| {
                let status = errors::status(error);
                tonic::Status::new(status.code(), format!("{failed}: {}", status.message()))
            })?;
            let found = found
                .ok_or_else(|| tonic::Status::unknown(format!("{failed}: empty data field in TSDB status response")))?;
            // One Prometheus has one tenant, without a name.
            statistics.insert(String::new(), entry(found, request.limit));
        }
        let result = tsdb_statistics_response::Result::Statistics(TsdbStatistics { statistics });
        Ok(one(TsdbStatisticsResponse { result: Some(result) }))
    }
}

/// Whether all matchers fit the external labels, where a label that is not there has the empty value.
async fn matches(patterns: &Patterns, matchers: Vec<LabelMatcher>, external: &Labels) -> Result<bool, tonic::Status> {
    let bad = |text: &str| tonic::Status::unknown(errors::cut(format!("failed to convert matchers: {text}")));
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
    let judged = patterns.judge(conditions).await;
    let judged = judged.map_err(|failed| bad(&failed.to_string()))?;
    Ok(!judged.hold.contains(&false))
}

fn entry(from: api::TsdbStatus, limit: i32) -> TsdbStatisticsEntry {
    let most = usize::try_from(limit)
        .ok()
        .filter(|&limit| limit > 0)
        .unwrap_or(usize::MAX);
    let list = |from: Vec<api::Statistic>| {
        let from = from.into_iter().take(most);
        let list = from.map(|api::Statistic { name, value }| Statistic { name, value });
        list.collect()
    };
    let head = from.head_stats;
    TsdbStatisticsEntry {
        head_statistics: Some(HeadStatistics {
            num_series: head.num_series,
            num_label_pairs: head.num_label_pairs,
            chunk_count: head.chunk_count,
            min_time: head.min_time,
            // Without a sample it is the smallest number there is.
            max_time: head.max_time.max(0),
        }),
        series_count_by_metric_name: list(from.series_count_by_metric_name),
        label_value_count_by_label_name: list(from.label_value_count_by_label_name),
        memory_in_bytes_by_label_name: list(from.memory_in_bytes_by_label_name),
        series_count_by_label_value_pair: list(from.series_count_by_label_value_pair),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pb::thanos::label_matcher::Type, threads::Lane};

    #[test]
    fn lists_are_cut_and_the_numbers_of_an_empty_head_make_sense() {
        let json = r#"{"headStats": {"numSeries": 3, "numLabelPairs": 2, "chunkCount": 4,
            "minTime": 9223372036854775807, "maxTime": -9223372036854775808},
            "seriesCountByMetricName": [{"name": "a", "value": 2}, {"name": "b", "value": 1}],
            "labelValueCountByLabelName": null}"#;
        let found = |limit| entry(serde_json::from_str(json).unwrap(), limit);
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
        let patterns = Patterns::new(Lane::new(1));
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
