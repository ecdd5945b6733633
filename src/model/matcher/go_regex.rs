//! Go's regular expressions, matched by the `regex` crate.
//!
//! Prometheus takes the syntax of Go's `regexp` package in the flavour of `syntax.Perl | syntax.DotNL` and holds the
//! whole value against it. The `regex` crate's syntax is a cousin: it knows more (set operations in classes, Unicode
//! classes for `\d`, the flags `x` and `u`) and less (`\Q..\E`, octal escapes). So a pattern is read here as Go reads
//! it, and written anew with only what both understand in the same way. What Go refuses is refused in Go's words.

mod class;
mod escape;
mod pattern;
mod unicode;

pub use pattern::Pattern;
pub(super) use pattern::is_literals;

/// The longest pattern that is compiled, in bytes. Alternations of plain text are not compiled and know no limit.
const MAX_PATTERN: usize = 128 << 10;
/// The most classes such as `\pL` in one pattern: each stands for hundreds of ranges before any other limit counts.
const MAX_UNICODE_CLASSES: usize = 64;
/// The most repetitions of repetitions that only `\Q\E` or a group of flags between them makes legal.
const MAX_STACKED: usize = 64;
/// The highest count of a repetition, and the highest product of nested ones.
const MAX_REPEAT: u32 = 1000;
/// Matches no text at all.
const NOTHING: &str = r"[^\x{0}-\x{10FFFF}]";

/// Why a pattern is not translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Go refuses it too; the text is Go's, without its beginning `error parsing regexp: `.
    Invalid(String),
    /// Go may well take it, but this program does not; the text says why.
    Unsupported(String),
}

/// Reads a pattern in Go's syntax and gives one for the `regex` crate that matches the same texts. It is not anchored.
/// Never panics; takes time in proportion to the pattern's length.
///
/// # Errors
/// As [`Pattern::new`], but for what is found out only by compiling.
pub fn translate(pattern: &str) -> Result<String, Refusal> {
    if pattern.len() > MAX_PATTERN {
        return Err(Refusal::Unsupported(format!("it is longer than {MAX_PATTERN} bytes")));
    }
    Translator::new(pattern).run()
}

/// The flags that change what matches. `U` swaps greedy and lazy, which no whole match can see.
#[derive(Clone, Copy)]
struct Flags {
    fold: bool,
    multi_line: bool,
    dot_all: bool,
}

/// The last thing written that a repetition can apply to.
#[derive(Clone, Copy)]
struct Atom {
    /// Where it starts in the output.
    start: usize,
    /// The largest product of counted repetitions inside.
    weight: u32,
    repeated: bool,
}

/// `{least,most}`
#[derive(Clone, Copy)]
struct Counts {
    least: u32,
    most: Option<u32>,
}

impl Counts {
    fn text(self) -> String {
        match self.most {
            Some(most) => format!("{{{},{most}}}", self.least),
            None => format!("{{{},}}", self.least),
        }
    }
}

/// A group that is still open, with what its end brings back.
struct Group {
    start: usize,
    flags: Flags,
    weight: u32,
}

struct Translator<'a> {
    pattern: &'a str,
    at: usize,
    flags: Flags,
    out: String,
    groups: Vec<Group>,
    last: Option<Atom>,
    /// The largest product of counted repetitions in the innermost open group.
    weight: u32,
    /// Where in the pattern the repetition starts that ended right before `at`.
    last_repeat: Option<usize>,
    unicode_classes: usize,
    stacked: usize,
    /// No `:]` follows any more: it must not be looked for again and again.
    no_posix_end: bool,
}

impl<'a> Translator<'a> {
    fn new(pattern: &'a str) -> Self {
        Self {
            pattern,
            at: 0,
            flags: Flags {
                fold: false,
                multi_line: false,
                dot_all: true,
            },
            out: String::with_capacity(pattern.len()),
            groups: Vec::new(),
            last: None,
            weight: 1,
            last_repeat: None,
            unicode_classes: 0,
            stacked: 0,
            no_posix_end: false,
        }
    }

    fn rest(&self) -> &'a str {
        &self.pattern[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.at += char.len_utf8();
        Some(char)
    }

    /// Takes `text` if it comes next.
    fn accept(&mut self, text: &str) -> bool {
        let comes = self.rest().starts_with(text);
        if comes {
            self.at += text.len();
        }
        comes
    }

    /// Go's error about the pattern from `from` up to where we are.
    fn invalid<T>(&self, code: &str, from: usize) -> Result<T, Refusal> {
        Err(invalid(code, &self.pattern[from..self.at]))
    }

    fn run(mut self) -> Result<String, Refusal> {
        while let Some(char) = self.peek() {
            let start = self.at;
            let repeat = self.last_repeat.take();
            match char {
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.at += 1;
                    self.out.push('|');
                    self.settle();
                }
                '*' | '+' | '?' => {
                    self.at += 1;
                    self.repeat(start, repeat, &self.pattern[start..=start], None)?;
                }
                '{' => match self.counts()? {
                    Some(counts) => self.repeat(start, repeat, &counts.text(), Some(counts))?,
                    None => {
                        self.at += 1;
                        self.literal('{');
                    }
                },
                '[' => self.class()?,
                '\\' => self.backslash()?,
                '^' | '$' | '.' => {
                    self.at += 1;
                    self.sign(char);
                }
                _ => {
                    self.at += char.len_utf8();
                    self.literal(char);
                }
            }
        }
        if self.groups.is_empty() {
            Ok(self.out)
        } else {
            Err(invalid("missing closing )", self.pattern))
        }
    }

    /// `^`, `$` and `.`, which the flags `m` and `s` change.
    fn sign(&mut self, char: char) {
        let text = match (char, self.flags.multi_line, self.flags.dot_all) {
            ('^', false, _) => r"\A",
            ('^', true, _) => "(?m:^)",
            ('$', false, _) => r"\z",
            ('$', true, _) => "(?m:$)",
            (_, _, true) => "(?s:.)",
            (_, _, false) => r"[^\n]",
        };
        self.atom(text);
    }

    /// No repetition can follow the last atom any more: what it weighs is final.
    fn settle(&mut self) {
        if let Some(atom) = self.last.take() {
            self.weight = self.weight.max(atom.weight);
        }
    }

    /// Writes something that a repetition can follow.
    fn atom(&mut self, text: &str) {
        self.settle();
        self.last = Some(Atom {
            start: self.out.len(),
            weight: 1,
            repeated: false,
        });
        self.out.push_str(text);
    }

    fn literal(&mut self, char: char) {
        let mut text = String::new();
        push_char(&mut text, char);
        if self.flags.fold && (char.is_ascii_alphabetic() || !char.is_ascii()) {
            text = format!("(?i:{text})");
        }
        self.atom(&text);
    }

    /// `(`, with everything that may follow a `(?`.
    fn open(&mut self) -> Result<(), Refusal> {
        let start = self.at;
        if !self.accept("(?") {
            self.at += 1;
            self.enter(self.flags);
            return Ok(());
        }
        let rest = &self.pattern[start..];
        if (rest.starts_with("(?P<") && rest.len() > 4) || (rest.starts_with("(?<") && rest.len() > 3) {
            return self.named(start);
        }
        let (mut flags, mut on, mut saw) = (self.flags, true, false);
        while let Some(char) = self.bump() {
            match char {
                'i' => flags.fold = on,
                'm' => flags.multi_line = on,
                's' => flags.dot_all = on,
                'U' => {}
                '-' if on => {
                    (on, saw) = (false, false);
                    continue;
                }
                ':' if on || saw => {
                    self.enter(flags);
                    return Ok(());
                }
                ')' if on || saw => {
                    self.flags = flags;
                    return Ok(());
                }
                _ => break,
            }
            saw = true;
        }
        self.invalid("invalid or unsupported Perl syntax", start)
    }

    /// `(?P<name>` or `(?<name>`. The name itself changes nothing.
    fn named(&mut self, start: usize) -> Result<(), Refusal> {
        let rest = &self.pattern[start..];
        let Some(end) = rest.find('>') else {
            return Err(invalid("invalid named capture", rest));
        };
        let name_at = if rest.starts_with("(?<") { 3 } else { 4 };
        let name = rest.get(name_at..end).unwrap_or_default();
        self.at = start + end + 1;
        if name.is_empty() || !name.chars().all(|char| char == '_' || char.is_ascii_alphanumeric()) {
            return self.invalid("invalid named capture", start);
        }
        self.enter(self.flags);
        Ok(())
    }

    fn enter(&mut self, flags: Flags) {
        self.settle();
        self.groups.push(Group {
            start: self.out.len(),
            flags: self.flags,
            weight: self.weight,
        });
        self.out.push_str("(?:");
        (self.flags, self.weight) = (flags, 1);
    }

    fn close(&mut self) -> Result<(), Refusal> {
        let Some(group) = self.groups.pop() else {
            return Err(invalid("unexpected )", self.pattern));
        };
        self.settle();
        self.at += 1;
        self.out.push(')');
        self.last = Some(Atom {
            start: group.start,
            weight: self.weight,
            repeated: false,
        });
        self.weight = group.weight;
        self.flags = group.flags;
        Ok(())
    }

    /// `{n}`, `{n,}` or `{n,m}`; anything else makes the brace a plain one.
    fn counts(&mut self) -> Result<Option<Counts>, Refusal> {
        let start = self.at;
        // No further than what may be counts: a brace that is none must not be looked for again and again.
        let counts = self.rest()[1..]
            .bytes()
            .take_while(|byte| byte.is_ascii_digit() || *byte == b',');
        let end = 1 + counts.count();
        if !self.rest()[end..].starts_with('}') {
            return Ok(None);
        }
        let inside = &self.rest()[1..end];
        let (least, most) = match inside.split_once(',') {
            None => (count(inside), count(inside).map(Some)),
            Some((least, "")) => (count(least), Some(None)),
            Some((least, most)) => (count(least), count(most).map(Some)),
        };
        let (Some(least), Some(most)) = (least, most) else {
            return Ok(None);
        };
        self.at += end + 1;
        if least > MAX_REPEAT || most.is_some_and(|most| most > MAX_REPEAT || most < least) {
            return self.invalid("invalid repeat count", start);
        }
        Ok(Some(Counts { least, most }))
    }

    /// A repetition that starts at `start` and reaches up to `at`, written as `text`.
    fn repeat(
        &mut self,
        start: usize,
        previous: Option<usize>,
        text: &str,
        counts: Option<Counts>,
    ) -> Result<(), Refusal> {
        // Lazy or greedy: a whole match is the same.
        self.accept("?");
        if let Some(previous) = previous {
            return self.invalid("invalid nested repetition operator", previous);
        }
        let Some(mut atom) = self.last else {
            return self.invalid("missing argument to repetition operator", start);
        };
        if let Some(Counts { least, most }) = counts {
            atom.weight = match most.unwrap_or(least) {
                0 if most.is_some() => 1,
                times => atom.weight.saturating_mul(times.max(1)),
            };
            if (least >= 2 || most.is_some_and(|most| most >= 2)) && atom.weight > MAX_REPEAT {
                return self.invalid("invalid repeat count", start);
            }
        }
        if atom.repeated {
            self.stacked += 1;
            if self.stacked > MAX_STACKED {
                let problem = format!("it repeats repetitions more than {MAX_STACKED} times");
                return Err(Refusal::Unsupported(problem));
            }
            self.out.insert_str(atom.start, "(?:");
            self.out.push(')');
        }
        self.out.push_str(text);
        atom.repeated = true;
        self.last = Some(atom);
        self.last_repeat = Some(start);
        Ok(())
    }

    /// A class such as `\pL` was met.
    fn count_unicode(&mut self) -> Result<(), Refusal> {
        self.unicode_classes += 1;
        if self.unicode_classes > MAX_UNICODE_CLASSES {
            let problem = format!(r"it has more than {MAX_UNICODE_CLASSES} classes such as \pL");
            return Err(Refusal::Unsupported(problem));
        }
        Ok(())
    }
}

/// A count, saturated; `None` if it is no count in Go's eyes (leading zeros are not).
fn count(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = digits.len() > 1 && digits.starts_with('0');
    (plain && !leading_zero).then(|| digits.parse().unwrap_or(u32::MAX))
}

/// Go's error text, without its beginning.
fn invalid(code: &str, text: &str) -> Refusal {
    Refusal::Invalid(format!("{code}: `{text}`"))
}

/// A character that means itself, inside and outside of a class.
fn push_char(out: &mut String, char: char) {
    if char.is_ascii_alphanumeric() || !char.is_ascii() {
        out.push(char);
    } else {
        out.push_str(&format!("\\x{{{:X}}}", u32::from(char)));
    }
}
