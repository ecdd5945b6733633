//! The elements of one list in a JSON answer, one by one while the answer arrives.
//!
//! A list of series can be far larger than what is made of it. So only the element that is being read is held, together
//! with the little JSON around the list. Each element, and the rest with an empty list, goes through a real JSON parser.

use std::ops::ControlFlow;

use serde_json::Value;

use crate::prometheus::error::ErrorKind;

/// Largest element, in bytes.
const ELEMENT: usize = 64 << 20;

/// Largest remainder around the list, in bytes.
const AROUND: usize = 1 << 20;

/// An answer while it arrives.
#[derive(Debug)]
pub(super) struct Elements {
    /// The keys that lead to the list, compared as Go does: without regard to case.
    path: &'static [&'static str],
    /// How many of them lead to where we are.
    matched: usize,
    /// How many brackets are open.
    depth: usize,
    in_string: bool,
    /// The next byte of the string is escaped.
    escaped: bool,
    key: Key,
    /// Where the last string begins in `around`.
    string: usize,
    in_list: bool,
    found: bool,
    /// A comma was read, so that another element must follow.
    comma: bool,
    element: Vec<u8>,
    around: Vec<u8>,
}

/// How much of the next key of the path, with its colon, was just read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    None,
    Name,
    Colon,
}

impl Elements {
    /// Looks for the list that these keys lead to.
    pub(super) fn new(path: &'static [&'static str]) -> Self {
        Self {
            path,
            matched: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            key: Key::None,
            string: 0,
            in_list: false,
            found: false,
            comma: false,
            element: Vec::new(),
            around: Vec::new(),
        }
    }

    /// Takes the next piece and hands each complete element to `take`, which may end it all.
    ///
    /// # Errors
    /// What `take` gives, and an answer that cannot be held.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(&[u8]) -> Result<ControlFlow<()>, ErrorKind>,
    ) -> Result<ControlFlow<()>, ErrorKind> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if self.in_list && self.in_string && !self.escaped {
                // Most of an answer is text, which is taken at once.
                let special = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
                let (text, others) = rest.split_at(special.unwrap_or(rest.len()));
                if !text.is_empty() {
                    self.hold(text)?;
                    rest = others;
                    continue;
                }
            }
            rest = after;
            let flow = match (self.in_list, self.in_string) {
                (true, true) => self.hold(&[byte]).map(ControlFlow::Continue),
                (true, false) => self.within(byte, take),
                (false, _) => self.beside(byte).map(ControlFlow::Continue),
            };
            if flow?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let was_escaped = std::mem::replace(&mut self.escaped, false);
            if self.in_string {
                self.escaped = byte == b'\\' && !was_escaped;
            }
            if byte == b'"' && !was_escaped {
                self.in_string = !self.in_string;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A byte of the list, outside of strings.
    fn within(
        &mut self,
        byte: u8,
        take: &mut impl FnMut(&[u8]) -> Result<ControlFlow<()>, ErrorKind>,
    ) -> Result<ControlFlow<()>, ErrorKind> {
        let top = self.depth == self.path.len() + 1;
        match byte {
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth -= 1,
            _ => {}
        }
        let ends_list = top && matches!(byte, b']' | b'}');
        let ends_element = top && byte == b',';
        if !(ends_list || ends_element) {
            self.hold(&[byte])?;
            return Ok(ControlFlow::Continue(()));
        }
        let mut flow = ControlFlow::Continue(());
        // Only an empty list has nothing before its end.
        if !ends_list || self.comma || !self.element.trim_ascii().is_empty() {
            flow = take(&self.element)?;
        }
        self.element.clear();
        self.comma = !ends_list;
        if ends_list {
            self.in_list = false;
            self.around.push(byte);
        }
        Ok(flow)
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), ErrorKind> {
        if bytes.len() > ELEMENT - self.element.len() {
            return Err(ErrorKind::TooLarge { limit: ELEMENT });
        }
        self.element.extend_from_slice(bytes);
        Ok(())
    }

    /// A byte that is not of the list.
    fn beside(&mut self, byte: u8) -> Result<(), ErrorKind> {
        // The end of the list is noted without a look at the length.
        if self.around.len() >= AROUND {
            return Err(ErrorKind::TooLarge { limit: AROUND });
        }
        self.around.push(byte);
        if self.in_string {
            if byte == b'"' && !self.escaped {
                let string = &self.around[self.string..self.around.len() - 1];
                let next = self.path.get(self.matched).filter(|_| self.depth == self.matched + 1);
                let fits = next.is_some_and(|key| string.eq_ignore_ascii_case(key.as_bytes()));
                self.key = if fits { Key::Name } else { Key::None };
            }
            return Ok(());
        }
        let key = self.key;
        if !byte.is_ascii_whitespace() {
            self.key = Key::None;
        }
        match byte {
            b'"' => self.string = self.around.len(),
            b':' if key == Key::Name => self.key = Key::Colon,
            b'{' | b'[' => {
                self.depth += 1;
                if key == Key::Colon {
                    let last = self.matched + 1 == self.path.len();
                    self.in_list = last && byte == b'[';
                    self.found |= self.in_list;
                    self.matched += usize::from(!last && byte == b'{');
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.matched = self.matched.min(self.depth.saturating_sub(1));
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks what was around the list, when the answer is complete. No list, or `null` in its place, is an empty one.
    ///
    /// # Errors
    /// An answer that is cut, that is no success, or that has something else in the place of the list.
    pub(super) fn finish(self) -> Result<(), ErrorKind> {
        let answer: Value =
            serde_json::from_slice(&self.around).map_err(|error| ErrorKind::from_json(&error, "JSON"))?;
        let text = |key| field(&answer, key).and_then(Value::as_str).unwrap_or_default();
        if text("status") != "success" {
            return Err(ErrorKind::failed(text("error")));
        }
        if self.found {
            return Ok(());
        }
        let mut here = &answer;
        for key in self.path {
            match field(here, key) {
                Some(Value::Null) => return Ok(()),
                None if here.is_object() => return Ok(()),
                None => break,
                Some(value) => here = value,
            }
        }
        let path = self.path.join(".");
        Err(ErrorKind::NotUnderstood(format!("expected a list in {path}")))
    }
}

fn field<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let mut fields = value.as_object()?.iter();
    fields.find_map(|(name, value)| name.eq_ignore_ascii_case(key).then_some(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The elements of an answer that arrives in pieces of `size`.
    fn read(path: &'static [&'static str], answer: &[u8], size: usize) -> Result<Vec<Value>, ErrorKind> {
        let mut found = Vec::new();
        let mut take = |element: &[u8]| {
            let value = serde_json::from_slice(element).map_err(|error| ErrorKind::from_json(&error, "JSON"))?;
            found.push(value);
            Ok(ControlFlow::Continue(()))
        };
        let mut elements = Elements::new(path);
        for piece in answer.chunks(size) {
            assert!(elements.push(piece, &mut take)?.is_continue());
        }
        elements.finish()?;
        Ok(found)
    }

    fn is(path: &'static [&'static str], answer: &str, want: Value) {
        for size in [1, 3, 1000] {
            let found = read(path, answer.as_bytes(), size).unwrap_or_else(|error| panic!("{answer}: {error}"));
            assert_eq!(Value::from(found), want, "{answer}");
        }
    }

    #[test]
    fn finds_the_elements_wherever_the_list_stands() {
        use serde_json::json;
        let data = &["data"];
        is(data, r#"{"status":"success","data":[]}"#, json!([]));
        is(data, r#"{"data": [ ] ,"status":"success"}"#, json!([]));
        is(
            data,
            "{\"status\":\"success\",\n\"DATA\" : [ \"a,]\\\"\\\\\" , {\"data\":[1,{}]} , [2,\"}\"], 3 ], \"x\": \"data\", \"y\": [4] }",
            json!(["a,]\"\\", {"data": [1, {}]}, [2, "}"], 3]),
        );
        is(
            data,
            r#"{"x":{"data":[1]},"z":["data",[2]],"status":"success","data":[3]}"#,
            json!([3]),
        );
        is(data, r#"{"status":"success","data":null}"#, json!([]));
        is(data, r#"{"status":"success"}"#, json!([]));
        let groups = &["data", "groups"];
        is(
            groups,
            r#"{"status":"success","groups":[1],"data":{"a":{"groups":[2]},"groups":[{"x":3}]}}"#,
            json!([{"x":3}]),
        );
        is(
            groups,
            r#"{"status":"success","data":{"a":{}},"groups":[1]}"#,
            json!([]),
        );
        is(groups, r#"{"status":"success","data":null}"#, json!([]));
        is(groups, r#"{"status":"success","data":{"groups":null}}"#, json!([]));
    }

    #[test]
    fn tells_what_is_wrong() {
        let error = |answer: &str| read(&["data"], answer.as_bytes(), 1000).expect_err(answer);
        for answer in [
            "",
            "x",
            r#"{"status":"success","data":["#,
            r#"{"status":"success","data":[1"#,
            r#"{"status":"success","data":[1]"#,
            r#"{"status":"success","data":[1,]}"#,
            r#"{"status":"success","data":[,1]}"#,
            r#"{"status":"success","data":[1 2]}"#,
            r#"{"status":"success","data":[1}}"#,
            r#"{"status":"success","data":[{"a":1]]}"#,
            r#"{"status":"success","data":["\"]}"#,
            r#"{"status":"success","data":[1]}{}"#,
            r#"{"status":"success","data":[1]} text after it"#,
        ] {
            assert!(matches!(error(answer), ErrorKind::NotJson { .. }), "{answer}");
        }
        for answer in [
            r#"{"status":"success","data":{}}"#,
            r#"{"status":"success","data":"x"}"#,
            r#"{"status":"success","d\u0061ta":[1]}"#,
        ] {
            assert!(matches!(error(answer), ErrorKind::NotUnderstood(_)), "{answer}");
        }
        let groups = read(&["data", "groups"], br#"{"status":"success","data":"x"}"#, 1000);
        assert!(matches!(groups, Err(ErrorKind::NotUnderstood(_))), "{groups:?}");
        for answer in [
            r#"{"status":"error","error":"no such thing"}"#,
            r#"{"status":"error","data":[1],"Error":"no such thing"}"#,
        ] {
            assert!(error(answer).to_string().contains("no such thing"), "{answer}");
        }
        assert!(matches!(error("{}"), ErrorKind::Failed(_)));
        let long = format!("{{\"x\":\"{}", "x".repeat(AROUND));
        assert!(matches!(error(&long), ErrorKind::TooLarge { limit: AROUND }));
    }

    #[test]
    fn ends_when_it_is_told_to() {
        let mut seen = 0;
        let mut take = |_: &[u8]| {
            seen += 1;
            Ok(ControlFlow::Break(()))
        };
        let flow = Elements::new(&["data"]).push(br#"{"data":[1,2"#, &mut take).unwrap();
        assert!(flow.is_break() && seen == 1);
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
            let answer = serde_json::json!({"other": other, "status": "success", "data": list, "last": other});
            let text = if pretty { serde_json::to_vec_pretty(&answer) } else { serde_json::to_vec(&answer) }.unwrap();
            prop_assert_eq!(&read(&["data"], &text, size).unwrap(), &list);
            prop_assert!(read(&["data"], &text[..text.len() - 1], size).is_err());
        }

        #[test]
        fn any_bytes_give_elements_or_an_error(text in "[\\[\\]{},:\"\\\\a data0-9]{0,80}", size in 1usize..9) {
            let _ = read(&["data"], text.as_bytes(), size);
            let _ = read(&["data"], format!("{{\"data\":[{text}").as_bytes(), size);
        }
    }
}
