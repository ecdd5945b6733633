//! What a backslash starts.

use super::{NOTHING, Refusal, Translator, class};

/// Why an escape for one character gives none.
const SURROGATE: &str = "it names a surrogate, which is no character of a text";

impl Translator<'_> {
    /// A backslash outside of a class.
    pub(super) fn backslash(&mut self) -> Result<(), Refusal> {
        let start = self.at;
        let text = match self.rest().as_bytes().get(1) {
            Some(b'A') => Some(r"\A"),
            Some(b'z') => Some(r"\z"),
            // Words are ASCII in Go.
            Some(b'b') => Some(r"(?-u:\b)"),
            Some(b'B') => Some(r"(?-u:\B)"),
            Some(b'Q') => {
                self.quote();
                return Ok(());
            }
            Some(b'C') => {
                self.at += 2;
                return self.invalid("invalid escape sequence", start);
            }
            _ => None,
        };
        if let Some(text) = text {
            self.at += 2;
            self.atom(text);
            return Ok(());
        }
        if let Some(class) = self.escaped_class()? {
            let text = if class == NOTHING { class } else { self.folded(class) };
            self.atom(&text);
            return Ok(());
        }
        let char = self.escaped_char()?;
        self.literal(char);
        Ok(())
    }

    /// `\Q..\E`, or up to the end of the pattern: nothing in it means anything but itself.
    fn quote(&mut self) {
        self.at += 2;
        let rest = self.rest();
        let (quoted, skip) = match rest.find("\\E") {
            Some(end) => (&rest[..end], end + 2),
            None => (rest, rest.len()),
        };
        self.at += skip;
        for char in quoted.chars() {
            self.literal(char);
        }
    }

    /// `\d` and its like, and `\pN`, as a class of the `regex` crate in brackets.
    pub(super) fn escaped_class(&mut self) -> Result<Option<String>, Refusal> {
        let [b'\\', letter, ..] = self.rest().as_bytes() else {
            return Ok(None);
        };
        match letter {
            b'p' | b'P' => self.unicode_class().map(Some),
            b'd' | b'D' | b's' | b'S' | b'w' | b'W' => {
                self.at += 2;
                let items = match letter.to_ascii_lowercase() {
                    b'd' => class::DIGIT,
                    b's' => r"\t\n\x0C\r\x20",
                    _ => class::WORD,
                };
                let not = if letter.is_ascii_uppercase() { "^" } else { "" };
                Ok(Some(format!("[{not}{items}]")))
            }
            _ => Ok(None),
        }
    }

    /// An escape that stands for one character.
    pub(super) fn escaped_char(&mut self) -> Result<char, Refusal> {
        let start = self.at;
        self.at += 1;
        let Some(char) = self.bump() else {
            return Err(super::invalid("trailing backslash at end of expression", ""));
        };
        let number = match char {
            'a' => Some(0x07),
            'f' => Some(0x0C),
            'n' => Some(0x0A),
            'r' => Some(0x0D),
            't' => Some(0x09),
            'v' => Some(0x0B),
            'x' => self.hex(),
            '0' => Some(self.octal(0)),
            '1'..='7' if matches!(self.peek(), Some('0'..='7')) => Some(self.octal(u32::from(char) - u32::from('0'))),
            _ if char.is_ascii() && !char.is_ascii_alphanumeric() => Some(u32::from(char)),
            _ => None,
        };
        let Some(number) = number else {
            return self.invalid("invalid escape sequence", start);
        };
        char::from_u32(number).ok_or_else(|| Refusal::Unsupported(SURROGATE.to_owned()))
    }

    /// Up to two more octal digits.
    fn octal(&mut self, mut number: u32) -> u32 {
        for _ in 0..2 {
            let Some(digit) = self.peek().and_then(|char| char.to_digit(8)) else {
                break;
            };
            number = number * 8 + digit;
            self.at += 1;
        }
        number
    }

    /// `\xHH` or `\x{H..}`, behind the `x`; `None` leaves `at` behind what Go shows in its error.
    fn hex(&mut self) -> Option<u32> {
        let first = self.bump()?;
        if first != '{' {
            let second = self.bump();
            return Some(first.to_digit(16)? * 16 + second?.to_digit(16)?);
        }
        let (mut number, mut digits) = (0_u32, 0);
        loop {
            let char = self.bump()?;
            if char == '}' {
                return (digits > 0).then_some(number);
            }
            number = number * 16 + char.to_digit(16)?;
            if number > u32::from(char::MAX) {
                return None;
            }
            digits += 1;
        }
    }
}
