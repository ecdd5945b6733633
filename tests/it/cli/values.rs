//! Values of flags: defaults, limits, and what is refused.

use std::{path::Path, time::Duration};

use narthex::{
    cli::{Command, HashFunc, LogFormat, LogLevel, MinTime, Outcome, ReloadMethod, TlsVersion},
    model::duration::TimeOrDuration,
};

use super::{bad_value, bad_value_of, refused, run, sidecar};
use crate::rig::tools::temp_dir;

#[test]
fn without_flags_every_default_is_that_of_thanos() {
    let flags = sidecar(&["sidecar"]);
    let minutes = |n: u64| Duration::from_secs(60 * n);
    assert_eq!(
        (flags.common.log_level, flags.common.log_format),
        (LogLevel::Info, LogFormat::Logfmt)
    );
    assert_eq!(flags.common.debug_name, "");
    assert!(!flags.common.enable_auto_gomemlimit);
    assert_eq!(flags.common.auto_gomemlimit_ratio, 0.9);
    assert_eq!(
        (flags.http.address.to_string(), flags.http.grace_period),
        ("[::]:10902".to_owned(), minutes(2))
    );
    assert_eq!(
        (flags.grpc.address.to_string(), flags.grpc.grace_period),
        ("[::]:10901".to_owned(), minutes(2))
    );
    assert_eq!(
        (flags.grpc.max_connection_age, flags.grpc.tls_min_version),
        (minutes(60), TlsVersion::V1_3)
    );
    assert!(flags.grpc.tls_ciphers.is_empty() && flags.grpc.tls_curves.is_empty());
    assert_eq!(flags.prometheus.url.as_str(), "http://localhost:9090/");
    assert_eq!(flags.prometheus.ready_timeout, minutes(10));
    assert_eq!(flags.prometheus.get_config_interval, Duration::from_secs(30));
    assert_eq!(flags.prometheus.get_config_timeout, Duration::from_secs(30));
    assert_eq!(flags.prometheus.client.yaml().unwrap(), "");
    assert!(flags.prometheus.labels().is_empty());
    assert_eq!(flags.tsdb.path, Path::new("./data"));
    assert_eq!(flags.objstore.content(&|_| None).unwrap(), "");
    let shipper = &flags.shipper;
    assert!(!shipper.upload_compacted && !shipper.ignore_unequal_block_size);
    assert!(!shipper.allow_out_of_order_uploads && !shipper.skip_corrupted_blocks);
    assert_eq!(
        (shipper.hash_func, shipper.meta_file_name.as_str()),
        (HashFunc::Off, "thanos.shipper.json")
    );
    assert_eq!(
        (
            shipper.upload_concurrency,
            shipper.requests_at_once(),
            shipper.grace_period
        ),
        (0, 4, minutes(4))
    );
    let reloader = &flags.reloader;
    assert!(reloader.config_file.is_none() && reloader.rule_dirs.is_empty());
    assert_eq!(
        (reloader.watch_interval, reloader.retry_interval),
        (minutes(3), Duration::from_secs(5))
    );
    assert_eq!(
        (reloader.method, reloader.process_name.as_str()),
        (ReloadMethod::Http, "prometheus")
    );
    assert_eq!((flags.store.request_series, flags.store.request_samples), (0, 0));
}

#[test]
fn the_flags_of_status_are_understood() {
    let status = |words: &[&str]| match run(&[&["status"], words].concat()) {
        Outcome::Run(Command::Status(flags)) => *flags,
        other => panic!("no status: {other:?}"),
    };
    let flags = status(&[]);
    assert_eq!(flags.url.as_str(), "http://localhost:10902/");
    assert_eq!(
        (flags.timeout, flags.http_client_yaml().unwrap()),
        (Duration::from_secs(10), String::new())
    );
    let dir = temp_dir("status-flags");
    let file = dir.path().join("client.yaml");
    fs_err::write(&file, "bearer_token: x").unwrap();
    let flags = status(&["--timeout=1m", &format!("--http-client-file={}", file.display())]);
    assert_eq!(
        (flags.timeout, &*flags.http_client_yaml().unwrap()),
        (Duration::from_secs(60), "bearer_token: x")
    );
    assert!(refused(&["status", "--timeout=0s"]).contains("--timeout must be above 0"));
}

#[test]
fn bad_values_show_the_usage_and_exit_2() {
    for (words, part) in [
        (
            &["sidecar", "--log.level=loud"][..],
            "--log.level: expected one of error, warn, info, debug, got \"loud\"",
        ),
        (&["--log.level=loud"], "--log.level"),
        (&["sidecar", "--log.level=INFO"], "--log.level"),
        (&["sidecar", "--log.format=text"], "--log.format"),
        (
            &["sidecar", "--hash-func=sha256"],
            "--hash-func: expected SHA256 or nothing",
        ),
        (
            &["sidecar", "--grpc-server-tls-min-version=1.4"],
            "--grpc-server-tls-min-version",
        ),
        (&["sidecar", "--reloader.method=pigeon"], "--reloader.method"),
        (
            &["sidecar", "--prometheus.ready_timeout=10"],
            "--prometheus.ready_timeout",
        ),
        (
            &["sidecar", "--prometheus.ready_timeout=1y"],
            "--prometheus.ready_timeout",
        ),
        (&["sidecar", "--grpc-grace-period="], "--grpc-grace-period"),
        (
            &["sidecar", "--reloader.watch-interval=soon"],
            "--reloader.watch-interval",
        ),
        (&["sidecar", "--http-grace-period=1.5m"], "--http-grace-period"),
        (&["sidecar", "--http-grace-period=-2m"], "--http-grace-period"),
        (&["sidecar", "--min-time="], "--min-time"),
        (&["sidecar", "--min-time=yesterday"], "--min-time"),
        (
            &["sidecar", "--shipper.upload-concurrency=many"],
            "--shipper.upload-concurrency",
        ),
        (
            &["sidecar", "--shipper.upload-concurrency=9999"],
            "--shipper.upload-concurrency",
        ),
        (
            &["sidecar", "--store.limits.request-series=-1"],
            "--store.limits.request-series",
        ),
        (&["sidecar", "--auto-gomemlimit.ratio=half"], "--auto-gomemlimit.ratio"),
        (
            &["sidecar", "--http-address=10902"],
            "--http-address: \"10902\" has no port",
        ),
        (&["sidecar", "--grpc-address=:grpc"], "--grpc-address"),
        (
            &["sidecar", "--prometheus.url=localhost:9090"],
            "--prometheus.url: expected a URL such as",
        ),
        (&["sidecar", "--prometheus.url="], "--prometheus.url"),
        (&["sidecar", "--tsdb.path="], "--tsdb.path: expected a directory"),
        (
            &["sidecar", "--shipper.meta-file-name=../x"],
            "--shipper.meta-file-name",
        ),
        (&["sidecar", "--label=cluster"], "--label"),
        (
            &["sidecar", "--label=a=1", "--label=a=2"],
            "--label: a is given more than once",
        ),
        (
            &["sidecar", "--tsdb.path=/a", "--tsdb.path=/a"],
            "--tsdb.path is given more than once",
        ),
        (
            &["--log.level=info", "sidecar", "--log.level=info"],
            "--log.level is given more than once",
        ),
        (
            &["sidecar", "--shipper.upload-compacted", "--no-shipper.upload-compacted"],
            "given more than once",
        ),
    ] {
        let text = bad_value(words);
        assert!(text.contains(part), "{words:?}: {text}");
    }
}

#[test]
fn a_bad_value_does_not_repeat_what_may_be_secret() {
    let text = bad_value(&[
        "sidecar",
        "--objstore.config=secret_key: hunter2",
        "--prometheus.url=hunter2://hunter2",
    ]);
    assert!(!text.contains("hunter2"), "{text}");
    let flags = sidecar(&[
        "sidecar",
        "--objstore.config=secret_key: hunter2",
        "--prometheus.http-client=hunter2",
    ]);
    assert!(!format!("{flags:?}").contains("hunter2"));
}

#[test]
fn the_operators_command_lines_run() {
    let always = [
        "sidecar",
        "--prometheus.url=http://localhost:9090/prefix",
        "--grpc-address=:10901",
        "--http-address=:10902",
    ];
    sidecar(&always);
    let flags = sidecar(
        &[
            &always[..],
            &[
                "--prometheus.http-client-file=/etc/thanos/config/prometheus.http-client-file.yaml",
                "--objstore.config=type: S3\nconfig:\n  bucket: b\n",
                "--tsdb.path=/prometheus",
                "--shipper.meta-file-name=thanos.shipper.json",
                "--shipper.ignore-unequal-block-size",
                "--log.level=info",
                "--log.format=logfmt",
                "--prometheus.ready_timeout=15m",
                "--prometheus.get_config_timeout=1m",
                "--prometheus.get_config_interval=1m30s",
                "--grpc-server-tls-cert=/etc/thanos/server.crt",
                "--grpc-server-tls-key=/etc/thanos/server.key",
                "--grpc-server-tls-client-ca=/etc/thanos/ca.crt",
                "--min-time=-2w",
            ],
        ]
        .concat(),
    );
    assert_eq!(flags.prometheus.url.path(), "/prefix");
    assert_eq!(flags.http.address.to_socket(), "[::]:10902");
    assert!(flags.shipper.ignore_unequal_block_size);
    assert_eq!(
        flags.objstore.content(&|_| None).unwrap(),
        "type: S3\nconfig:\n  bucket: b\n"
    );
    let local = sidecar(&[
        "sidecar",
        "--grpc-address=[127.0.0.1]:10901",
        "--http-address=127.0.0.1:10902",
        "--prometheus.url=http://[127.0.0.1]:9090/",
    ]);
    assert_eq!(local.grpc.address.to_socket(), "127.0.0.1:10901");
    assert_eq!(local.http.address.to_socket(), "127.0.0.1:10902");
    assert_eq!(local.prometheus.url.as_str(), "http://127.0.0.1:9090/");
}

#[test]
fn the_reloader_does_not_overwrite_what_it_reads() {
    let same = [
        "sidecar",
        "--reloader.config-file=/p.yml",
        "--reloader.config-envsubst-file=/p.yml",
    ];
    let text = refused(&same);
    assert!(
        text.contains("--reloader.config-envsubst-file is the same as --reloader.config-file"),
        "{text}"
    );
    let flags = sidecar(&[
        "sidecar",
        "--reloader.config-file=/in.yml",
        "--reloader.config-envsubst-file=/out.yml",
        "--reloader.rule-dir=/a",
        "--reloader.rule-dir=/b",
    ]);
    assert_eq!(flags.reloader.rule_dirs, [Path::new("/a"), Path::new("/b")]);
}

#[test]
fn what_queries_may_ask_for_is_understood() {
    let flags = sidecar(&[
        "sidecar",
        "--grpc-address=127.0.0.1:0",
        "--grpc-grace-period=0",
        "--grpc-server-max-connection-age=0",
        "--grpc-server-tls-cert=/c",
        "--grpc-server-tls-key=/k",
        "--grpc-server-tls-client-ca=/a",
        "--grpc-server-tls-min-version=1.2",
        "--request.logging-config-file=/r",
        "--store.limits.request-series=1000",
        "--store.limits.request-samples=1",
        "--min-time=-1d12h",
        "--store.read-ahead=1MiB",
        "--store.spill-dir=/s",
        "--store.spill-limit=2GiB",
        "--store.max-client-lag=5s",
        "--store.memory-limit=64MiB",
        "--store.timeout=1m",
    ]);
    let grpc = &flags.grpc;
    assert_eq!(grpc.address.to_string(), "127.0.0.1:0");
    assert_eq!((grpc.grace_period, grpc.max_connection_age), Default::default());
    let files = [&grpc.tls_cert, &grpc.tls_key, &grpc.tls_client_ca];
    assert_eq!(
        files.map(|file| file.as_deref()),
        ["/c", "/k", "/a"].map(|path| Some(Path::new(path)))
    );
    assert_eq!(grpc.tls_min_version, TlsVersion::V1_2);
    assert_eq!(grpc.request_logging_file.as_deref(), Some(Path::new("/r")));
    assert_eq!((flags.store.request_series, flags.store.request_samples), (1000, 1));
    assert_eq!(
        flags.store.min_time,
        MinTime::Fixed(TimeOrDuration::FromNow(-36 * 3_600_000))
    );
    let store = &flags.store;
    assert_eq!(
        (store.read_ahead, store.spill_limit, store.memory_limit),
        (1 << 20, 2 << 30, 64 << 20)
    );
    assert_eq!(store.spill_dir.as_deref(), Some(Path::new("/s")));
    let times = (store.max_client_lag.as_secs(), store.timeout.as_secs());
    assert_eq!(times, (5, 60));
    let always = sidecar(&["sidecar"]).store;
    assert_eq!(always.min_time, MinTime::Fixed(TimeOrDuration::At(-62_167_219_200_000)));
    assert_eq!(
        (always.read_ahead, always.memory_limit, always.spill_dir),
        (64 << 20, 256 << 20, None)
    );
    let times = (always.max_client_lag.as_secs(), always.timeout.as_secs());
    assert_eq!(times, (30, 120));
}

#[test]
fn the_min_time_may_be_left_to_what_the_bucket_has() {
    let store = sidecar(&["sidecar", "--min-time=auto"]).store;
    assert_eq!(store.min_time, MinTime::Auto);
    assert_eq!(store.min_time_margin, Duration::from_secs(3 * 3600));
    let store = sidecar(&["sidecar", "--min-time", "auto", "--min-time-margin=1d"]).store;
    assert_eq!(store.min_time_margin, Duration::from_secs(24 * 3600));
    for (words, part) in [
        (
            ["sidecar", "--min-time=Auto"],
            "--min-time: \"Auto\" is neither a time nor a duration",
        ),
        (["sidecar", "--min-time=auto-3h"], "; or auto"),
        (["sidecar", "--min-time-margin="], "--min-time-margin"),
    ] {
        let text = bad_value(&words);
        assert!(text.contains(part), "{words:?}: {text}");
    }
    // Only the sidecar knows what auto would be.
    let text = bad_value_of(
        "bucket ls",
        &["bucket", "ls", "--objstore.config=type: X", "--min-time=auto"],
    );
    assert!(
        text.contains("neither a time nor a duration") && !text.contains("or auto"),
        "{text}"
    );
}

#[test]
fn what_tunes_an_absent_function_is_accepted_as_by_thanos() {
    sidecar(&[
        "sidecar",
        "--tracing.config=",
        "--tracing.config-file=",
        "--http.config=",
        "--reloader.config-file=",
        "--reloader.config-envsubst-file=/out",
        "--reloader.watch-interval=0",
        "--reloader.retry-interval=1s",
        "--reloader.method=signal",
        "--reloader.process-name=prom",
        "--enable-auto-gomemlimit",
        "--auto-gomemlimit.ratio=1",
        "--debug.name=x",
        "--log.format=journald",
    ]);
}

#[test]
fn values_out_of_bounds_are_named() {
    for (word, part) in [
        (
            "--prometheus.get_config_interval=0",
            "--prometheus.get_config_interval must be above 0",
        ),
        (
            "--prometheus.get_config_interval=-30s",
            "--prometheus.get_config_interval must be above 0",
        ),
        (
            "--prometheus.get_config_timeout=0s",
            "--prometheus.get_config_timeout must be above 0",
        ),
        ("--store.timeout=0", "--store.timeout must be above 0"),
        ("--store.timeout=-1s", "--store.timeout must be above 0"),
        ("--store.memory-limit=0", "--store.memory-limit must be at least 1MiB"),
        ("--auto-gomemlimit.ratio=0", "--auto-gomemlimit.ratio"),
        ("--auto-gomemlimit.ratio=-0.5", "--auto-gomemlimit.ratio"),
        ("--auto-gomemlimit.ratio=1.01", "--auto-gomemlimit.ratio"),
        ("--auto-gomemlimit.ratio=NaN", "--auto-gomemlimit.ratio"),
    ] {
        let text = refused(&["sidecar", word]);
        assert!(text.contains(part), "{word}: {text}");
    }
}

#[test]
fn concurrency_below_one_leaves_it_to_narthex() {
    for (text, n) in [("-3", 4), ("0", 4), ("1", 1), ("16", 16), ("1e1", 10)] {
        let flag = format!("--shipper.upload-concurrency={text}");
        assert_eq!(sidecar(&["sidecar", &flag]).shipper.requests_at_once(), n, "{text}");
    }
}

#[test]
fn yaml_comes_from_the_flag_or_its_file() {
    let env = |name: &str| (name == "BUCKET").then(|| "b".to_owned());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bucket.yml");
    fs_err::write(&path, "bucket: $(BUCKET)").unwrap();
    let file = format!("--objstore.config-file={}", path.display());
    assert_eq!(
        sidecar(&["sidecar", &file]).objstore.content(&env).unwrap(),
        "bucket: b"
    );
    let both = sidecar(&["sidecar", &file, "--objstore.config=x"])
        .objstore
        .content(&env)
        .unwrap_err()
        .to_string();
    assert!(
        both.contains("--objstore.config and --objstore.config-file are both set"),
        "{both}"
    );
    let unset = sidecar(&["sidecar", "--objstore.config=$(NOPE)"])
        .objstore
        .content(&env)
        .unwrap_err()
        .to_string();
    assert!(unset.contains("environment variable NOPE"), "{unset}");
    let client = sidecar(&["sidecar", "--prometheus.http-client=bearer_token: $(NOPE)"]).prometheus;
    assert_eq!(client.client.yaml().unwrap(), "bearer_token: $(NOPE)");
}
