use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use proptest::prelude::*;
use prost::Message as _;
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use tonic::Code;

use super::*;
use crate::{
    model::fields::{Holds, Known},
    pb::{
        self,
        thanos::{Grouping, LabelMatcher, LabelNamesRequest, QueryHints, RulesRequest, SeriesRequest, ShardInfo},
    },
};

const SERIES: &str = "/thanos.Store/Series";

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

fn body(pieces: Vec<Vec<u8>>) -> Body {
    let frames = pieces
        .into_iter()
        .map(|piece| Ok::<_, Status>(http_body::Frame::data(Bytes::from(piece))));
    Body::new(StreamBody::new(stream::iter(frames)))
}

fn request_limits() -> RequestLimits {
    RequestLimits::new(Budget::new(1 << 20), 1 << 20)
}

fn refused(path: &str, message: &impl prost::Message) -> String {
    let status = check(path, &message.encode_to_vec()).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    status.message().to_owned()
}

#[test]
fn too_much_of_anything_is_refused_with_the_numbers() {
    let series = |matchers, value: usize, replicas, shards, aggregates| SeriesRequest {
        matchers: vec![
            LabelMatcher {
                value: "x".repeat(value),
                ..LabelMatcher::default()
            };
            matchers
        ],
        without_replica_labels: vec![String::new(); replicas],
        shard_info: Some(ShardInfo {
            labels: vec![String::new(); shards],
            ..ShardInfo::default()
        }),
        aggregates: vec![0; aggregates],
        ..SeriesRequest::default()
    };
    check(SERIES, &series(1000, 1000, 256, 1000, 10_000).encode_to_vec()).unwrap();
    for (request, text) in [
        (
            series(1001, 0, 0, 0, 0),
            "the request has 1001 matchers, and 1000 are allowed",
        ),
        (
            series(2, 600_000, 0, 0, 0),
            "the request has 1200000 bytes of patterns and values in its matchers, and 1048576 are allowed",
        ),
        (
            series(0, 0, 257, 0, 0),
            "the request has 257 replica labels, and 256 are allowed",
        ),
        (
            series(0, 0, 0, 1001, 0),
            "the request has 1001 labels to shard by, and 1000 are allowed",
        ),
        (
            series(0, 0, 0, 0, 10_001),
            "the request has 10001 aggregates, and 10000 are allowed",
        ),
    ] {
        assert!(refused(SERIES, &request).starts_with(text), "{text}");
    }
    let grouping = Grouping {
        labels: vec![String::new(); 1001],
        ..Default::default()
    };
    let hints = |hints| SeriesRequest {
        query_hints: Some(hints),
        ..SeriesRequest::default()
    };
    let grouped = QueryHints {
        grouping: Some(grouping),
        ..QueryHints::default()
    };
    assert!(refused(SERIES, &hints(grouped)).contains("1001 labels to group by"));
    let rules = RulesRequest {
        file: vec![String::new(); 1001],
        ..RulesRequest::default()
    };
    assert!(refused("/thanos.Rules/Rules", &rules).contains("1001 files of rules"));
    let names = LabelNamesRequest {
        matchers: vec![LabelMatcher::default(); 1001],
        ..LabelNamesRequest::default()
    };
    assert!(refused("/thanos.Store/LabelNames", &names).contains("1001 matchers"));
}

#[test]
fn a_message_that_comes_in_parts_counts_as_one() {
    let part = SeriesRequest {
        shard_info: Some(ShardInfo {
            labels: vec!["x".to_owned(); 600],
            ..ShardInfo::default()
        }),
        ..SeriesRequest::default()
    };
    let twice = part.encode_to_vec().repeat(2);
    assert_eq!(
        SeriesRequest::decode(&twice[..])
            .unwrap()
            .shard_info
            .unwrap()
            .labels
            .len(),
        1200
    );
    let status = check(SERIES, &twice).unwrap_err();
    assert!(status.message().contains("1200 labels to shard by"), "{status}");
}

#[test]
fn what_is_no_message_is_an_error_of_its_own() {
    let status = check(SERIES, &[0x1a, 9]).unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(
        status.message(),
        "failed to decode Protobuf message: it is no message in protobuf"
    );
    // What comes before it counts.
    let many = [&[0x1a, 0].repeat(1001)[..], &[0x1a, 9]].concat();
    assert_eq!(check(SERIES, &many).unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_message_is_taken_whole_however_it_comes() {
    let message = SeriesRequest {
        min_time: 5,
        max_time: 1 << 40,
        ..SeriesRequest::default()
    };
    let bytes = framed(&message.encode_to_vec());
    for size in 1..=bytes.len() {
        let mut pieces: Vec<_> = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        // What comes behind it is not looked at.
        pieces.last_mut().unwrap().extend(framed(&[0x1a, 0].repeat(5000)));
        let admitted = request_limits().admit(SERIES, body(pieces)).await.unwrap();
        assert_eq!(
            admitted.decode::<SeriesRequest>().unwrap().0,
            message,
            "in pieces of {size}"
        );
    }
    let empty = request_limits().admit(SERIES, body(vec![framed(&[])])).await.unwrap();
    assert_eq!(empty.message().unwrap(), b"");
    let whole = Bytes::from(bytes);
    let frames = stream::iter([Ok::<_, Status>(http_body::Frame::data(whole.clone()))]).chain(stream::pending());
    let admitted = request_limits()
        .admit(SERIES, Body::new(StreamBody::new(frames)))
        .await
        .unwrap();
    assert_eq!(admitted.framed.as_ptr(), whole.as_ptr(), "it is not copied");
}

#[tokio::test]
async fn a_call_without_a_whole_message_is_told_so() {
    let message = framed(&[8, 5]);
    for (pieces, text) in [
        (vec![], "the call holds no request"),
        (vec![message[..3].to_vec()], "the request ends within its message"),
        (vec![message[..6].to_vec()], "the request ends within its message"),
        (vec![vec![1, 0, 0, 0, 0]], "has the flag 1"),
    ] {
        let admitted = request_limits().admit(SERIES, body(pieces)).await.unwrap();
        let status = admitted.message().unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().contains(text), "{status}");
    }
    let long = request_limits()
        .admit(SERIES, body(vec![vec![0, 0, 16, 0, 1]]))
        .await
        .unwrap_err();
    assert_eq!(long.code(), Code::ResourceExhausted);
    assert_eq!(long.message(), "the request has 1048577 bytes, and 1048576 are allowed");
}

#[tokio::test]
async fn what_requests_hold_comes_out_of_the_account() {
    let request_limits = request_limits();
    let message = SeriesRequest {
        matchers: vec![LabelMatcher {
            value: "x".repeat(200_000),
            ..LabelMatcher::default()
        }],
        ..SeriesRequest::default()
    };
    let bytes = framed(&message.encode_to_vec());
    let pieces = || bytes.chunks(50_000).map(<[u8]>::to_vec).collect();
    let first = request_limits.admit(SERIES, body(pieces())).await.unwrap();
    assert_eq!(request_limits.budget.used(), 2 * bytes.len());
    let second = request_limits.admit(SERIES, body(pieces())).await.unwrap();
    let status = request_limits.admit(SERIES, body(pieces())).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("no memory for a request of 1"), "{status}");
    // Small ones go on.
    let small = request_limits.admit(SERIES, body(vec![framed(&[8, 5])])).await.unwrap();
    drop((second, small));
    let (decoded, reservation) = first.decode::<SeriesRequest>().unwrap();
    assert_eq!((decoded, request_limits.budget.used()), (message, bytes.len() - PREFIX));
    drop(reservation);
    assert_eq!(request_limits.budget.used(), 0);
    // A client that announces much and sends little holds little.
    let announced = bytes[..5000].to_vec();
    let frames =
        stream::iter([Ok::<_, Status>(http_body::Frame::data(Bytes::from(announced)))]).chain(stream::pending());
    let mut waits = Box::pin(request_limits.admit(SERIES, Body::new(StreamBody::new(frames))));
    assert!(futures_util::poll!(waits.as_mut()).is_pending());
    assert_eq!(request_limits.budget.used(), 2 * 5000);
    drop(waits);
    assert_eq!(request_limits.budget.used(), 0);
}

/// Tells what it gets.
#[derive(Clone)]
struct Echo(Budget);

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let budget = self.0.clone();
        Box::pin(async move {
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(budget.used(), 2 * bytes.len(), "it is held while the call is answered");
            Ok(Response::new(Body::new(Full::new(bytes))))
        })
    }
}

#[tokio::test]
async fn a_service_gets_the_first_message_and_no_more() {
    let budget = Budget::new(1 << 20);
    let mut service = LimitedService::new(Echo(budget.clone()), RequestLimits::new(budget.clone(), 1 << 20));
    let bytes = framed(&[&[0x1a, 0xf0, 0x2e][..], &[0x20, 1].repeat(3000)].concat());
    let request = |pieces| Request::builder().uri(SERIES).body(body(pieces)).unwrap();
    let pieces = vec![bytes[..2000].to_vec(), bytes[2000..].to_vec(), framed(b"more")];
    let answer = service.call(request(pieces)).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), bytes);
    assert_eq!(budget.used(), 0);
    let many = framed(&[0x1a, 0].repeat(1001));
    let answer = service.call(request(vec![many])).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "3");
}

/// The tables against the descriptors: whatever may be there more than once is in them, and nothing else.
#[test]
fn every_list_in_a_request_is_counted() {
    let set = FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET).unwrap();
    let mut messages = BTreeMap::new();
    for file in &set.file {
        for message in &file.message_type {
            name(&format!(".{}", file.package()), message, &mut messages);
        }
    }
    let mut methods = 0;
    for file in set.file.iter().filter(|file| file.package().starts_with("thanos")) {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                compare(&path, method.input_type(), request(&path), &messages);
                methods += 1;
            }
        }
    }
    assert!(methods >= 9, "{methods}");
}

fn name<'a>(prefix: &str, message: &'a DescriptorProto, names: &mut BTreeMap<String, &'a DescriptorProto>) {
    let full = format!("{prefix}.{}", message.name());
    for nested in &message.nested_type {
        name(&full, nested, names);
    }
    names.insert(full, message);
}

fn compare(path: &str, message: &str, table: &[Known<Kind>], messages: &BTreeMap<String, &DescriptorProto>) {
    let mut wanted = Vec::new();
    for field in &messages[message].field {
        let what = format!("{path}: {message}.{}", field.name());
        let found = table.iter().find(|known| known.number == field.number() as u64);
        let list = field.label() == Label::Repeated;
        let inner = match field.r#type() {
            // Its type is known to nobody, so that its bytes stay bytes.
            Type::Message if field.type_name() != ".google.protobuf.Any" => Some(field.type_name()),
            _ => None,
        };
        let lists_inside = inner.is_some_and(|inner| has_lists(inner, messages));
        let pattern = message == ".thanos.LabelMatcher" && field.name() == "value";
        if !list && !lists_inside && !pattern {
            continue;
        }
        wanted.push(field.number() as u64);
        let found = found.unwrap_or_else(|| panic!("{what} is not counted"));
        assert!(!list || found.what != Kind::Message, "{what} is a list");
        match (&found.holds, field.r#type()) {
            (Holds::Message(table), Type::Message) => compare(path, field.type_name(), table, messages),
            (Holds::Bytes, Type::String | Type::Bytes) | (Holds::Varints, Type::Enum) => {}
            (holds, kind) => panic!("{what} is {kind:?}, counted as {holds:?}"),
        }
    }
    let counted: Vec<_> = table.iter().map(|known| known.number).collect();
    assert_eq!(counted, wanted, "{path}: {message}");
}

fn has_lists(message: &str, messages: &BTreeMap<String, &DescriptorProto>) -> bool {
    message == ".thanos.LabelMatcher"
        || messages[message].field.iter().any(|field| {
            let inner = field.r#type() == Type::Message && field.type_name() != ".google.protobuf.Any";
            field.label() == Label::Repeated || inner && has_lists(field.type_name(), messages)
        })
}

proptest! {
    /// Whatever a decoder takes and the guard lets through is within the limits, and the guard refuses nothing else.
    #[test]
    fn what_is_let_through_is_within_the_limits(
        parts in proptest::collection::vec((0..12_usize, 1..700_usize), 0..8),
        noise in proptest::collection::vec(any::<u8>(), 0..12),
    ) {
        let fields: [&[u8]; 12] = [
            &[0x1a, 0], &[0x1a, 3, 0x1a, 1, 120], &[0x6a, 2, 0x22, 0], &[0x72, 0], &[0x28, 1], &[0x2a, 3, 1, 0x81, 1],
            &[0x62, 4, 0x22, 2, 0x1a, 0], &[0x62, 2, 0x32, 0], &[0x9b, 1, 0x08, 1, 0x9c, 1], &[8, 5],
            &[0x4a, 2, 0x0a, 0], &[0xa1, 1, 1, 2, 3, 4, 5, 6, 7, 8],
        ];
        let mut message: Vec<u8> = parts.iter().flat_map(|(field, times)| fields[*field].repeat(*times)).collect();
        message.extend(noise);
        let (checked, decoded) = (check(SERIES, &message), SeriesRequest::decode(&message[..]));
        let within = |request: &SeriesRequest| {
            let hints = request.query_hints.clone().unwrap_or_default();
            request.matchers.len() <= 1000
                && request.without_replica_labels.len() <= 256
                && request.aggregates.len() <= 10_000
                && request.shard_info.as_ref().is_none_or(|shard| shard.labels.len() <= 1000)
                && hints.grouping.is_none_or(|grouping| grouping.labels.len() <= 1000)
                && hints.projection_labels.len() <= 1000
        };
        match (checked, decoded) {
            (Ok(()), Ok(request)) => prop_assert!(within(&request)),
            (Err(status), Ok(request)) => prop_assert!(
                !within(&request) && status.code() == Code::InvalidArgument, "{status}"
            ),
            // Text that is not UTF-8, a field of another type: a decoder knows more.
            (_, Err(_)) => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_come_whole_gives_its_memory_back() {
    let request_limits = request_limits();
    let first = framed(&[0; 500_000])[..100_000].to_vec();
    let endless = stream::iter([Ok::<_, Status>(http_body::Frame::data(first.into()))]).chain(stream::pending());
    let mut admitted = std::pin::pin!(request_limits.admit(SERIES, Body::new(StreamBody::new(endless))));
    assert!(futures_util::poll!(admitted.as_mut()).is_pending());
    assert!(request_limits.budget.used() >= 100_000);
    assert_eq!(admitted.await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(request_limits.budget.used(), 0);
}
