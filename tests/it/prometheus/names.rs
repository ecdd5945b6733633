//! Which labels Prometheus stores, as it says itself.

use std::time::Duration;

use narthex::prometheus::version::at_least;

use super::{
    LONG, Running,
    client::{client, plain},
    fake::{Answer, Fake},
};
use crate::rig::{Prometheus, Tools, prometheus::Options, wait_until};

/// More values of a label than anybody reads.
fn endless(_: &str) -> Answer {
    let head = b"HTTP/1.1 200 OK\r\n\r\n{\"status\":\"success\",\"data\":[\"a\"";
    Answer::Endless([head, b",\"b\"".repeat(1000).as_slice()].concat(), Duration::ZERO)
}

#[tokio::test]
async fn a_real_prometheus_is_asked_which_labels_it_stores() {
    for leg in Tools::find().legs {
        let options = Options {
            block: "2h",
            // The rig's own external labels are `cluster` and `replica`; the second one is stored as well.
            scrape_configs:
                "  - job_name: rig\n    static_configs:\n      - targets: ['127.0.0.1:1']\n        labels: \
                             {replica: stored}\n"
                    .to_owned(),
            ..Options::default()
        };
        let mut server = Prometheus::start(&leg, options).await;
        let url = server.url().parse().unwrap();
        let asked = client(&url, "", LONG);
        wait_until(LONG, "series", async || {
            (asked.stores_label("replica", "2.42.0", LONG).await.unwrap() == Some(true)).then_some(())
        })
        .await;
        let is_3 = at_least(server.version(), 3, 0);
        for (name, want) in [
            ("replica", Some(true)),
            ("cluster", Some(false)),
            ("__name__", Some(true)),
            ("a.b", is_3.then_some(false)),
            ("a/b c", is_3.then_some(false)),
            ("U__a", Some(false)),
        ] {
            let told = asked.stores_label(name, server.version(), LONG).await.unwrap();
            assert_eq!(told, want, "{name} {}", server.version());
        }

        let mut running = Running::start(&url, Duration::from_millis(200), LONG);
        running.until_ready().await;
        let names = running.names.clone();
        // Nobody has asked about the external labels yet.
        let counts = async || {
            let counts = names.counts();
            ((counts.stored, counts.absent, counts.unknown) == (1, 1, 0)).then_some(())
        };
        wait_until(LONG, "both external labels are looked up", counts).await;
        assert!(names.may_be_stored("replica") && !names.may_be_stored("cluster"));
        // Others are looked up once somebody has asked about them.
        assert!(names.may_be_stored("job") && names.may_be_stored("pod"));
        wait_until(LONG, "both are looked up", async || {
            (names.may_be_stored("job") && !names.may_be_stored("pod")).then_some(())
        })
        .await;
        // A series that has it ends that, until the next look.
        names.seen(["pod"]);
        wait_until(LONG, "it is looked up again", async || {
            (!names.may_be_stored("pod")).then_some(())
        })
        .await;
        server.set_external_labels(&[("job", "x"), ("shard", "1")]).await;
        wait_until(LONG, "new external labels are looked up", async || {
            (names.counts().absent == 3 && !names.may_be_stored("shard")).then_some(())
        })
        .await;
        assert!(names.may_be_stored("job"));
    }
}

#[tokio::test]
async fn a_large_answer_is_not_read_through() {
    // Prometheus before 2.52 knows no limit.
    let fake = Fake::start(endless);
    let told = plain(&fake).stores_label("pod", "2.42.0", LONG).await.unwrap();
    assert_eq!(told, Some(true));
    let head = fake.heads().pop().unwrap();
    assert!(
        head.starts_with("GET /api/v1/label/pod/values?limit=1 HTTP/1.1\r\n"),
        "{head}"
    );
    wait_until(LONG, "the connection is closed", async || {
        (fake.closed() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_a_good_answer_nothing_is_known() {
    let fake = Fake::start(|_| Answer::Http(200, br#"{"status":"success","data":[],"warnings":["some"]}"#.to_vec()));
    assert_eq!(plain(&fake).stores_label("pod", "3.5.0", LONG).await.unwrap(), None);
    for answer in [
        Answer::Http(403, Vec::new()),
        Answer::Http(422, Vec::new()),
        Answer::Http(200, b"[]".to_vec()),
        Answer::Raw(Vec::new()),
    ] {
        fake.answer(move |_| answer.clone());
        assert!(plain(&fake).stores_label("pod", "3.5.0", LONG).await.is_err());
    }
    fake.answer(|_| Answer::Stall);
    let limit = Duration::from_secs(1);
    let error = plain(&fake).stores_label("pod", "3.5.0", limit).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/api/v1/label/pod/values: no complete answer"),
        "{error}"
    );
    let seen = fake.heads().len();
    assert_eq!(plain(&fake).stores_label("a.b", "2.53.0", LONG).await.unwrap(), None);
    assert_eq!(fake.heads().len(), seen, "there is no way to ask that");
}
