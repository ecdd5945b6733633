use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const LIST: &Node = &Node::Keys(&[("data", Node::List(0, None))]);
const GROUPS: &Node = &Node::Keys(&[("data", Node::Keys(&[("groups", Node::List(0, None))]))]);
const TWO: &Node = &Node::Keys(&[(
    "data",
    Node::Keys(&[("a", Node::List(1, None)), ("b", Node::List(2, None))]),
)]);
const MEMBERS: &Node = &Node::Keys(&[("data", Node::Members(0, Some(&Node::List(1, None))))]);
const DEEP: &Node = &Node::Keys(&[(
    "data",
    Node::List(
        0,
        Some(&Node::Keys(&[("in", Node::List(1, Some(&Node::List(2, None))))])),
    ),
)]);
const TEXT: &Node = &Node::Keys(&[("data", Node::Keys(&[("text", Node::Text)]))]);

const AROUND: usize = 1 << 10;

/// Keeps what it is given.
#[derive(Debug, Default)]
struct Kept {
    items: Vec<Value>,
    text: Vec<u8>,
    texts: usize,
    reserve: usize,
    taken: usize,
    /// Ends it after so many.
    most: Option<usize>,
}

impl Kept {
    fn with(reserve: usize) -> Self {
        Self {
            reserve,
            ..Self::default()
        }
    }
}

impl Sink for Kept {
    fn reserve(&mut self, bytes: usize) -> bool {
        self.taken += bytes;
        self.taken <= self.reserve
    }

    fn item(&mut self, item: Item<'_>) -> Result<ControlFlow<()>, ErrorKind> {
        let value: Value = item.read("JSON")?;
        self.items.push(match item.key.is_empty() {
            true => json!([item.id, value]),
            false => json!([item.id, item.key("JSON")?, value]),
        });
        Ok(match self.most {
            Some(most) if self.items.len() == most => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    }

    fn text_begins(&mut self) {
        self.texts += 1;
    }

    fn text(&mut self, piece: &[u8]) -> Result<(), ErrorKind> {
        self.text.extend_from_slice(piece);
        Ok(())
    }
}

fn scan(root: &'static Node, answer: &[u8], size: usize) -> Result<(Kept, Vec<u8>), ErrorKind> {
    let (mut scanner, mut kept) = (Scanner::new(root, AROUND), Kept::with(16 << 20));
    for piece in answer.chunks(size) {
        assert!(scanner.push(piece, &mut kept)?.is_continue());
    }
    let around = scanner.finish("what is wanted")?;
    Ok((kept, around))
}

fn is(root: &'static Node, answer: &str, want: Value) {
    for size in [1, 3, 1000] {
        let (kept, _) = scan(root, answer.as_bytes(), size).unwrap_or_else(|error| panic!("{answer}: {error}"));
        assert_eq!(Value::from(kept.items), want, "{answer}");
    }
}

#[test]
fn finds_the_elements_wherever_the_list_stands() {
    is(LIST, r#"{"data":[]}"#, json!([]));
    is(LIST, r#"{"data": [ ] ,"x":1}"#, json!([]));
    is(
        LIST,
        "{\"status\":\"data\",\n\"DATA\" : [ \"a,]\\\"\\\\\" , {\"data\":[1,{}]} , [2,\"}\"], 3 ], \"y\": [4] }",
        json!([[0, "a,]\"\\"], [0, {"data": [1, {}]}], [0, [2, "}"]], [0, 3]]),
    );
    is(
        LIST,
        r#"{"x":{"data":[1]},"z":["data",[2]],"data":[3]}"#,
        json!([[0, 3]]),
    );
    is(LIST, r#"{"data":null}"#, json!([]));
    is(LIST, "{}", json!([]));
    is(
        GROUPS,
        r#"{"groups":[1],"data":{"a":{"groups":[2]},"groups":[{"x":3}]}}"#,
        json!([[0, {"x":3}]]),
    );
    is(GROUPS, r#"{"data":{"a":{}},"groups":[1]}"#, json!([]));
    is(GROUPS, r#"{"data":null}"#, json!([]));
    is(
        TWO,
        r#"{"data":{"b":[1],"c":[2],"a":[3,4]}}"#,
        json!([[2, 1], [1, 3], [1, 4]]),
    );
}

#[test]
fn what_is_in_a_part_comes_before_it_and_is_cut_out_of_it() {
    is(
        MEMBERS,
        r#"{"data":{"x\"y" : [1, {}] ,"":null, "z":[]}}"#,
        json!([[1, 1], [1, {}], [0, "x\"y", []], [0, "", null], [0, "z", []]]),
    );
    is(MEMBERS, r#"{"data":{ }}"#, json!([]));
    is(
        DEEP,
        r#"{"data":[{"a":[0],"in":[[1,2],[]],"b":[3]},{"x":{"in":[4]}},{"IN":[5,[6]]}]}"#,
        json!([
            [2, 1],
            [2, 2],
            [1, []],
            [1, []],
            [0, {"a": [0], "in": [], "b": [3]}],
            [0, {"x": {"in": [4]}}],
            [1, 5],
            [2, 6],
            [1, []],
            [0, {"IN": []}]
        ]),
    );
}

#[test]
fn a_text_is_handed_over_with_its_escapes_and_never_held() {
    let answer = br#"{"data":{"a":{"text":"other"},"text": "a\n\"\\b" ,"c":"text"},"text":"x"}"#;
    for size in [1, 3, 1000] {
        let (kept, around) = scan(TEXT, answer, size).unwrap();
        assert_eq!((kept.texts, &*kept.text), (1, &br#"a\n\"\\b"#[..]));
        assert!(around.windows(9).any(|part| part == br#""text": ""#), "{around:?}");
    }
    for other in [r#"{"data":{"t\u0065xt":"secret"}}"#, r#"{"data":{"text":["secret"]}}"#] {
        let error = scan(TEXT, other.as_bytes(), 5).unwrap_err().to_string();
        assert!(
            error.contains("expected what is wanted") && !error.contains("secret"),
            "{error}"
        );
    }
}

#[test]
fn tells_what_is_wrong() {
    let error = |root, answer: &str| scan(root, answer.as_bytes(), 1000).expect_err(answer);
    for answer in [
        "",
        "x",
        r#"{"data":["#,
        r#"{"data":[1"#,
        r#"{"data":[1]"#,
        r#"{"data":[1,]}"#,
        r#"{"data":[,1]}"#,
        r#"{"data":[1 2]}"#,
        r#"{"data":[1}}"#,
        r#"{"data":[{"a":1]]}"#,
        r#"{"data":["\"]}"#,
        r#"{"data":[1]}{}"#,
        r#"{"data":[1]} text after it"#,
        r#"{"data" "x":[1]}"#,
    ] {
        assert!(matches!(error(LIST, answer), ErrorKind::NotJson { .. }), "{answer}");
    }
    for answer in [
        r#"{"data":{"a":[1],}}"#,
        r#"{"data":{"a"}}"#,
        r#"{"data":{"a":}}"#,
        r#"{"data":{[1]}}"#,
        r#"{"data":{"a":[1,]}}"#,
        r#"{"data":{"a":[1]]}"#,
        r#"{"data":{"a" [1]}}"#,
    ] {
        assert!(matches!(error(MEMBERS, answer), ErrorKind::NotJson { .. }), "{answer}");
    }
    for (root, answer) in [
        (LIST, r#"{"data":{}}"#),
        (LIST, r#"{"data":"x"}"#),
        (LIST, r#"{"data":7}"#),
        (LIST, r#"{"d\u0061ta":[1]}"#),
        (LIST, "[1]"),
        (GROUPS, r#"{"data":"x"}"#),
        (GROUPS, r#"{"data":[]}"#),
        (MEMBERS, r#"{"data":[]}"#),
        (MEMBERS, r#"{"d\u0061ta":{"a":[1]}}"#),
        (TEXT, r#"{"data":{"text":1}}"#),
    ] {
        assert!(matches!(error(root, answer), ErrorKind::NotUnderstood(_)), "{answer}");
    }
}

#[test]
fn ends_when_it_is_told_to() {
    let mut kept = Kept {
        most: Some(1),
        ..Kept::with(1 << 20)
    };
    let flow = Scanner::new(LIST, AROUND)
        .push(br#"{"data":[1,2,3"#, &mut kept)
        .unwrap();
    assert!(flow.is_break() && kept.items.len() == 1);
}

/// Pushes the piece again and again until there is an error; with how much was pushed, and what memory was asked for.
fn flood(root: &'static Node, begin: &str, piece: &str, reserve: usize) -> (ErrorKind, u64, usize) {
    let (mut scanner, mut kept) = (Scanner::new(root, AROUND), Kept::with(reserve));
    let _ = scanner.push(begin.as_bytes(), &mut kept).unwrap();
    let piece = piece.repeat(1000);
    loop {
        if let Err(error) = scanner.push(piece.as_bytes(), &mut kept) {
            let held = scanner.held.iter().map(Vec::capacity).sum::<usize>();
            assert!(
                held <= kept.taken,
                "{held} bytes are held, {} were asked for",
                kept.taken
            );
            return (error, scanner.come, kept.taken);
        }
        assert!(scanner.come < 1 << 30, "there is no end");
        // What is made of the elements is not what this is about.
        kept.items.clear();
    }
}

#[test]
fn whatever_is_sent_is_held_within_the_memory_that_is_given() {
    const ROOM: usize = 1 << 20;
    for (root, begin, piece) in [
        (LIST, r#"{"data":["#, "["),
        (LIST, r#"{"data":["#, r#"{"a":"#),
        (LIST, r#"{"data":[""#, "text"),
        (LIST, r#"{"data":[""#, r"\\"),
        (LIST, r#"{"data":["#, " "),
        (LIST, r#"{"data":[{"#, r#""a":1,"#),
        (MEMBERS, r#"{"data":{""#, "key"),
        (MEMBERS, r#"{"data":{"#, "["),
        (DEEP, r#"{"data":[{"x":["#, "{},"),
        (DEEP, r#"{"data":[{"in":[["#, "["),
    ] {
        let (error, come, asked) = flood(root, begin, piece, ROOM);
        assert!(matches!(error, ErrorKind::TooMuch { .. }), "{begin}{piece}: {error}");
        assert!(
            come <= ROOM as u64 && asked <= ROOM + 2 * (8000 + STEP),
            "{begin}{piece}: {come} {asked}"
        );
    }
    for (begin, piece) in [
        ("{\"", "x"),
        ("", " "),
        ("", "["),
        ("{\"x\":", "{\"x\":"),
        ("{\"x\":[", "{},"),
    ] {
        let (error, come, _) = flood(LIST, begin, piece, ROOM);
        assert!(
            matches!(error, ErrorKind::TooLarge { limit: AROUND }),
            "{begin}{piece}: {error}"
        );
        assert!(come < 10 * AROUND as u64, "{begin}{piece}: {come}");
    }
}

#[test]
fn elements_without_number_take_the_memory_of_one() {
    let (mut scanner, mut kept) = (Scanner::new(LIST, AROUND), Kept::with(STEP));
    let _ = scanner.push(br#"{"data":["#, &mut kept).unwrap();
    let elements = "{},".repeat(1000);
    for _ in 0..100 {
        let _ = scanner.push(elements.as_bytes(), &mut kept).unwrap();
        kept.items.clear();
    }
    assert_eq!(kept.taken, STEP);
}

#[test]
fn an_element_asks_for_what_serde_may_make_of_it() {
    let (mut scanner, mut kept) = (Scanner::new(LIST, AROUND), Kept::with(64 << 20));
    let answer = format!(r#"{{"data":[[{}{{}}]]}}"#, "{},".repeat(100_000));
    let _ = scanner.push(answer.as_bytes(), &mut kept).unwrap();
    assert!(kept.taken >= 300_000 * GROWTH, "{}", kept.taken);
}

#[test]
fn nesting_is_an_error_and_no_overflow_of_the_stack() {
    let deep = "[".repeat(100_000);
    let answer = format!(r#"{{"data":[{deep}{}]}}"#, "]".repeat(100_000));
    let error = scan(LIST, answer.as_bytes(), 1000).unwrap_err();
    assert!(matches!(error, ErrorKind::NotJson { .. }), "{error}");
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("\\PC{0,3}", inner), 0..4).prop_map(|pairs| pairs.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_list_comes_out_as_it_went_in(
        list in proptest::collection::vec(value(), 0..6),
        other in value(),
        pretty in any::<bool>(),
        size in 1usize..40,
    ) {
        let answer = json!({"other": other, "data": list, "last": 1});
        let text = if pretty { serde_json::to_vec_pretty(&answer) } else { serde_json::to_vec(&answer) }.unwrap();
        let want: Vec<Value> = list.iter().map(|value| json!([0, value])).collect();
        prop_assert_eq!(&scan(LIST, &text, size).unwrap().0.items, &want);
        prop_assert!(scan(LIST, &text[..text.len() - 1], size).is_err());
    }

    #[test]
    fn any_members_come_out_as_they_went_in(
        members in proptest::collection::btree_map("\\PC{0,5}", proptest::collection::vec(value(), 0..4), 0..5),
        pretty in any::<bool>(),
        size in 1usize..40,
    ) {
        let answer = json!({"data": members});
        let text = if pretty { serde_json::to_vec_pretty(&answer) } else { serde_json::to_vec(&answer) }.unwrap();
        let mut want = Vec::new();
        for (key, values) in &members {
            want.extend(values.iter().map(|value| json!([1, value])));
            want.push(if key.is_empty() { json!([0, "", []]) } else { json!([0, key, []]) });
        }
        prop_assert_eq!(&scan(MEMBERS, &text, size).unwrap().0.items, &want);
        prop_assert!(scan(MEMBERS, &text[..text.len() - 1], size).is_err());
    }

    #[test]
    fn any_bytes_give_parts_or_an_error(text in "[\\[\\]{},:\"\\\\a data0-9]{0,80}", size in 1usize..9) {
        for root in [LIST, TWO, MEMBERS, DEEP, TEXT] {
            let whole = scan(root, text.as_bytes(), size);
            let parts = scan(root, text.as_bytes(), 1000);
            prop_assert_eq!(whole.is_ok(), parts.is_ok());
            let _ = scan(root, format!("{{\"data\":[{text}").as_bytes(), size);
            let _ = scan(root, format!("{{\"data\":{{{text}").as_bytes(), size);
        }
    }
}
