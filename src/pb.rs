//! Messages and services, generated from `proto/` (see `tests/it/codegen.rs`; `make proto` writes them anew).
//!
//! The `.proto` files are ours, written to be the same on the wire as the StoreAPI and Prometheus' remote read: same
//! packages, services, methods, field numbers and types. What the types cannot say:
//!
//! - A message that the other side always writes is an `Option` here all the same: the `.proto` file says "always set",
//!   and whoever builds the answer sets it.
//! - Enumerations are `i32` and keep numbers that they do not know.
//! - Text must be UTF-8; a message with other bytes in a text field does not decode.

/// The StoreAPI.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::clone_on_ref_ptr,
    reason = "generated"
)]
pub mod thanos {
    include!("pb/thanos.rs");

    /// What an endpoint is, and which APIs it answers.
    pub mod info {
        include!("pb/thanos.info.rs");
    }
}

/// Prometheus' remote read.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::clone_on_ref_ptr,
    reason = "generated"
)]
pub mod prometheus {
    include!("pb/prometheus.rs");
}

/// The protocol of gRPC's health checks.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::clone_on_ref_ptr,
    reason = "generated"
)]
pub mod health {
    include!("pb/grpc.health.v1.rs");
}

/// The encoded `FileDescriptorSet` of all of the above and of what it imports, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("pb/descriptors.bin");

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use bytes::Bytes;
    use prost::Message;
    use prost_types::Timestamp;

    use super::{prometheus, thanos, thanos::info};

    /// 2023-11-14T22:13:20Z in milliseconds.
    const TIME: i64 = 1_700_000_000_000;

    const SERIES: &str = "0a4f0a0e0a085f5f6e616d655f5f120275700a0b0a036a6f6212046e6f64650a0c0a06726567696f6e120265751222\
                          0880d095ffbc311080d095ffbc311a12120500010000001897a1c6baa9d2bcd3cd01";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn from_hex(text: &str) -> Bytes {
        let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    }

    /// The message is these bytes, and the bytes are this message.
    fn is_on_the_wire<M: Message + Default + PartialEq + Debug>(message: &M, bytes: &str) {
        assert_eq!(hex(&message.encode_to_vec()), bytes);
        assert_eq!(&M::decode(from_hex(bytes)).unwrap(), message);
    }

    fn labels(pairs: &[(&str, &str)]) -> Vec<thanos::Label> {
        let label = |(name, value): &(&str, &str)| thanos::Label {
            name: (*name).into(),
            value: (*value).into(),
        };
        pairs.iter().map(label).collect()
    }

    fn set(pairs: &[(&str, &str)]) -> thanos::ZLabelSet {
        thanos::ZLabelSet { labels: labels(pairs) }
    }

    fn series() -> thanos::Series {
        let data = Bytes::from_static(&[0, 1, 0, 0, 0]);
        let raw = thanos::Chunk {
            r#type: thanos::chunk::Encoding::Xor.into(),
            data,
            hash: 0xcda6_f292_9751_9097,
        };
        thanos::Series {
            labels: labels(&[("__name__", "up"), ("job", "node"), ("region", "eu")]),
            chunks: vec![thanos::AggrChunk {
                min_time: TIME,
                max_time: TIME,
                raw: Some(raw),
                ..Default::default()
            }],
        }
    }

    fn answer(result: thanos::series_response::Result) -> thanos::SeriesResponse {
        thanos::SeriesResponse { result: Some(result) }
    }

    #[test]
    fn info_of_a_ready_sidecar() {
        let external = set(&[("region", "eu"), ("replica", "a")]);
        let message = info::InfoResponse {
            label_sets: vec![external.clone()],
            component_type: "sidecar".into(),
            store: Some(info::StoreInfo {
                min_time: TIME,
                max_time: i64::MAX,
                supports_sharding: true,
                supports_without_replica_labels: true,
                tsdb_infos: vec![info::TsdbInfo {
                    labels: Some(external),
                    min_time: TIME,
                    max_time: i64::MAX,
                }],
                supports_projections: false,
            }),
            rules: Some(info::RulesInfo {}),
            metric_metadata: Some(info::MetricMetadataInfo {}),
            targets: Some(info::TargetsInfo {}),
            exemplars: Some(info::ExemplarsInfo::default()),
            query: None,
            status: Some(info::StatusInfo {}),
        };
        is_on_the_wire(
            &message,
            "0a1c0a0c0a06726567696f6e120265750a0c0a077265706c6963611201611207736964656361721a460880d095ffbc3110ffffffff\
             ffffffff7f18012801322f0a1c0a0c0a06726567696f6e120265750a0c0a077265706c6963611201611080d095ffbc3118ffffffff\
             ffffffff7f22002a0032003a004a00",
        );
    }

    #[test]
    fn a_series_alone_and_in_a_batch() {
        is_on_the_wire(&answer(thanos::series_response::Result::Series(series())), SERIES);
        let batch = thanos::SeriesBatch { series: vec![series()] };
        is_on_the_wire(
            &answer(thanos::series_response::Result::Batch(batch)),
            &format!("2251{SERIES}"),
        );
    }

    #[test]
    fn a_rule_group_that_never_ran() {
        let message = thanos::RuleGroup {
            name: "g".into(),
            file: "f".into(),
            interval: 15.0,
            last_evaluation: Some(Timestamp {
                seconds: -62_135_596_800,
                nanos: 0,
            }),
            partial_response_strategy: thanos::PartialResponseStrategy::Abort.into(),
            ..Default::default()
        };
        is_on_the_wire(&message, "0a0167120166210000000000002e40320b088092b8c398feffffff014001");
    }

    #[test]
    fn a_remote_read_request() {
        use prometheus::{label_matcher::Type, read_request::ResponseType};
        let matcher = |kind: Type, name: &str, value: &str| prometheus::LabelMatcher {
            r#type: kind.into(),
            name: name.into(),
            value: value.into(),
        };
        let message = prometheus::ReadRequest {
            queries: vec![prometheus::Query {
                start_timestamp_ms: TIME,
                end_timestamp_ms: TIME + 300_000,
                matchers: vec![matcher(Type::Eq, "__name__", "up"), matcher(Type::Re, "job", "n.*")],
                hints: None,
            }],
            accepted_response_types: vec![ResponseType::StreamedXorChunks.into(), ResponseType::Samples.into()],
        };
        is_on_the_wire(
            &message,
            "0a2c0880d095ffbc3110e0f7a7ffbc311a0e12085f5f6e616d655f5f1a0275701a0c080212036a6f621a036e2e2a12020100",
        );
    }

    #[test]
    fn a_frame_of_remote_read_holds_its_chunk_without_a_copy() {
        let payload = "0a440a0e0a085f5f6e616d655f5f120275700a0b0a036a6f6212046e6f64650a0c0a06726567696f6e12026575\
                       12170880d095ffbc311080d095ffbc31180122050001000000";
        let label = |name: &str, value: &str| prometheus::Label {
            name: name.into(),
            value: value.into(),
        };
        let message = prometheus::ChunkedReadResponse {
            chunked_series: vec![prometheus::ChunkedSeries {
                labels: vec![label("__name__", "up"), label("job", "node"), label("region", "eu")],
                chunks: vec![prometheus::Chunk {
                    min_time_ms: TIME,
                    max_time_ms: TIME,
                    r#type: prometheus::chunk::Encoding::Xor.into(),
                    data: Bytes::from_static(&[0, 1, 0, 0, 0]),
                }],
            }],
            query_index: 0,
        };
        is_on_the_wire(&message, payload);

        let mut frame = from_hex(&format!("4675c877d6{payload}"));
        assert_eq!(prost::decode_length_delimiter(&mut frame).unwrap(), frame.len() - 4);
        let checksum = frame.split_to(4);
        assert_eq!(checksum[..], crc32c::crc32c(&frame).to_be_bytes());
        let held = frame.as_ptr_range();
        let read = prometheus::ChunkedReadResponse::decode(frame).unwrap();
        assert_eq!(read, message);
        assert!(held.contains(&read.chunked_series[0].chunks[0].data.as_ptr()));
    }

    /// Numbers that the order of the fields would not give.
    #[test]
    fn fields_whose_numbers_leave_gaps() {
        let text = || vec!["x".to_owned()];
        is_on_the_wire(
            &thanos::Grouping {
                by: false,
                labels: text(),
            },
            "1a0178",
        );
        let hints = thanos::QueryHints {
            grouping: Some(thanos::Grouping::default()),
            ..Default::default()
        };
        is_on_the_wire(&hints, "2200");
        let entry = thanos::MetricMetadataEntry {
            metas: vec![thanos::Meta::default()],
        };
        is_on_the_wire(&entry, "1200");
        is_on_the_wire(
            &thanos::RuleGroup {
                limit: 1,
                ..Default::default()
            },
            "4801",
        );
        let store = info::StoreInfo {
            supports_without_replica_labels: true,
            ..Default::default()
        };
        is_on_the_wire(&store, "2801");
        is_on_the_wire(
            &thanos::MetricMetadataRequest {
                limit: -1,
                ..Default::default()
            },
            "10ffffffffffffffffff01",
        );
    }

    #[test]
    fn enumerations_have_the_numbers_of_the_wire_and_keep_unknown_ones() {
        assert_eq!(thanos::TargetHealth::Down as i32, 0);
        assert_eq!(thanos::TargetHealth::Unknown as i32, 2);
        assert_eq!(thanos::AlertState::Unknown as i32, 0);
        assert_eq!(
            thanos::chunk::Encoding::Xor as i32,
            prometheus::chunk::Encoding::Xor as i32 - 1
        );
        is_on_the_wire(
            &prometheus::Chunk {
                r#type: 9,
                ..Default::default()
            },
            "1809",
        );
    }

    #[test]
    fn services_have_the_names_of_the_wire() {
        use tonic::server::NamedService;
        use {
            info::info_server::InfoServer,
            thanos::{
                exemplars_server::ExemplarsServer, metadata_server::MetadataServer, rules_server::RulesServer,
                status_server::StatusServer, store_server::StoreServer, targets_server::TargetsServer,
            },
        };
        assert_eq!(StoreServer::<()>::NAME, "thanos.Store");
        assert_eq!(InfoServer::<()>::NAME, "thanos.info.Info");
        assert_eq!(RulesServer::<()>::NAME, "thanos.Rules");
        assert_eq!(TargetsServer::<()>::NAME, "thanos.Targets");
        assert_eq!(MetadataServer::<()>::NAME, "thanos.Metadata");
        assert_eq!(ExemplarsServer::<()>::NAME, "thanos.Exemplars");
        assert_eq!(StatusServer::<()>::NAME, "thanos.Status");
    }
}
