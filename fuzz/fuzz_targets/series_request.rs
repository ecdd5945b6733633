//! Any bytes as a Series request: it becomes a question for Prometheus or is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narthex::{
    model::Labels,
    pb::{prometheus::ReadRequest, thanos::SeriesRequest},
    storeapi::{
        View, request_limits,
        selection::{Selection, read},
        series::query::{Query, Written},
    },
};
use prost::Message;

fuzz_target!(|body: &[u8]| {
    if request_limits::check("/thanos.Store/Series", body).is_err() {
        return;
    }
    let Ok(request) = SeriesRequest::decode(body) else { return };
    assert!(request.matchers.len() <= 1000 && request.without_replica_labels.len() <= 256);
    let view = View {
        labels: Labels::from_pairs([("cluster", "eu"), ("replica", "a")]),
        min_time_ms: 0,
        version: "3.5.0".to_owned(),
        seen: true,
    };
    let matchers = request.matchers.iter().cloned().map(read).collect::<Result<_, _>>();
    let Ok(matchers) = matchers else { return };
    if let Ok(Some(query)) = Query::of(Selection::Matching(matchers), &request, &view) {
        let names = query.relabel.touched();
        let queries = |written: Written| ReadRequest::decode(written.bytes).expect("what is written is read").queries;
        assert_eq!(queries(query.split_by(names)).len(), names.len() + 1);
        assert_eq!(queries(query.plain()).len(), 1);
    }
});
