//! A JSON document that is written back as it was read.
//!
//! Numbers and strings keep the characters they had, so that a document of a newer Prometheus loses nothing on its
//! way: not the last digit of a number, not a key. Members keep their order; of two members with one name the later
//! counts, as it does for every reader of these files. Only the white space between the parts is ours.

use serde::de::IgnoredAny;

use super::MetaError;

/// Deeper documents are refused: the stack is finite.
const DEEPEST: usize = 100;

/// One value of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A number, a string with its quotes, or a literal: the characters as they stood.
    Leaf(Box<str>),
    /// An array.
    List(Vec<Node>),
    /// An object.
    Object(Object),
}

/// The members of an object, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Object(Vec<(Box<str>, Node)>);

impl Node {
    /// Reads the first value of `bytes`, whatever follows it.
    pub(super) fn parse_first(bytes: &[u8]) -> Result<Self, MetaError> {
        let text = first_value(bytes)?;
        Reader { text, at: 0 }.value(0)
    }

    /// A string.
    pub(super) fn text(text: &str) -> Self {
        Self::Leaf(quoted(text).into())
    }

    /// A whole number.
    pub(super) fn number(number: impl Into<i128>) -> Self {
        Self::Leaf(number.into().to_string().into())
    }

    /// Whether this is `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Leaf(text) if &**text == "null")
    }

    /// The string that this is.
    pub(super) fn as_text(&self) -> Option<String> {
        match self {
            Self::Leaf(text) => serde_json::from_str(text).ok(),
            _ => None,
        }
    }

    /// How this begins, for a message.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Leaf(text) => beginning(text),
            Self::List(_) => "an array".into(),
            Self::Object(_) => "an object".into(),
        }
    }

    /// This as a file: indented by tabs, `<`, `>`, `&` and the two line separators of Unicode escaped as Go's encoder
    /// does, with a newline at the end.
    pub(super) fn to_file(&self) -> Vec<u8> {
        let mut out = String::new();
        self.print(&mut out, 0);
        out.push('\n');
        out.into_bytes()
    }

    fn print(&self, out: &mut String, depth: usize) {
        match self {
            Self::Leaf(text) => print_leaf(out, text),
            Self::List(items) => print_items(out, depth, ['[', ']'], items, |out, item| item.print(out, depth + 1)),
            Self::Object(Object(members)) => print_items(out, depth, ['{', '}'], members, |out, (name, value)| {
                print_leaf(out, &quoted(name));
                out.push_str(": ");
                value.print(out, depth + 1);
            }),
        }
    }
}

impl Object {
    /// An object without members.
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// The member called `name`, unless it is `null`.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        let (_, value) = self.0.iter().rfind(|(key, _)| **key == *name)?;
        (!value.is_null()).then_some(value)
    }

    /// Adds a member at the end.
    pub(super) fn push(&mut self, name: &str, value: Node) {
        self.0.push((name.into(), value));
    }

    /// Adds what `from` has beside `names`, in its order.
    pub(super) fn push_others(&mut self, from: &Object, names: &[&str]) {
        self.0
            .extend(from.iter().filter(|(name, _)| !names.contains(&&**name)).cloned());
    }

    /// The members, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Box<str>, Node)> {
        self.0.iter()
    }
}

/// The text of the first value of `bytes`, whatever follows it, with the white space before it.
pub(super) fn first_value(bytes: &[u8]) -> Result<&str, MetaError> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    match values.next() {
        None => return Err(MetaError::Empty),
        Some(Err(error)) if error.is_eof() => return Err(MetaError::Truncated),
        Some(Err(error)) => return Err(MetaError::NotJson(error.to_string())),
        Some(Ok(_)) => {}
    }
    std::str::from_utf8(&bytes[..values.byte_offset()]).map_err(|_| MetaError::NotUtf8)
}

/// How a number, a string or a literal begins, for a message.
pub(super) fn beginning(token: &str) -> String {
    const MOST: usize = 40;
    match token.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}...", &token[..at]),
        None => token.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn print_items<T>(out: &mut String, depth: usize, ends: [char; 2], items: &[T], print: impl Fn(&mut String, &T)) {
    out.push(ends[0]);
    for (i, item) in items.iter().enumerate() {
        out.push_str(if i == 0 { "\n" } else { ",\n" });
        out.extend(std::iter::repeat_n('\t', depth + 1));
        print(out, item);
    }
    if !items.is_empty() {
        out.push('\n');
        out.extend(std::iter::repeat_n('\t', depth));
    }
    out.push(ends[1]);
}

/// Inside a string token an escape may stand for any of these characters; outside of strings there is none of them.
fn print_leaf(out: &mut String, text: &str) {
    for char in text.chars() {
        match char {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            _ => out.push(char),
        }
    }
}

/// Takes apart a text that is known to be JSON; what it does not understand is an error nevertheless.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Node, MetaError> {
        if depth > DEEPEST {
            return Err(MetaError::TooDeep);
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => Ok(Node::Leaf(self.string()?.into())),
            _ => Ok(Node::Leaf(self.word()?.into())),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node, MetaError> {
        let mut object = Object::default();
        self.at += 1;
        while self.peek() != Some(b'}') {
            self.skip(b',');
            let name: String = serde_json::from_str(self.string()?).map_err(|error| self.not_json(&error))?;
            self.skip(b':');
            object.push(&name, self.value(depth + 1)?);
        }
        self.at += 1;
        Ok(Node::Object(object))
    }

    fn list(&mut self, depth: usize) -> Result<Node, MetaError> {
        let mut items = Vec::new();
        self.at += 1;
        while self.peek() != Some(b']') {
            self.skip(b',');
            items.push(self.value(depth + 1)?);
        }
        self.at += 1;
        Ok(Node::List(items))
    }

    /// A string with its quotes.
    fn string(&mut self) -> Result<&'a str, MetaError> {
        let rest = &self.text[self.at..];
        let mut escaped = false;
        let end = rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        self.read_raw(end.map(|end| end + 2))
    }

    /// A number or a literal.
    fn word(&mut self) -> Result<&'a str, MetaError> {
        let rest = &self.text[self.at..];
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)))
            .unwrap_or(rest.len());
        self.read_raw((end > 0).then_some(end))
    }

    fn read_raw(&mut self, len: Option<usize>) -> Result<&'a str, MetaError> {
        let token = len.and_then(|len| self.text[self.at..].get(..len));
        let token = token.ok_or_else(|| self.not_json(&"no value"))?;
        self.at += token.len();
        Ok(token)
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text[self.at..];
        self.at += rest.find(|c: char| !c.is_ascii_whitespace()).unwrap_or(rest.len());
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip(&mut self, byte: u8) {
        if self.peek() == Some(byte) {
            self.at += 1;
        }
        self.peek();
    }

    fn not_json(&self, why: &dyn std::fmt::Display) -> MetaError {
        MetaError::NotJson(format!("{why} at byte {}", self.at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn printed(text: &str) -> String {
        String::from_utf8(Node::parse_first(text.as_bytes()).unwrap().to_file()).unwrap()
    }

    #[test]
    fn numbers_and_strings_keep_their_characters() {
        let text = concat!(
            "{\n\t\"big\": 123456789012345678901234567890,\n\t\"float\": 1.10,\n\t\"exp\": 1E+400,\n",
            "\t\"text\": \"a\\u00e9\\/\\\"\\\\\",\n\t\"none\": [],\n\t\"empty\": {},\n\t\"deep\": [\n\t\t[\n\t\t\ttrue,\n",
            "\t\t\tnull\n\t\t]\n\t]\n}\n"
        );
        assert_eq!(printed(text), text);
    }

    #[test]
    fn escapes_what_go_escapes() {
        assert_eq!(
            printed("{\"<k>\":\"a&b\u{2028}\u{2029}é\"}"),
            "{\n\t\"\\u003ck\\u003e\": \"a\\u0026b\\u2028\\u2029é\"\n}\n"
        );
    }

    #[test]
    fn what_follows_the_first_value_is_left_alone() {
        assert_eq!(printed("  {} {\"x\":"), "{}\n");
        assert_eq!(printed("{}garbage"), "{}\n");
        let mut bytes = b"{}".to_vec();
        bytes.extend([0, 0xff, 0xfe]);
        assert_eq!(Node::parse_first(&bytes).unwrap(), Node::Object(Object::default()));
    }

    #[test]
    fn of_two_members_with_one_name_the_later_counts() {
        let Node::Object(object) = Node::parse_first(br#"{"a":1,"b":2,"a":3}"#).unwrap() else {
            panic!()
        };
        assert_eq!(object.get("a"), Some(&Node::number(3)));
    }

    #[test]
    fn a_deep_document_is_refused_and_does_not_break_the_stack() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let bomb = open.repeat(1_000_000);
            assert!(matches!(Node::parse_first(bomb.as_bytes()), Err(MetaError::Truncated)));
            let bomb = format!("{bomb}1{}", close.repeat(1_000_000));
            assert!(matches!(Node::parse_first(bomb.as_bytes()), Err(MetaError::TooDeep)));
        }
    }

    /// Any JSON value but floats, whose spelling serde_json does not keep.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::hash_map(any::<String>(), inner, 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn means_the_same_when_printed(value in values()) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                let out = printed(&text);
                prop_assert_eq!(&serde_json::from_str::<Value>(&out).unwrap(), &value);
                prop_assert_eq!(printed(&out), out);
            }
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in r#"[\[\]{}:," \\a1eu.\-]{0,40}"#) {
            let _ = Node::parse_first(&bytes);
            let valid = serde_json::from_str::<Value>(&text).is_ok();
            if let Ok(node) = Node::parse_first(text.as_bytes()) {
                node.to_file();
            } else {
                prop_assert!(!valid, "{}", text);
            }
        }
    }
}
