//! What is a selector, what it selects, and how others are refused.

use proptest::prelude::*;

use super::*;

fn matchers(text: &str) -> Vec<Matcher> {
    let selector = Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    selector.0.into_iter().map(|condition| condition.matcher).collect()
}

fn eu(op: Op) -> Matcher {
    Matcher::new(op, "cluster", "eu")
}

#[test]
fn matchers_are_read_as_promql_writes_them() {
    for (text, op) in [
        (r#"{cluster="eu"}"#, Op::Equal),
        (r#"{cluster!="eu"}"#, Op::NotEqual),
        (r#"{cluster=~"eu"}"#, Op::Regex),
        (r#"{cluster!~"eu"}"#, Op::NotRegex),
        (r#" { cluster = "eu" , } "#, Op::Equal),
        ("{cluster='eu'}", Op::Equal),
        ("{cluster=`eu`}", Op::Equal),
        (r#"{"cluster"="eu"}"#, Op::Equal),
        (r#"{cluster="\x65\165"}"#, Op::Equal),
        (r#"cluster="eu""#, Op::Equal),
        (r#"cluster="eu","#, Op::Equal),
        ("cluster=eu", Op::Equal),
        ("cluster=~eu", Op::Regex),
        ("{cluster!=eu}", Op::NotEqual),
    ] {
        assert_eq!(matchers(text), [eu(op)], "{text}");
    }
    assert_eq!(matchers("{}"), []);
    assert_eq!(matchers(" { } "), []);
}

#[test]
fn several_matchers_keep_their_order() {
    let want = [
        Matcher::new(Op::Equal, "a", "b"),
        Matcher::new(Op::NotEqual, "c", "d, }"),
        Matcher::new(Op::Regex, "e", "x|y"),
        Matcher::new(Op::NotRegex, "f", "z"),
        Matcher::new(Op::Equal, "my.label", "ü"),
        Matcher::new(Op::Equal, "a", ""),
    ];
    let text = r#"a="b", c!="d, }", e=~"x|y",f!~'z',"my.label"="ü",a="""#;
    assert_eq!(matchers(text), want);
    assert_eq!(matchers(&format!("{{{text}}}")), want);
    assert_eq!(
        matchers("a=b=c,d=~x.*|y"),
        [
            Matcher::new(Op::Equal, "a", "b=c"),
            Matcher::new(Op::Regex, "d", "x.*|y")
        ]
    );
}

#[test]
fn what_is_no_selector_is_told() {
    for (text, part) in [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("{", "expected a closing brace, got the end"),
        ("{cluster=\"eu\"", "expected a closing brace, got the end"),
        ("{cluster=\"eu\",", "expected a closing brace, got the end"),
        ("cluster=\"eu\"}", "expected a comma after a matcher, got }"),
        ("{cluster=\"eu\"} x", "expected nothing after the closing brace, got  x"),
        ("{,}", "expected the name of a label"),
        (",", "expected the name of a label"),
        ("{a=\"b\",,c=\"d\"}", "expected the name of a label"),
        ("{a=\"b\" c=\"d\"}", "expected a comma after a matcher, got c="),
        (
            "up{cluster=\"eu\"}",
            "expected =, !=, =~ or !~ after the label up, got {cluster",
        ),
        (
            "cluster",
            "expected =, !=, =~ or !~ after the label cluster, got the end",
        ),
        ("{\"up\"}", "after the label up, got }"),
        ("cluster>eu", "after the label cluster, got >eu"),
        ("1a=x", "expected the name of a label"),
        ("my.label=x", "after the label my, got .label=x"),
        ("{\"\"=\"x\"}", "a label's name is not empty"),
        ("cluster=", "expected a value in quotes after cluster=, got the end"),
        ("{cluster=}", "expected a value in quotes after cluster=, got }"),
        ("cluster==eu", "expected a value in quotes after cluster=, got =eu"),
        ("cluster=e u", "expected a comma after a matcher, got u"),
        ("cluster=\"eu", "the \" that it begins with is not closed"),
        ("cluster=\"e\\q\"", "\\q is no escape"),
        ("cluster='e\nu'", "'e\\nu' cannot be read: a line ends"),
        (
            "cluster=~\"(\"",
            "cluster: error parsing regexp: missing closing ): `(`",
        ),
        (
            "cluster!~\"a{1001}\"",
            "cluster: error parsing regexp: invalid repeat count",
        ),
    ] {
        let error = Selector::parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{text:?}: {error}");
    }
    let long = format!("cluster={{{}", "x".repeat(1000));
    assert!(Selector::parse(&long).unwrap_err().to_string().len() < 150);
}

#[test]
fn a_pattern_that_this_program_cannot_use_is_refused() {
    let classes = r"\pL".repeat(100);
    let error = Selector::parse(&format!("a=~'{}'", classes.replace('\\', "\\\\"))).unwrap_err();
    assert!(error.to_string().contains("is not supported here"), "{error}");
}

#[test]
fn label_sets_are_selected() {
    let eu = Labels::from_pairs([("cluster", "eu"), ("replica", "a")]);
    for (text, selected) in [
        ("{}", true),
        ("cluster=eu", true),
        ("cluster=us", false),
        ("cluster!=us", true),
        ("cluster=eu,replica=b", false),
        ("{cluster=~\"e.\"}", true),
        ("{cluster=~\"e\"}", false),
        ("{cluster!~\"e\"}", true),
        ("{cluster!~\"eu|us\"}", false),
        ("{zone=\"\"}", true),
        ("{zone!=\"\"}", false),
        ("{zone=~\".*\"}", true),
        ("{zone=~\".+\"}", false),
        ("{zone!~\"x\"}", true),
    ] {
        assert_eq!(Selector::parse(text).unwrap().matches(&eu), Ok(selected), "{text}");
    }
}

#[test]
fn a_bad_pattern_that_was_not_read_is_told_when_it_is_used() {
    let selector = Selector::new(vec![Matcher::new(Op::Regex, "a", "(")]);
    let error = selector.matches(&Labels::default()).unwrap_err().to_string();
    assert!(error.contains("missing closing )"), "{error}");
}

#[test]
fn selectors_are_equal_if_their_matchers_are() {
    let parse = |text| Selector::parse(text).unwrap();
    assert_eq!(parse("{a=~\"b\"}"), parse("a=~'b',"));
    assert_ne!(parse("{a=~\"b\"}"), parse("a=b"));
    assert!(parse("{}").is_empty() && !parse("a=b").is_empty());
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\{?([a-z]{0,3}|[{},=!~\"'`\\\\ ]|\\PC){0,16}\\}?") {
        let _ = Selector::parse(&text);
    }

    #[test]
    fn what_is_written_is_read(pairs in prop::collection::vec((any::<String>(), any::<bool>(), any::<String>()), 0..5)) {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"));
        let pairs: Vec<_> = pairs.into_iter().filter(|(name, ..)| !name.is_empty()).collect();
        let (mut text, mut want) = (String::from("{"), Vec::new());
        for (name, equal, value) in pairs {
            let op = if equal { Op::Equal } else { Op::NotEqual };
            text.push_str(&format!("{}{}{},", quoted(&name), op.as_str(), quoted(&value)));
            want.push(Matcher::new(op, name, value));
        }
        prop_assert_eq!(matchers(&(text + "}")), want);
    }
}
