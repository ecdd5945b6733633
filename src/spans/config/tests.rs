use super::*;

fn nothing(_: &str) -> Option<String> {
    None
}

fn parse(yaml: &str) -> Config {
    let parsed = Config::parse(yaml, nothing).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    parsed.unwrap_or_else(|| panic!("{yaml}: nothing"))
}

fn otlp(config: &str) -> Config {
    parse(&format!("type: OTLP\nconfig: {{client_type: grpc, {config}}}"))
}

fn refused(yaml: &str, part: &str) {
    let error = Config::parse(yaml, nothing).unwrap_err().to_string();
    assert!(error.contains(part) && !error.contains("hunter2"), "{yaml}: {error}");
}

/// The block of Thanos' documentation, with every key set.
const ALL: &str = r#"
type: OTLP
config:
  client_type: "http"
  service_name: "thanos-sidecar"
  resource_attributes: {cluster: eu1, empty: }
  reconnection_period: 5s
  compression: "gzip"
  insecure: true
  endpoint: "otel:4318"
  url_path: "/otlp/v1/traces"
  timeout: 2s
  retry_config:
    retry_enabled: true
    retry_initial_interval: 1s
    retry_max_interval: 1000000000
    retry_max_elapsed_time: 1m
  headers: {authorization: Bearer hunter2}
  tls_config:
    ca_file: "/ca"
    cert_file: "/cert"
    key_file: "/key"
    server_name: "collector"
    insecure_skip_verify: true
  sampler_type: "parentbasedtraceidratiobased"
  sampler_param: "0.25"
"#;

#[test]
fn every_key_of_thanos_is_read() {
    let config = parse(ALL);
    assert_eq!(config.protocol, Protocol::Http);
    assert_eq!(config.url.as_str(), "http://otel:4318/otlp/v1/traces");
    assert_eq!(config.service_name.as_deref(), Some("thanos-sidecar"));
    let attributes = [("cluster", "eu1"), ("empty", "")];
    assert_eq!(
        config.resource_attributes,
        attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    );
    assert!(config.gzip);
    assert_eq!(config.timeout, Duration::from_secs(2));
    let second = Some(Duration::from_secs(1));
    let retry = Retry {
        initial: second,
        longest: second,
        total: Some(Duration::from_secs(60)),
    };
    assert_eq!(config.retry, retry);
    assert_eq!(config.headers["authorization"], "Bearer hunter2");
    let tls = ClientFiles {
        ca_file: Some("/ca".into()),
        identity: Some(("/cert".into(), "/key".into())),
        server_name: Some("collector".into()),
        insecure_skip_verify: true,
    };
    assert_eq!(config.tls, tls);
    assert_eq!(format!("{:?}", config.sampler), "ParentBased(TraceIdRatioBased(0.25))");
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn empty_values_are_defaults_as_in_the_documented_block() {
    for yaml in ["", " \n", "# nothing\n", "~"] {
        assert!(Config::parse(yaml, nothing).unwrap().is_none(), "{yaml:?}");
    }
    let config = otlp(
        "service_name: '', resource_attributes: {}, reconnection_period: 0s, compression: '', insecure: false, \
         endpoint: '', url_path: '', timeout: 0s, retry_config: {retry_enabled: false, retry_initial_interval: 0s}, \
         headers: {}, tls_config: {ca_file: ''}, sampler_type: '', sampler_param: ''",
    );
    assert_eq!(config.url.as_str(), "https://localhost:4317/");
    assert_eq!((config.timeout, config.gzip), (Duration::from_secs(10), false));
    assert_eq!((config.service_name, config.tls), (None, ClientFiles::default()));
    assert_eq!(config.retry, Retry::default());
    assert_eq!(format!("{:?}", config.sampler), "ParentBased(TraceIdRatioBased(1.0))");
    let http = parse("type: otlp\nconfig: {client_type: http}");
    assert_eq!(http.url.as_str(), "https://localhost:4318/v1/traces");
}

#[test]
fn addresses_are_those_of_the_configuration_then_of_the_environment() {
    for (config, wanted) in [
        ("endpoint: 'c:1'", "https://c:1/"),
        ("endpoint: 'c:1', insecure: true", "http://c:1/"),
        // A scheme says it, too; Thanos takes none there.
        ("endpoint: 'http://c:1'", "http://c:1/"),
        ("endpoint: '[::1]:4317', insecure: true", "http://[::1]:4317/"),
        ("endpoint: 'c:1', url_path: /x", "https://c:1/"),
    ] {
        assert_eq!(otlp(config).url.as_str(), wanted, "{config}");
    }
    let both: fn(&str) -> Option<String> = |name| match name {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => Some("http://traces:1/mine".to_owned()),
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://all:2/below".to_owned()),
        _ => None,
    };
    let general: fn(&str) -> Option<String> =
        |name| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| "http://all:2/below".to_owned());
    for (env, kind, config, wanted) in [
        (both, "http", "", "http://traces:1/mine"),
        (general, "http", "", "http://all:2/below/v1/traces"),
        (general, "grpc", "", "http://all:2/"),
        (both, "http", "endpoint: 'c:3'", "https://c:3/v1/traces"),
    ] {
        let yaml = format!("type: OTLP\nconfig: {{client_type: {kind}, {config}}}");
        let config = Config::parse(&yaml, env).unwrap().unwrap();
        assert_eq!(config.url.as_str(), wanted, "{yaml}");
    }
}

#[test]
fn samplers_are_those_of_thanos() {
    for (kind, parameter, wanted) in [
        ("AlwaysSample", "", "AlwaysOn"),
        ("neversample", "", "AlwaysOff"),
        ("traceidratiobased", "0.5", "TraceIdRatioBased(0.5)"),
        ("parentbasedalwayssample", "", "ParentBased(AlwaysOn)"),
        ("parentbasedneversample", "", "ParentBased(AlwaysOff)"),
        (
            "parentbasedtraceidratiobased",
            "0",
            "ParentBased(TraceIdRatioBased(0.0))",
        ),
    ] {
        let config = otlp(&format!("sampler_type: {kind}, sampler_param: '{parameter}'"));
        assert_eq!(format!("{:?}", config.sampler), wanted);
        assert!(config.warnings().is_empty(), "{kind}: {:?}", config.warnings());
    }
    for (kind, parameter, wanted, part) in [
        ("sometimes", "", "ParentBased(TraceIdRatioBased(1.0))", "sampler_type"),
        ("traceidratiobased", "half", "TraceIdRatioBased(1.0)", "sampler_param"),
        ("traceidratiobased", "2", "TraceIdRatioBased(1.0)", "sampler_param"),
    ] {
        let config = otlp(&format!("sampler_type: {kind}, sampler_param: '{parameter}'"));
        assert_eq!(format!("{:?}", config.sampler), wanted);
        let warnings = config.warnings();
        assert!(matches!(warnings, [one] if one.contains(part)), "{kind}: {warnings:?}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_and_what_thanos_ignores_is_warned_of() {
    for (kind, part) in [
        ("JAEGER", "port 4317"),
        ("google_cloud", "Collector"),
        ("STACKDRIVER", "Collector"),
        ("ELASTIC_APM", "port 8200"),
        ("LIGHTSTEP", "lightstep-access-token"),
    ] {
        let yaml = format!("type: {kind}\nconfig: {{service_name: x}}");
        refused(&yaml, part);
        refused(&yaml, "type: OTLP, config: {client_type: grpc");
    }
    refused("type: ZIPKIN", "\"ZIPKIN\" is not known");
    refused("config: {client_type: grpc}", "type is missing");
    refused("type: OTLP", "client_type must be grpc or http");
    refused("type: OTLP\nconfig: {client_type: hunter2}", "client_type");
    refused("type: OTLP\nkonfig: {}", "konfig");
    refused("type: [", "");
    for (config, part) in [
        ("timeout: soon", "config.timeout"),
        ("timeout: -1s", "config.timeout must not be negative"),
        (
            "retry_config: {retry_max_interval: x}",
            "config.retry_config.retry_max_interval",
        ),
        ("headers: {'a b': x}", "config.headers: \"a b\""),
        ("headers: {a: \"hunter2\\n\"}", "the value of a"),
        ("tls_config: {cert_file: /x}", "config.tls_config.key_file"),
        ("tls_config: {key_file: /x}", "config.tls_config.cert_file"),
        ("endpoint: 'unix:///run/otel'", "config.endpoint"),
        ("endpoint: 'http://me:hunter2@c:1'", "config.headers"),
        ("endpoint: 'a b:1'", "config.endpoint"),
    ] {
        refused(&format!("type: OTLP\nconfig: {{client_type: grpc, {config}}}"), part);
    }
    let config = otlp("compression: zstd, extra: 1, tls_config: {min_version: TLS12}");
    for part in ["config.compression", "config.extra", "config.tls_config.min_version"] {
        assert!(
            config.warnings().iter().any(|line| line.contains(part)),
            "{part}: {:?}",
            config.warnings()
        );
    }
    assert!(!config.gzip);
}
