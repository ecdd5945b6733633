//! Which host is asked, told by a proxy.

use super::*;
use crate::objstore::transfer::transport::testing::{Authority, proxy};

/// Bucket, endpoint, other keys; host and port that are connected to, and the path.
const CASES: [(&str, &str, &str, &str); 12] = [
    (
        "bucket",
        "s3.amazonaws.com",
        "region: eu-west-1",
        "bucket.s3.dualstack.eu-west-1.amazonaws.com:443 /k",
    ),
    (
        "bucket",
        "s3.eu-west-3.amazonaws.com",
        "",
        "bucket.s3.dualstack.eu-west-3.amazonaws.com:443 /k",
    ),
    (
        "bucket",
        "s3.eu-west-3.amazonaws.com",
        "disable_dualstack: true",
        "bucket.s3.eu-west-3.amazonaws.com:443 /k",
    ),
    (
        "bucket",
        "s3.eu-west-3.amazonaws.com",
        "bucket_lookup_type: path",
        "s3.dualstack.eu-west-3.amazonaws.com:443 /bucket/k",
    ),
    (
        "a.b",
        "s3.eu-west-3.amazonaws.com",
        "",
        "s3.dualstack.eu-west-3.amazonaws.com:443 /a.b/k",
    ),
    (
        "bucket",
        "s3.cn-north-1.amazonaws.com.cn",
        "",
        "bucket.s3.dualstack.cn-north-1.amazonaws.com.cn:443 /k",
    ),
    (
        "bucket",
        "s3-fips.us-east-2.amazonaws.com",
        "",
        "bucket.s3-fips.us-east-2.amazonaws.com:443 /k",
    ),
    (
        "bucket",
        "bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com",
        "",
        "bucket.bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com:443 /k",
    ),
    (
        "bucket",
        "storage.googleapis.com",
        "",
        "bucket.storage.googleapis.com:443 /k",
    ),
    (
        "bucket",
        "oss-cn-beijing.aliyuncs.com",
        "region: oss-cn-beijing",
        "bucket.oss-cn-beijing.aliyuncs.com:443 /k",
    ),
    (
        "bucket",
        "minio.example:9000",
        "region: us-east-1",
        "minio.example:9000 /bucket/k",
    ),
    (
        "bucket",
        "minio.example:9000",
        "region: us-east-1\nbucket_lookup_type: virtual-hosted",
        "bucket.minio.example:9000 /k",
    ),
];

/// Which host a bucket `bucket` (or `a.b`) of an endpoint is asked at, and by which path.
#[tokio::test]
async fn hosts_are_chosen_as_thanos_chooses_them() {
    for (bucket, endpoint, lines, expected) in CASES {
        let authority = Authority::new("any");
        let target = serve(Some(authority.sign("any").server(None)), |seen: Seen| async move {
            answer(200, seen.head.uri.path().to_owned())
        })
        .await;
        let (proxy, notes) = proxy(target).await;
        let config = configured(
            bucket,
            endpoint,
            &format!("{KEYS}\nhttp_config: {{insecure_skip_verify: true}}\n{lines}"),
        );
        let transport = Transport::new(&config.http, false, Proxies::new("", &format!("http://{proxy}"), ""));
        let client = build(&config, transport, credentials::provider(&config, Arc::new(|_| None)));
        let got = client.get_object().bucket(bucket).key("k").send().await;
        let path = got
            .unwrap_or_else(|error| panic!("{endpoint}: {}", DisplayErrorContext(error)))
            .body
            .collect()
            .await;
        let path = String::from_utf8(path.unwrap().to_vec()).unwrap();
        let host = notes.lock().unwrap()[0].split(' ').nth(1).unwrap().to_owned();
        assert_eq!(format!("{host} {path}"), expected, "{endpoint} {lines}");
    }
}

#[tokio::test]
async fn amazon_without_tls_gets_the_same_names() {
    let (proxy, notes) = proxy("127.0.0.1:1".parse().unwrap()).await;
    let config = configured(
        "bucket",
        "s3.eu-west-3.amazonaws.com",
        &format!("{KEYS}\ninsecure: true"),
    );
    let transport = Transport::new(&config.http, false, Proxies::new(&format!("http://{proxy}"), "", ""));
    let client = build(&config, transport, credentials::provider(&config, Arc::new(|_| None)));
    client.get_object().bucket("bucket").key("k").send().await.unwrap();
    let notes = notes.lock().unwrap();
    let start = "GET http://bucket.s3.dualstack.eu-west-3.amazonaws.com/k?x-id=GetObject ";
    assert!(notes[0].starts_with(start), "{notes:?}");
}
