use super::*;
use crate::prometheus::{ErrorKind, HttpClientConfig};

fn settings() -> Settings {
    let validation = Validation {
        tsdb_path: "/prometheus".into(),
        ledger_name: "thanos.shipper.json".to_owned(),
        ignore_unequal: false,
    };
    Settings {
        interval: Duration::from_secs(30),
        extra_labels: Labels::default(),
        validation: Some(validation),
    }
}

fn peer(settings: Settings) -> (Peer, Registry) {
    let url = "http://u:hunter2@127.0.0.1:1/prefix".parse().unwrap();
    let client = Client::new(&url, &HttpClientConfig::default(), Duration::from_secs(1)).unwrap();
    let mut registry = Registry::default();
    (Peer::new(client, settings, &mut registry), registry)
}

fn reading(labels: &[(&str, &str)], max: &str) -> Result<Reading, Error> {
    let flags = [
        ("storage.tsdb.min-block-duration", "2h"),
        ("storage.tsdb.max-block-duration", max),
    ];
    Ok(Reading {
        labels: Labels::from_pairs(labels.iter().copied()),
        version: "2.42.0".to_owned(),
        flags: Some(flags.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        lowest_time_ms: 1_700_000_000_000,
    })
}

fn refused() -> Result<Reading, Error> {
    let url = "http://x/".to_owned();
    Err(Error {
        url,
        kind: ErrorKind::Refused,
    })
}

#[test]
fn keeps_what_was_known_while_prometheus_is_down() {
    let (mut peer, _) = peer(settings());
    let mut snapshots = peer.snapshots();
    let start = snapshots.borrow_and_update().clone();
    assert!(!start.up && !start.seen && start.problem.is_some_and(|problem| !problem.contains("hunter2")));

    peer.take(reading(&[("cluster", "eu")], "2h"));
    let up = snapshots.borrow_and_update().clone();
    assert!(up.up && up.seen && up.problem.is_none(), "{up:?}");
    assert_eq!((peer.metrics.up.get(), up.lowest_time_ms), (1, 1_700_000_000_000));

    peer.take(refused());
    let down = snapshots.borrow_and_update().clone();
    assert_eq!(peer.metrics.up.get(), 0);
    assert!(!down.up && down.gone && down.seen && down.problem.is_some());
    assert_eq!(down.lowest_time_ms, up.lowest_time_ms);
    assert_eq!(
        (down.labels, down.version, down.flags),
        (up.labels.clone(), up.version.clone(), up.flags.clone())
    );

    peer.take(refused());
    assert!(!snapshots.has_changed().unwrap(), "nothing has changed");
    peer.take(reading(&[("cluster", "eu")], "2h"));
    assert_eq!(*snapshots.borrow_and_update(), up);
    peer.take(reading(&[("cluster", "eu")], "2h"));
    assert!(!snapshots.has_changed().unwrap(), "the same again");
    let later = reading(&[("cluster", "eu")], "2h").map(|reading| Reading {
        lowest_time_ms: i64::MIN,
        ..reading
    });
    peer.take(later);
    assert!(snapshots.has_changed().unwrap());
    assert_eq!(snapshots.borrow_and_update().lowest_time_ms, i64::MIN);
}

#[test]
fn lays_our_labels_over_those_of_prometheus() {
    let extra_labels = Labels::from_pairs([("replica", "b")]);
    let (mut peer, _) = peer(Settings {
        extra_labels: extra_labels.clone(),
        ..settings()
    });
    peer.take(reading(&[("cluster", "eu"), ("replica", "a")], "2h"));
    assert_eq!(
        peer.sender.borrow().labels,
        Labels::from_pairs([("cluster", "eu"), ("replica", "b")])
    );
    peer.take(reading(&[], "2h"));
    let snapshot = peer.sender.borrow().clone();
    assert!(snapshot.labels == extra_labels && snapshot.problem.is_none());
}

#[test]
fn a_mistake_in_the_configuration_is_a_problem_until_it_is_gone() {
    let (mut peer, registry) = peer(settings());
    peer.take(reading(&[], "1d12h"));
    let snapshot = peer.sender.borrow().clone();
    let problem = snapshot.problem.unwrap();
    assert!(snapshot.up && snapshot.seen && snapshot.labels.is_empty());
    for part in [
        "--storage.tsdb.max-block-duration=2h",
        "global.external_labels",
        "--label",
    ] {
        assert!(problem.contains(part), "{problem}");
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "\nthanos_sidecar_prometheus_up 0\n",
        "\nnarthex_configuration_errors 2\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    peer.take(reading(&[("a", "b")], "2h"));
    assert_eq!(peer.sender.borrow().problem, None);
    assert_eq!((peer.metrics.up.get(), peer.metrics.configuration_errors.get()), (1, 0));
    assert!(peer.metrics.last_heartbeat.get() > 1.7e9);
}

#[test]
fn checks_no_flags_when_nothing_is_uploaded() {
    let (mut peer, _) = peer(Settings {
        validation: None,
        ..settings()
    });
    peer.take(reading(&[("a", "b")], "1d12h"));
    assert_eq!(peer.sender.borrow().problem, None);
}
