//! `--http.config`, asked by real clients: TLS, clients' certificates, passwords, headers, and files that change.

mod certificates;
mod program;

use std::{path::Path, sync::Arc, time::Duration};

use fs_err as fs;
use narthex::ops::{
    connections,
    http::{self, Limits, Pages},
    probe::Probe,
    web::Web,
};
use prometheus_client::registry::Registry;
use reqwest::{StatusCode, header::HeaderMap};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::certificates::Ca;
use crate::rig::wait_until;

const SOON: Duration = Duration::from_secs(30);

/// Made by libxcrypt, of `open sesame` and `open barley`.
const SESAME: &str = "$2b$04$aIK0/fg5w3bUDcLZ9qhH2OUicn3hBHaSoD31IbNqLGf9bLp7QClua";

/// An HTTP server with a file for `--http.config` in a directory of its own.
struct Rig {
    dir: TempDir,
    address: std::net::SocketAddr,
    token: CancellationToken,
    _served: JoinHandle<()>,
}

impl Rig {
    async fn start(dir: TempDir, yaml: &str) -> Rig {
        Rig::start_limited(dir, yaml, Limits::default()).await
    }

    async fn start_limited(dir: TempDir, yaml: &str, limits: Limits) -> Rig {
        crate::rig::limit::begin();
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let path = dir.path().join("web.yml");
        fs::write(&path, yaml).unwrap();
        let mut registry = Registry::default();
        let pages = Pages {
            probe: Probe::register("sidecar", &mut registry),
            connections: connections::Metrics::register(&mut registry),
            registry: Arc::new(Registry::default()),
            running: None,
            shipping: "off: this is a test".to_owned(),
            web: Some(Web::load(&path).unwrap()),
            more: None,
        };
        let server = http::bind("127.0.0.1:0", "--http-address").await.unwrap();
        let (address, token) = (server.local_address(), CancellationToken::new());
        let served = server.serve(pages, limits, token.clone(), SOON);
        Rig {
            dir,
            address,
            token,
            _served: tokio::spawn(served),
        }
    }

    /// A server with TLS, and this more in `tls_server_config` and below.
    async fn with_tls(ca: &Ca, more: &str) -> Rig {
        let dir = TempDir::new().unwrap();
        ca.write_pair(dir.path());
        let yaml = format!("tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n{more}");
        Rig::start(dir, &yaml).await
    }

    /// A server with TLS and these limits.
    async fn limited(ca: &Ca, limits: Limits) -> Rig {
        let dir = TempDir::new().unwrap();
        ca.write_pair(dir.path());
        let yaml = "tls_server_config: {cert_file: tls.crt, key_file: tls.key}\n";
        Rig::start_limited(dir, yaml, limits).await
    }

    fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://localhost:{}{path}", self.address.port())
    }

    fn write(&self, yaml: &str) {
        fs::write(self.dir.path().join("web.yml"), yaml).unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

fn client() -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder().no_proxy().timeout(SOON).tls_certs_only([]);
    // Each request has a connection of its own, and so a handshake.
    builder.pool_max_idle_per_host(0)
}

/// Status, headers and body of a GET with user and password.
async fn get(url: &str, login: Option<(&str, &str)>) -> (StatusCode, HeaderMap, String) {
    let mut request = client().build().unwrap().get(url);
    if let Some((user, password)) = login {
        request = request.basic_auth(user, Some(password));
    }
    let answer = request.send().await.unwrap();
    (answer.status(), answer.headers().clone(), answer.text().await.unwrap())
}

#[tokio::test]
async fn every_path_asks_for_user_and_password() {
    let yaml = format!("basic_auth_users:\n  ali: {SESAME}\n  cassim: {SESAME}\n");
    let rig = Rig::start(TempDir::new().unwrap(), &yaml).await;
    for path in ["/metrics", "/-/healthy", "/-/ready", "/debug/calls", "/nowhere"] {
        let url = rig.url("http", path);
        for login in [
            None,
            Some(("ali", "wrong")),
            Some(("nobody", "open sesame")),
            Some(("", "")),
        ] {
            let (status, headers, body) = get(&url, login).await;
            assert_eq!(
                (status.as_u16(), body.as_str()),
                (401, "Unauthorized\n"),
                "{path} {login:?}"
            );
            assert_eq!(headers["www-authenticate"], "Basic");
        }
        for user in ["ali", "cassim"] {
            let (status, headers, _) = get(&url, Some((user, "open sesame"))).await;
            assert_ne!(status.as_u16(), 401, "{path}");
            assert!(!headers.contains_key("www-authenticate"));
        }
    }
}

#[tokio::test]
async fn every_answer_has_the_headers() {
    let yaml = format!(
        "http_server_config:\n  headers:\n    x-frame-options: deny\n    X-Content-Type-Options: nosniff\n    \
         X-XSS-Protection: ''\n    Content-Security-Policy: default-src 'self'\nbasic_auth_users: {{ali: {SESAME}}}\n"
    );
    let rig = Rig::start(TempDir::new().unwrap(), &yaml).await;
    for (path, login) in [
        ("/metrics", Some(("ali", "open sesame"))),
        ("/", None),
        ("/-/healthy", None),
    ] {
        let (_, headers, _) = get(&rig.url("http", path), login).await;
        assert_eq!(headers["x-frame-options"], "deny");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["content-security-policy"], "default-src 'self'");
        assert!(!headers.contains_key("x-xss-protection"), "it has no value");
    }
}

#[tokio::test]
async fn beyond_the_rate_requests_are_refused() {
    let yaml = "rate_limit: {interval: 1h, burst: 3}\n";
    let rig = Rig::start(TempDir::new().unwrap(), yaml).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(get(&rig.url("http", "/-/healthy"), None).await.0.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}

#[tokio::test]
async fn a_changed_file_is_used_and_a_wrong_one_leaves_what_was() {
    let user = |name: &str| format!("basic_auth_users:\n  {name}: {SESAME}\n");
    let rig = Rig::start(TempDir::new().unwrap(), &user("ali")).await;
    let url = rig.url("http", "/-/healthy");
    let allowed = async |name: &str| get(&url, Some((name, "open sesame"))).await.0 == StatusCode::OK;
    assert!(allowed("ali").await && !allowed("morgiana").await);
    rig.write(&user("morgiana"));
    wait_until(SOON, "the new user", async || allowed("morgiana").await.then_some(())).await;
    assert!(!allowed("ali").await);
    rig.write("basic_auth_users: {ali: plain}\n");
    assert!(allowed("morgiana").await && !allowed("ali").await);
    rig.write(&user("ali"));
    wait_until(SOON, "the user of before", async || allowed("ali").await.then_some(())).await;
}

#[tokio::test]
async fn who_does_not_use_tls_where_it_is_needed_is_told() {
    let rig = Rig::with_tls(&Ca::new(), "").await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    timeout(SOON, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{text}");
    assert!(
        text.ends_with("Client sent an HTTP request to an HTTPS server.\n"),
        "{text}"
    );
}

/// Whether the files of a directory are those of `--http.config` that can be used.
fn refused(dir: &Path, yaml: &str) -> String {
    let path = dir.join("web.yml");
    fs::write(&path, yaml).unwrap();
    Web::load(&path).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_is_told_by_file_and_key() {
    let dir = TempDir::new().unwrap();
    Ca::new().write_pair(dir.path());
    let pair = "cert_file: tls.crt, key_file: tls.key";
    let table = [
        (
            "basic_auth_users: {ali: secret}",
            "basic_auth_users.ali: this is no hash of bcrypt",
        ),
        (
            "tls_server_config: {cert_file: tls.crt}",
            "tls_server_config.key_file: there is none",
        ),
        (
            "tls_server_config: {key_file: tls.key}",
            "tls_server_config.cert_file: there is none",
        ),
        ("tls_server_config: {cert_file: no.crt, key_file: tls.key}", "no.crt"),
        (
            "tls_server_config: {cert_file: tls.key, key_file: tls.key}",
            "no certificate in PEM",
        ),
        (
            "tls_server_config: {cert_file: tls.crt, key_file: tls.crt}",
            "no private key in PEM",
        ),
        (
            &format!("tls_server_config: {{{pair}, client_auth_type: Never}}"),
            "tls_server_config.client_auth_type: \"Never\" is none; expected NoClientCert, RequestClientCert",
        ),
        (
            &format!("tls_server_config: {{{pair}, client_auth_type: RequireAndVerifyClientCert}}"),
            "tls_server_config.client_ca_file: this client_auth_type needs the CA",
        ),
        (
            &format!("tls_server_config: {{{pair}, client_ca_file: tls.crt}}"),
            "tls_server_config.client_auth_type: there is a client CA, and no certificate is asked for",
        ),
        (
            &format!("tls_server_config: {{{pair}, min_version: TLS13, max_version: TLS12}}"),
            "tls_server_config.max_version: it is below min_version",
        ),
        (
            &format!("tls_server_config: {{{pair}, max_version: TLS11, min_version: TLS10}}"),
            "tls_server_config.max_version: TLS 1.0 and 1.1 are not supported",
        ),
        (
            &format!("tls_server_config: {{{pair}, cipher_suites: [RC4]}}"),
            "tls_server_config.cipher_suites: unknown name \"RC4\"; expected some of TLS_AES_128_GCM_SHA256",
        ),
        (
            &format!("tls_server_config: {{{pair}, curve_preferences: [P256]}}"),
            "tls_server_config.curve_preferences: unknown name \"P256\"",
        ),
        (
            "http_server_config: {headers: {X-Evil: 1}}",
            "http_server_config.headers.X-Evil: this header cannot be set; those that can are Content-Security-Policy",
        ),
        (
            "http_server_config: {headers: {X-Frame-Options: maybe}}",
            "http_server_config.headers.X-Frame-Options: \"maybe\" is no value of it; expected deny or sameorigin",
        ),
        (
            "rate_limit: {interval: 1s}",
            "rate_limit.burst: 0 means that nothing is ever answered",
        ),
        ("rate_limit: {interval: soon, burst: 1}", "rate_limit.interval"),
        ("nonsense: 1", "nonsense"),
        ("basic_auth_users: [", "line"),
    ];
    for (yaml, expected) in table {
        let error = refused(dir.path(), yaml);
        assert!(
            error.starts_with("--http.config: ") && error.contains("web.yml"),
            "{error}"
        );
        assert!(error.contains(expected), "{yaml}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let missing = Web::load(&dir.path().join("none.yml")).unwrap_err().to_string();
    assert!(
        missing.starts_with("--http.config: ") && missing.contains("none.yml"),
        "{missing}"
    );
    for fine in ["", "{}\n", "rate_limit: {interval: 0s, burst: 0}\n"] {
        fs::write(dir.path().join("web.yml"), fine).unwrap();
        Web::load(&dir.path().join("web.yml")).unwrap_or_else(|error| panic!("{fine:?}: {error}"));
    }
}
