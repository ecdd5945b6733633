//! Classes in brackets.

use super::{Refusal, Translator, push_char};

/// `\d`.
pub(super) const DIGIT: &str = "0-9";
/// `\w`.
pub(super) const WORD: &str = "0-9A-Za-z_";

/// The names of `[[:name:]]`, with their members.
const POSIX: [(&str, &str); 14] = [
    ("alnum", "0-9A-Za-z"),
    ("alpha", "A-Za-z"),
    ("ascii", r"\x00-\x7F"),
    ("blank", r"\t\x20"),
    ("cntrl", r"\x00-\x1F\x7F"),
    ("digit", DIGIT),
    ("graph", r"\x21-\x7E"),
    ("lower", "a-z"),
    ("print", r"\x20-\x7E"),
    ("punct", r"\x21-\x2F\x3A-\x40\x5B-\x60\x7B-\x7E"),
    ("space", r"\x09-\x0D\x20"),
    ("upper", "A-Z"),
    ("word", WORD),
    ("xdigit", "0-9A-Fa-f"),
];

impl Translator<'_> {
    /// A class, from its `[`.
    pub(super) fn class(&mut self) -> Result<(), Refusal> {
        let start = self.at;
        self.at += 1;
        let mut class = String::from("[");
        if self.accept("^") {
            class.push('^');
        }
        // A `]` right at the beginning is a member.
        let mut first = true;
        while first || self.peek() != Some(']') {
            first = false;
            if let Some(members) = self.posix()? {
                class.push_str(&members);
            } else if let Some(members) = self.escaped_class()? {
                class.push_str(&members);
            } else {
                self.range(start, &mut class)?;
            }
        }
        self.at += 1;
        class.push(']');
        let class = self.folded(class);
        self.atom(&class);
        Ok(())
    }

    /// A class with the flag `i`, if that is on.
    pub(super) fn folded(&self, class: String) -> String {
        if self.flags.fold {
            format!("(?i:{class})")
        } else {
            class
        }
    }

    /// `[:name:]` or `[:^name:]`. Without its end it is a `[` like any other.
    fn posix(&mut self) -> Result<Option<String>, Refusal> {
        let start = self.at;
        let rest = self.rest();
        let Some(inside) = rest.strip_prefix("[:").filter(|_| !self.no_posix_end) else {
            return Ok(None);
        };
        let Some(end) = inside.find(":]") else {
            self.no_posix_end = true;
            return Ok(None);
        };
        let name = &rest[2..2 + end];
        self.at += end + 4;
        let (not, name) = match name.strip_prefix('^') {
            Some(name) => ("^", name),
            None => ("", name),
        };
        match POSIX.iter().find(|(known, _)| *known == name) {
            Some((_, members)) => Ok(Some(format!("[{not}{members}]"))),
            None => self.invalid("invalid character class range", start),
        }
    }

    /// One character, or two with a `-` between them.
    fn range(&mut self, class_start: usize, class: &mut String) -> Result<(), Refusal> {
        let start = self.at;
        let low = self.member(class_start)?;
        push_char(class, low);
        let mut ahead = self.rest().chars();
        if ahead.next() != Some('-') || matches!(ahead.next(), None | Some(']')) {
            return Ok(());
        }
        self.at += 1;
        let high = self.member(class_start)?;
        if high < low {
            return self.invalid("invalid character class range", start);
        }
        class.push('-');
        push_char(class, high);
        Ok(())
    }

    fn member(&mut self, class_start: usize) -> Result<char, Refusal> {
        match self.peek() {
            None => {
                self.at = self.pattern.len();
                self.invalid("missing closing ]", class_start)
            }
            Some('\\') => self.escaped_char(),
            Some(char) => {
                self.at += char.len_utf8();
                Ok(char)
            }
        }
    }
}
