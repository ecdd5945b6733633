//! Answers that are cut or changed, at every byte.

use futures_util::{StreamExt as _, stream};

use super::{
    fake::Step,
    frames::{STREAM, chunked, frame, frames, sent, series, whole},
    scene::{self, Client, Scene},
};

/// How many calls run at once.
const AT_ONCE: usize = 32;

/// What the connection does once the bytes are sent.
#[derive(Clone, Copy, Debug)]
enum Then {
    Stays,
    Closes,
    Breaks,
}

/// One answer of the fake, and how many of the series `0..` it holds; `None` if it is not whole.
struct Case {
    name: String,
    bytes: Vec<u8>,
    then: Then,
    whole: Option<usize>,
}

impl Case {
    fn steps(&self) -> impl Fn() -> Vec<Step> + Send + 'static {
        let (bytes, then) = (self.bytes.clone(), self.then);
        move || {
            let mut steps = vec![Step::Send(bytes.clone())];
            steps.extend(match then {
                Then::Stays => None,
                Then::Closes => Some(Step::Close),
                Then::Breaks => Some(Step::Reset),
            });
            steps
        }
    }

    async fn check(self, scene: &Scene, client: &Client) {
        let steps = self.steps();
        scene.fake.answer(&self.name, move |_| steps());
        let outcome = client.ask(&self.name).await;
        let all: Vec<_> = (0..9).map(|number| sent(&series(number))).collect();
        assert_eq!(
            outcome.series,
            all[..outcome.series.len()],
            "{}: not a prefix",
            self.name
        );
        match (self.whole, &outcome.end) {
            (Some(count), Ok(())) => assert_eq!(outcome.series.len(), count, "{}", self.name),
            (None, Err(_)) => {}
            (whole, end) => panic!("{}: whole {whole:?}, ended {end:?}", self.name),
        }
    }
}

async fn check(cases: Vec<Case>) {
    let scene = scene::shared().await;
    let client = scene.client().await;
    let checked = stream::iter(cases).map(|case| case.check(scene, &client));
    checked.buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// How many whole frames there are in `length` bytes, if there is nothing else.
fn frames_in(frames: &[Vec<u8>], length: usize) -> Option<usize> {
    let mut end = 0;
    let mut ends = vec![0];
    for frame in frames {
        end += frame.len();
        ends.push(end);
    }
    ends.iter().position(|end| *end == length)
}

#[tokio::test]
async fn a_body_that_ends_in_the_middle_of_a_frame_is_an_error() {
    let frames = frames(3);
    let body = frames.concat();
    let cases = (0..=body.len()).flat_map(|cut| {
        [
            ("length", whole(&body[..cut])),
            (
                "chunked",
                chunked([&body[..cut]].into_iter().filter(|piece| !piece.is_empty())),
            ),
        ]
        .map(|(kind, bytes)| Case {
            name: format!("{kind}, cut at {cut}"),
            bytes,
            then: Then::Stays,
            whole: frames_in(&frames, cut),
        })
    });
    check(cases.collect()).await;
}

#[tokio::test]
async fn a_connection_that_drops_within_an_answer_is_an_error_wherever_it_was() {
    let frames = frames(3);
    let answers = [
        ("length", whole(&frames.concat())),
        ("chunked", chunked(frames.iter().map(Vec::as_slice))),
    ];
    let mut cases = Vec::new();
    for (kind, answer) in &answers {
        for cut in 0..=answer.len() {
            // Of what was sent before a reset some may be lost, so that a whole answer need not arrive.
            let whole = (cut == answer.len()).then_some(3);
            let thens = [Then::Closes, Then::Breaks];
            for then in thens.into_iter().take(if whole.is_some() { 1 } else { 2 }) {
                let name = format!("{kind}, {then:?} at {cut}");
                let bytes = answer[..cut].to_vec();
                cases.push(Case {
                    name,
                    bytes,
                    then,
                    whole,
                });
            }
        }
    }
    check(cases).await;
}

#[tokio::test]
async fn a_wrong_bit_anywhere_is_an_error() {
    let body = frames(3).concat();
    let cases = (0..body.len() * 8).map(|bit| {
        let mut wrong = body.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        Case {
            name: format!("wrong bit {bit}"),
            bytes: whole(&wrong),
            then: Then::Stays,
            whole: None,
        }
    });
    check(cases.collect()).await;
}

#[tokio::test]
async fn a_wrong_checksum_is_an_error_that_names_the_frame() {
    let scene = scene::shared().await;
    let mut second = frame(STREAM, &[series(1)]);
    second[1] ^= 0xff;
    let body = [frame(STREAM, &[series(0)]), second].concat();
    scene.fake.answer("checksum", scene::always(whole(&body)));
    let status = scene.client().await.ask("checksum").await.failed("a wrong checksum");
    assert!(
        status.message().contains("the checksum of frame 1 is wrong"),
        "{status}"
    );
}
