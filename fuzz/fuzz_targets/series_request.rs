//! Any bytes as a Series request: it becomes a question for Prometheus or is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narthex::{
    model::Labels,
    pb::thanos::SeriesRequest,
    storeapi::{View, series::query::Query},
};
use prost::Message;

fuzz_target!(|body: &[u8]| {
    let Ok(request) = SeriesRequest::decode(body) else { return };
    let view = View {
        labels: Labels::from_pairs([("cluster", "eu"), ("replica", "a")]),
        min_time_ms: 0,
        version: "3.5.0".to_owned(),
        seen: true,
    };
    if let Ok(Some(query)) = Query::new(&request, &view) {
        let split = query.split();
        assert_eq!(split.queries.len(), query.relabel.touched().len() + 1);
        assert_eq!(query.plain().queries.len(), 1);
    }
});
