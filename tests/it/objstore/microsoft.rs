//! Azure's store by its wire: what goes wrong, and what a real one is not seen to do.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use md5::{Digest as _, Md5};
use narthex::objstore::{ErrorKind, Scope};

use super::{
    content, limits, open,
    scripted::{Act, Server, answer, refusal},
    stores::Store,
    unlinked,
};

fn yaml(server: &Server) -> String {
    Store::Azure.yaml(&server.host, &[])
}

fn md5(bytes: &[u8]) -> String {
    STANDARD.encode(Md5::digest(bytes))
}

fn created() -> Act {
    answer("201 Created", "etag: \"1\"\r\n", "")
}

#[tokio::test]
async fn a_body_that_was_damaged_is_sent_again() {
    let server = Server::start(|_, number| match number {
        1 => refusal(
            "400 Bad Request",
            "Md5Mismatch",
            "The MD5 value specified in the request did not match",
        ),
        _ => created(),
    })
    .await;
    let bucket = open(&yaml(&server), limits()).await;
    let all = content(100_000);
    bucket.put_file("01/index", &unlinked(&all)).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    for request in &seen {
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("PUT", "/acc/thanos/01/index")
        );
        assert_eq!(request.header("content-md5"), md5(&all));
        assert_eq!(request.header("x-ms-blob-type"), "BlockBlob");
        assert!(request.header("authorization").starts_with("SharedKey acc:"));
    }
    let server = Server::start(|_, _| refusal("400 Bad Request", "Md5Mismatch", "always")).await;
    let bucket = open(&yaml(&server), limits()).await;
    let error = bucket.put_bytes("x", Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!((error.kind, server.seen().len()), (ErrorKind::Integrity, 2), "{error}");
}

#[tokio::test]
async fn what_the_store_acknowledges_is_compared() {
    let server = Server::start(|_, _| answer("201 Created", "content-md5: AAAAAAAAAAAAAAAAAAAAAA==\r\n", "")).await;
    let bucket = open(&yaml(&server), limits()).await;
    let error = bucket.put_bytes("x", Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
}

#[tokio::test]
async fn a_large_file_travels_in_blocks_that_are_put_together_in_their_order() {
    const BLOCK: usize = 16 << 20;
    let server = Server::start(|_, _| created()).await;
    let bucket = open(&yaml(&server), limits()).await;
    let all = content(2 * BLOCK + 5);
    bucket.put_file("01/chunks/000001", &unlinked(&all)).await.unwrap();
    assert_eq!(bucket.requests_for(all.len() as u64), 4);
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    let name = |target: &str| {
        target
            .split_once("&blockid=")
            .map(|(_, name)| name.replace("%3D", "=").replace("%2F", "/").replace("%2B", "+"))
    };
    let (list, mut blocks) = (&seen[3], seen[..3].to_vec());
    assert_eq!(list.target, "/acc/thanos/01/chunks/000001?comp=blocklist");
    assert_eq!(list.header("content-md5"), md5(&list.body));
    let text = String::from_utf8(list.body.clone()).unwrap();
    blocks.sort_by_key(|block| text.find(&name(&block.target).unwrap()));
    assert!(
        blocks
            .iter()
            .all(|block| block.target.starts_with("/acc/thanos/01/chunks/000001?comp=block&"))
    );
    assert!(
        blocks
            .iter()
            .all(|block| block.header("content-md5") == md5(&block.body))
    );
    let together: Vec<u8> = blocks.iter().flat_map(|block| block.body.clone()).collect();
    assert!(together == all, "the list has them in their order");
    assert_eq!(text.matches("<Latest>").count(), 3);
}

#[tokio::test]
async fn of_a_file_that_breaks_nothing_is_put_together() {
    let server = Server::start(|request, _| match request.target.contains("comp=block&") {
        true => refusal("403 Forbidden", "AuthorizationPermissionMismatch", "no"),
        false => created(),
    })
    .await;
    let bucket = open(&yaml(&server), limits()).await;
    let error = bucket.put_file("x", &unlinked(&content(17 << 20))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Forbidden, "{error}");
    assert!(error.to_string().contains("Storage Blob Data Contributor"), "{error}");
    assert!(
        server
            .seen()
            .iter()
            .all(|request| !request.target.contains("blocklist"))
    );
}

#[tokio::test]
async fn what_another_program_left_behind_is_told_and_not_tried_again_and_again() {
    let server = Server::start(|_, _| {
        refusal(
            "400 Bad Request",
            "InvalidBlobOrBlock",
            "The specified blob or block is invalid.",
        )
    })
    .await;
    let bucket = open(&yaml(&server), limits()).await;
    let error = bucket.put_file("x", &unlinked(&content(17 << 20))).await.unwrap_err();
    assert_eq!(
        (error.kind, error.scope()),
        (ErrorKind::Refused, Scope::Object),
        "{error}"
    );
    assert!(error.to_string().contains("goes after a week"), "{error}");
    assert!(server.seen().len() <= 2);
}

#[tokio::test]
async fn the_cause_of_a_refused_signature_is_shown_and_what_was_signed_is_not() {
    let body = "<Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate the request.</Message>\
                <AuthenticationErrorDetail>Request date header too old: x. Server used following string to sign: 'PUT hunter2'.\
                </AuthenticationErrorDetail></Error>";
    let server = Server::start(move |_, _| answer("403 Forbidden", "", body)).await;
    let bucket = open(&yaml(&server), limits()).await;
    let error = bucket.get("x", 10).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
    let said = error.to_string();
    assert!(
        said.contains("date header too old") && said.contains("clock") && !said.contains("hunter2"),
        "{said}"
    );
    assert_eq!(server.seen().len(), 1, "a key does not change");
}

#[tokio::test]
async fn blocks_that_another_writer_took_away_are_sent_once_more() {
    for heals in [true, false] {
        let lists = std::sync::atomic::AtomicUsize::new(0);
        let server = Server::start(move |request, _| match request.target.contains("comp=blocklist") {
            true if !heals || lists.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 => refusal(
                "400 Bad Request",
                "InvalidBlockList",
                "The specified block list is invalid.",
            ),
            _ => created(),
        })
        .await;
        let bucket = open(&yaml(&server), limits()).await;
        let sent = bucket.put_file("x", &unlinked(&content(17 << 20))).await;
        assert_eq!(
            sent.as_ref().err().map(|error| error.kind),
            (!heals).then_some(ErrorKind::Integrity),
            "{sent:?}"
        );
        let seen = server.seen();
        let mut names: Vec<&str> = seen
            .iter()
            .filter_map(|request| request.target.split_once("blockid="))
            .map(|(_, name)| name)
            .collect();
        assert_eq!(names.len(), 4, "{heals}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 4, "each time under names of its own");
        assert!(seen.len() <= 8, "{heals}: {} requests", seen.len());
    }
}

#[tokio::test]
async fn only_a_container_that_is_not_there_counts_as_empty() {
    let page = |next: &str| format!("<EnumerationResults><Blobs/><NextMarker>{next}</NextMarker></EnumerationResults>");
    for (status, code, create, second_page, kind) in [
        ("404 Not Found", "ContainerNotFound", true, false, None),
        (
            "404 Not Found",
            "ContainerNotFound",
            false,
            false,
            Some(ErrorKind::NoBucket),
        ),
        (
            "404 Not Found",
            "ContainerNotFound",
            true,
            true,
            Some(ErrorKind::NoBucket),
        ),
        (
            "404 Not Found",
            "ResourceNotFound",
            true,
            false,
            Some(ErrorKind::NotFound),
        ),
        ("404 Not Found", "", true, false, Some(ErrorKind::NotFound)),
        (
            "403 Forbidden",
            "ContainerDisabled",
            true,
            false,
            Some(ErrorKind::Forbidden),
        ),
        (
            "409 Conflict",
            "ContainerBeingDeleted",
            true,
            false,
            Some(ErrorKind::Server),
        ),
    ] {
        let first = page("more");
        let server = Server::start(
            move |request, _| match second_page && !request.target.contains("marker=") {
                true => answer("200 OK", "", &first),
                false => refusal(status, code, "no"),
            },
        )
        .await;
        let more = format!("storage_create_container: {create}");
        let bucket = open(&Store::Azure.yaml(&server.host, &[&more, "max_retries: 1"]), limits()).await;
        let listed = bucket.list("").await;
        assert_eq!(
            listed.as_ref().err().map(|error| error.kind),
            kind,
            "{code} {create}: {listed:?}"
        );
    }
}

#[tokio::test]
async fn a_container_that_could_not_be_made_is_not_said_to_be_made() {
    for (status, code) in [
        ("409 Conflict", "ContainerBeingDeleted"),
        ("403 Forbidden", "AuthorizationFailure"),
        ("200 OK", ""),
    ] {
        let server = Server::start(move |request, _| match request.target.contains("restype=container") {
            true => refusal(status, code, "no"),
            false => refusal(
                "404 Not Found",
                "ContainerNotFound",
                "The specified container does not exist.",
            ),
        })
        .await;
        let bucket = open(&Store::Azure.yaml(&server.host, &["max_retries: 1"]), limits()).await;
        let error = bucket.put_bytes("x", Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoBucket, "{error}");
        assert!(
            error.to_string().contains("it could not be made: ") && error.to_string().contains(code),
            "{error}"
        );
        assert_eq!(server.seen().len(), 2, "{code}");
    }
}
