//! Compressed calls, from bytes that were not made by the code under test, and read by other code.

use std::io::{Read as _, Write as _};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use narthex::pb::thanos::info::InfoResponse;
use prost::Message as _;

use super::{
    INFO, METADATA, Rig, ask,
    client::{Answer, body, framed},
    fake::mixed,
};

/// A `MetricMetadataRequest` with "mixed " 8 times without the last space, and limit 3; made with
/// github.com/golang/snappy v1.0.0 (`NewBufferedWriter`) and Go's compress/gzip.
const SNAPPY: &str = "ff060000734e6150705900140000641e39c3331c0a2f6d6978656420a20600041003";
const GZIP: &str = "1f8b08000000000000ffe2d2cfcdac484d51209a146006040000fffff88c07b833000000";

const RESOURCE_EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn zipped(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn plain(codec: &str, message: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    match codec {
        "snappy" => snap::read::FrameDecoder::new(message).read_to_end(&mut content),
        _ => GzDecoder::new(message).read_to_end(&mut content),
    }
    .unwrap();
    content
}

fn encoding(answer: &Answer) -> Option<&str> {
    answer.headers.get("grpc-encoding").map(|name| name.to_str().unwrap())
}

#[tokio::test]
async fn the_answer_is_compressed_as_the_request_was() {
    let rig = Rig::plain().await;
    let mut raw = rig.raw().await;
    let wanted: Vec<Vec<u8>> = mixed(3).iter().map(|message| message.encode_to_vec()).collect();
    for (codec, request) in [("snappy", SNAPPY), ("gzip", GZIP)] {
        let request = framed(1, &bytes(request));
        let answer = raw.call(METADATA, &[("grpc-encoding", codec)], request).await;
        assert_eq!(
            (answer.code(), encoding(&answer)),
            (0, Some(codec)),
            "{:?}",
            answer.trailers
        );
        let messages = answer.messages();
        assert_eq!(messages.len(), wanted.len());
        for ((flag, message), wanted) in messages.iter().zip(&wanted) {
            if wanted.is_empty() {
                assert_eq!((*flag, message.len()), (0, 0), "an empty message is not compressed");
            } else {
                assert_eq!(*flag, 1);
                assert!(plain(codec, message) == *wanted);
                assert!(wanted.len() < 1000 || message.len() < wanted.len() / 5);
            }
        }
    }
    assert_eq!(rig.metadata_value("grpc_server_msg_received_total"), 2.0);
    assert_eq!(rig.metadata_value("grpc_server_msg_sent_total"), 24.0);
    rig.stop().await;
}

#[tokio::test]
async fn an_empty_request_that_names_a_codec_is_answered_in_it() {
    let rig = Rig::plain().await;
    let mut raw = rig.raw().await;
    for codec in ["snappy", "gzip"] {
        let answer = raw.call(INFO, &[("grpc-encoding", codec)], framed(0, &[])).await;
        assert_eq!((answer.code(), encoding(&answer)), (0, Some(codec)));
        let (flag, message) = answer.messages().pop().unwrap();
        assert_eq!(flag, 1);
        let info = InfoResponse::decode(&plain(codec, &message)[..]).unwrap();
        assert_eq!(info.component_type, "sidecar");
    }
    rig.stop().await;
}

#[tokio::test]
async fn what_a_client_could_read_is_no_reason_to_compress() {
    let rig = Rig::plain().await;
    let accepts = [("grpc-accept-encoding", "snappy,gzip"), ("grpc-encoding", "identity")];
    for headers in [&accepts[..], &accepts[..1]] {
        let answer = rig.raw().await.call(METADATA, headers, body(&ask("mixed", 1))).await;
        assert_eq!((answer.code(), encoding(&answer)), (0, None));
        assert!(answer.messages().iter().all(|(flag, _)| *flag == 0));
    }
    rig.stop().await;
}

#[tokio::test]
async fn errors_pass_in_a_compressed_answer() {
    let rig = Rig::plain().await;
    let mut raw = rig.raw().await;
    let snappy = [("grpc-encoding", "snappy")];
    let answer = raw.call(METADATA, &snappy, body(&ask("fail", 0))).await;
    assert_eq!((answer.code(), answer.messages().len()), (10, 1));
    assert_eq!(answer.message(), "in the middle");
    let answer = raw.call(METADATA, &snappy, body(&ask("nothing", 0))).await;
    assert_eq!((answer.code(), answer.body.len()), (5, 0));
    rig.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let rig = Rig::plain().await;
    let mut raw = rig.raw().await;
    let answer = raw.call(INFO, &[("grpc-encoding", "zstd")], framed(0, &[])).await;
    assert_eq!(answer.code(), UNIMPLEMENTED);
    assert_eq!(
        answer.message(),
        "grpc: Decompressor is not installed for grpc-encoding \"zstd\""
    );
    for (codec, request) in [("snappy", GZIP), ("gzip", SNAPPY)] {
        let answer = raw
            .call(METADATA, &[("grpc-encoding", codec)], framed(1, &bytes(request)))
            .await;
        assert_eq!(answer.code(), INTERNAL, "{answer:?}");
    }
    // 100 MiB in 100 KiB.
    let bomb = zipped(&vec![0; 100 << 20]);
    let answer = raw.call(METADATA, &[("grpc-encoding", "gzip")], framed(1, &bomb)).await;
    assert_eq!(answer.code(), RESOURCE_EXHAUSTED, "{:?}", answer.headers);
    // The length alone is refused: nothing of the message has come.
    let answer = raw
        .call(METADATA, &[("grpc-encoding", "gzip")], vec![1, 0xff, 0xff, 0xff, 0xff])
        .await;
    assert_eq!(answer.code(), RESOURCE_EXHAUSTED);
    // Cut in the middle.
    let mut cut = framed(1, &bytes(SNAPPY));
    cut.truncate(20);
    let answer = raw.call(METADATA, &[("grpc-encoding", "snappy")], cut).await;
    assert_eq!(answer.code(), INTERNAL, "{:?}", answer.headers);
    rig.stop().await;
}
