use futures_util::TryStreamExt;
use prometheus_client::encoding::text::encode;

use super::*;
use crate::objstore::{
    Op,
    layers::{Fault, Faulty},
};

/// A bucket that takes anything and holds one object.
#[derive(Debug)]
struct Empty;

#[async_trait]
impl Bucket for Empty {
    fn name(&self) -> &str {
        "fs: /a \"b\""
    }

    fn identity(&self) -> &str {
        "file:///a"
    }

    async fn put_file(&self, _: &str, _: &Source) -> Result<(), Error> {
        Ok(())
    }

    async fn put_bytes(&self, _: &str, _: Bytes) -> Result<(), Error> {
        Ok(())
    }

    async fn put_stream(&self, _: &str, pieces: Pieces<'_>, _: u64) -> Result<u64, Error> {
        let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
        Ok(pieces.concat().len() as u64)
    }

    async fn get(&self, _: &str, _: u64) -> Result<Bytes, Error> {
        Ok(Bytes::from_static(b"abc"))
    }

    async fn read(&self, _: &str, _: u64) -> Result<Reading, Error> {
        let piece = stream::once(async { Ok(Bytes::from_static(b"abc")) });
        Ok(Reading {
            len: 3,
            pieces: piece.boxed(),
        })
    }

    async fn compare(&self, _: &str, _: &Source) -> Result<Comparison, Error> {
        Ok(Comparison::Absent)
    }

    async fn list(&self, _: &str) -> Result<Vec<Object>, Error> {
        Ok(Vec::new())
    }

    async fn list_top(&self, _: &str, _: NameFilter) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    async fn stat(&self, _: &str) -> Result<Option<u64>, Error> {
        Ok(None)
    }

    async fn abort_stale(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn remove(&self, _: &CanaryKey) -> Result<(), Error> {
        Ok(())
    }

    async fn settle(&self) {}
}

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

fn bucket() -> (Arc<Faulty>, Metered, Registry) {
    let mut registry = Registry::default();
    let faulty = Faulty::new(Arc::new(Empty));
    let inner: Arc<dyn Bucket> = Arc::clone(&faulty) as _;
    let metered = Metered::new(inner, &mut registry);
    (faulty, metered, registry)
}

#[test]
fn everything_is_there_from_the_start() {
    let (_, _, registry) = bucket();
    let text = text(&registry);
    let label = r#"bucket="fs: /a \"b\"""#;
    for operation in OPERATIONS {
        let labels = format!(r#"{{{label},operation="{operation}"}} 0"#);
        for name in [
            "operations_total",
            "operation_failures_total",
            "operation_duration_seconds_count",
        ] {
            let line = format!("thanos_objstore_bucket_{name}{labels}");
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let transfers = text.contains(&format!("operation_fetched_bytes_total{labels}"));
        assert_eq!(transfers, TRANSFERS.contains(&operation), "{operation}");
    }
    let last = format!("thanos_objstore_bucket_last_successful_upload_time{{{label}}} 0");
    assert!(text.lines().any(|line| line.starts_with(&last)), "{text}");
    for le in ["32768.0", "1073741824.0"] {
        assert!(text.contains(&format!(
            r#"operation_transferred_bytes_bucket{{{label},le="{le}",operation="get"}}"#
        )));
    }
    for le in [
        "0.001", "0.01", "0.1", "0.3", "0.6", "1.0", "3.0", "6.0", "9.0", "20.0", "30.0", "60.0", "90.0", "120.0",
    ] {
        assert!(text.contains(&format!(
            r#"operation_duration_seconds_bucket{{{label},le="{le}",operation="get"}}"#
        )));
    }
}

#[tokio::test]
async fn what_is_done_is_counted() {
    let (faulty, metered, registry) = bucket();
    let of = |operation| Operation { operation };
    let metrics = &metered.metrics;
    metered.put_bytes("k", Bytes::from_static(b"12345")).await.unwrap();
    metered.get("k", 10).await.unwrap();
    metered.list("k").await.unwrap();
    metered.list_top("k", |_| true).await.unwrap();
    faulty.on(Op::Get, "none", .., Fault::Fail(ErrorKind::NotFound));
    faulty.on(Op::Upload, "local", .., Fault::Fail(ErrorKind::Local));
    faulty.on(Op::Upload, "hang", .., Fault::Hang);
    faulty.on(Op::Upload, "", .., Fault::Fail(ErrorKind::Server));
    metered.get("none", 10).await.unwrap_err();
    metered.put_bytes("k", Bytes::new()).await.unwrap_err();
    metered.put_bytes("local", Bytes::new()).await.unwrap_err();
    let hanging = metered.put_bytes("hang", Bytes::new());
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(1), hanging)
            .await
            .is_err()
    );

    for (operation, begun, failed, timed) in [("upload", 4, 2, 2), ("get", 2, 0, 2), ("iter", 2, 0, 2)] {
        let of = of(operation);
        assert_eq!(metrics.operations.get_or_create(&of).get(), begun, "{operation}");
        assert_eq!(metrics.failures.get_or_create(&of).get(), failed, "{operation}");
        let count = format!(r#"operation="{operation}"}} {timed}"#);
        let text = text(&registry);
        let line = text
            .lines()
            .find(|l| l.contains("duration_seconds_count") && l.ends_with(&count));
        assert!(line.is_some(), "{operation}: {text}");
    }
    assert_eq!(metrics.fetched.get_or_create(&of("get")).get(), 3);
    let text = text(&registry);
    let sent = text
        .lines()
        .find(|l| l.contains("transferred_bytes_sum") && l.contains("upload"))
        .unwrap();
    assert!(sent.ends_with(" 5.0"), "{sent}");
    assert!(metrics.last_upload.get() > 1e9);
}

#[tokio::test]
async fn what_is_made_while_it_is_sent_is_an_upload_with_all_its_bytes() {
    let (faulty, metered, registry) = bucket();
    let pieces = || stream::iter([&b"123"[..], b"", b"4567"].map(|piece| Ok(Bytes::from_static(piece)))).boxed();
    assert_eq!(metered.put_stream("k", pieces(), 7).await.unwrap(), 7);
    faulty.on(Op::Upload, "", .., Fault::Fail(ErrorKind::Server));
    metered.put_stream("k", pieces(), 7).await.unwrap_err();
    let text = text(&registry);
    for (name, value) in [
        ("operations_total", "2"),
        ("operation_failures_total", "1"),
        ("operation_duration_seconds_count", "2"),
        ("operation_transferred_bytes_sum", "7.0"),
        ("operation_transferred_bytes_count", "1"),
    ] {
        let name = format!("thanos_objstore_bucket_{name}{{");
        let line = text.lines().find(|l| l.starts_with(&name) && l.contains("\"upload\""));
        assert_eq!(line.unwrap().rsplit(' ').next().unwrap(), value, "{name}");
    }
    assert!(metered.metrics.last_upload.get() > 1e9);
}

#[tokio::test]
async fn a_reading_is_counted_as_it_goes() {
    let (faulty, metered, registry) = bucket();
    let get_range = Operation { operation: "get_range" };
    let metrics = &metered.metrics;
    let timed = || {
        let text = text(&registry);
        let name = "thanos_objstore_bucket_operation_duration_seconds_count";
        let line = text
            .lines()
            .find(|l| l.starts_with(name) && l.contains("\"get_range\""));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };

    let mut reading = metered.read("k", 0).await.unwrap();
    assert_eq!(reading.pieces.try_next().await.unwrap().unwrap(), "abc");
    assert_eq!(metrics.fetched.get_or_create(&get_range).get(), 3);
    assert_eq!(timed(), "0", "it is not over");
    assert!(reading.pieces.try_next().await.unwrap().is_none());
    assert_eq!(timed(), "1");
    drop(metered.read("k", 0).await.unwrap());
    assert_eq!(timed(), "1", "given up");

    faulty.on(Op::Get, "cut", .., Fault::Truncate);
    faulty.on(Op::Get, "none", .., Fault::Fail(ErrorKind::NotFound));
    faulty.on(Op::Get, "dead", .., Fault::Fail(ErrorKind::Server));
    let reading = metered.read("cut", 0).await.unwrap();
    reading.pieces.try_collect::<Vec<_>>().await.unwrap_err();
    metered.read("none", 0).await.unwrap_err();
    metered.read("dead", 0).await.unwrap_err();
    assert_eq!(metrics.operations.get_or_create(&get_range).get(), 5);
    assert_eq!(metrics.failures.get_or_create(&get_range).get(), 2);
    assert_eq!(metrics.fetched.get_or_create(&get_range).get(), 5);
    assert_eq!(timed(), "4");
    let text = text(&registry);
    let sizes = text
        .lines()
        .find(|l| l.contains("transferred_bytes_sum") && l.contains("get_range"));
    assert!(sizes.unwrap().ends_with(" 3.0"), "only what came whole: {sizes:?}");
}
