//! The words of a command line, read by the rules of kingpin, the parser that Thanos uses.
//!
//! clap differs from kingpin in what it takes for a flag's value, in switches (`--no-x`), in `@file` and in exit codes.
//! So this module splits the words, with clap's definition as the only list of flags, and hands clap a command line in
//! its plainest form; clap then only turns values into types. Apart from reading `@file` nothing here does I/O.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::Path,
};

/// How many `@file` words may be opened for one command line: ends files that name each other.
const FILES_AT_MOST: usize = 100;

/// What the lexer must know of a flag.
#[derive(Clone, Copy, Debug)]
struct Flag {
    /// Takes no value.
    switch: bool,
    /// May be repeated.
    list: bool,
    /// Valid without a command.
    common: bool,
}

/// The commands and flags that exist.
#[derive(Debug)]
pub(super) struct Spec {
    flags: BTreeMap<String, Flag>,
    commands: Vec<String>,
}

impl Spec {
    /// Reads the definition; flags that `root` itself has are valid without a command.
    pub(super) fn new(root: &clap::Command) -> Self {
        let flag = |arg: &clap::Arg, common| {
            let switch = !arg.get_action().takes_values();
            let list = matches!(arg.get_action(), clap::ArgAction::Append);
            Some((arg.get_long()?.to_owned(), Flag { switch, list, common }))
        };
        let of_commands = root.get_subcommands().flat_map(|command| command.get_arguments());
        let flags = of_commands
            .filter_map(|arg| flag(arg, false))
            .chain(root.get_arguments().filter_map(|arg| flag(arg, true)))
            .collect();
        Self {
            flags,
            commands: root
                .get_subcommands()
                .map(|command| command.get_name().to_owned())
                .collect(),
        }
    }
}

/// A request to print something in place of running; of several the first counts, whatever stands around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The command `help`, with the commands that it names.
    HelpCommand(Vec<String>),
    HelpLong,
    HelpMan,
    Version,
    BashScript,
    ZshScript,
}

/// A command line, taken apart.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The command, if one was reached.
    pub(super) command: Option<String>,
    /// Flags in order: name, and value or (for a switch) whether it is on.
    flags: Vec<(String, Given)>,
    /// What to print in place of running.
    pub(super) ask: Option<Ask>,
    /// `--help` or `-h` was there.
    pub(super) help: bool,
    /// `--completion-bash` was there.
    pub(super) complete: bool,
    /// The first mistake in the form; reading stopped there.
    pub(super) mistake: Option<String>,
    /// The first flag that was given twice though it is no list.
    pub(super) repeated: Option<String>,
    /// A flag that needs a command.
    pub(super) homeless: Option<String>,
}

#[derive(Debug)]
enum Given {
    Value(OsString),
    Switch(bool),
}

impl Words {
    /// The same flags as a command line for clap: a switch that is off is left out, a value is tied to its flag.
    pub(super) fn for_clap(&self, command: &str) -> Vec<OsString> {
        let flags = self.flags.iter().filter_map(|(name, given)| match given {
            Given::Switch(on) => on.then(|| format!("--{name}").into()),
            Given::Value(value) => {
                let mut word = OsString::from(format!("--{name}="));
                word.push(value);
                Some(word)
            }
        });
        [OsString::from("narthex"), OsString::from(command)]
            .into_iter()
            .chain(flags)
            .collect()
    }
}

/// Reads the words after the program's name.
pub(super) fn read(args: impl IntoIterator<Item = OsString>, spec: &Spec) -> Words {
    let mut reader = Reader::new(args, spec);
    let mut words = Words::default();
    if let Err(mistake) = reader.run(&mut words) {
        words.mistake = Some(mistake);
    }
    words
}

enum Token {
    /// `--name`, without the dashes.
    Long(String),
    /// `-x`.
    Short(char),
    Word(OsString),
    End,
}

struct Reader<'a> {
    spec: &'a Spec,
    args: VecDeque<OsString>,
    /// What stood behind the `=` of the flag just read.
    tied: Option<OsString>,
    /// `--` was there: flags are words from here on.
    words_only: bool,
    files: usize,
}

impl<'a> Reader<'a> {
    fn new(args: impl IntoIterator<Item = OsString>, spec: &'a Spec) -> Self {
        Self {
            spec,
            args: args.into_iter().collect(),
            tied: None,
            words_only: false,
            files: 0,
        }
    }

    fn run(&mut self, words: &mut Words) -> Result<(), String> {
        loop {
            match self.next()? {
                Token::End => return Ok(()),
                Token::Word(word) => self.word(word, words)?,
                Token::Long(name) => self.flag(&name, words)?,
                Token::Short('h') => words.help = true,
                Token::Short(other) => return Err(format!("unknown flag -{}", printable(&other.to_string()))),
            }
        }
    }

    fn next(&mut self) -> Result<Token, String> {
        if let Some(value) = self.tied.take() {
            return Ok(Token::Word(value));
        }
        let Some(arg) = self.args.pop_front() else {
            return Ok(Token::End);
        };
        let bytes = arg.as_bytes();
        if self.words_only {
            return Ok(Token::Word(arg));
        }
        if bytes == b"--" {
            self.words_only = true;
            return self.next();
        }
        if let Some(long) = bytes.strip_prefix(b"--") {
            let mut halves = long.splitn(2, |byte| *byte == b'=');
            let name = String::from_utf8_lossy(halves.next().unwrap_or_default()).into_owned();
            self.tied = halves.next().map(|value| OsStr::from_bytes(value).to_owned());
            return Ok(Token::Long(name));
        }
        if let Some(short) = bytes.strip_prefix(b"-").filter(|short| !short.is_empty()) {
            let text = String::from_utf8_lossy(short).into_owned();
            let mut chars = text.chars();
            let first = chars.next().unwrap_or('-');
            if !chars.as_str().is_empty() {
                self.args.push_front(format!("-{}", chars.as_str()).into());
            }
            return Ok(Token::Short(first));
        }
        if let Some(path) = bytes.strip_prefix(b"@") {
            self.expand(Path::new(OsStr::from_bytes(path)))?;
            return self.next();
        }
        Ok(Token::Word(arg))
    }

    /// Puts the lines of a file in front of what is left to read.
    fn expand(&mut self, path: &Path) -> Result<(), String> {
        if path.as_os_str().is_empty() {
            return Err("@ needs the name of a file with arguments".to_owned());
        }
        self.files += 1;
        if self.files > FILES_AT_MOST {
            let path = path.display();
            return Err(format!(
                "@{path}: more than {FILES_AT_MOST} argument files, does one name itself?"
            ));
        }
        let text = fs_err::read(path).map_err(|error| format!("arguments cannot be read: {error}"))?;
        for line in text.split(|byte| *byte == b'\n').rev() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.starts_with(b"#") && !line.trim_ascii().is_empty() {
                self.args.push_front(OsString::from_vec(line.to_vec()));
            }
        }
        Ok(())
    }

    fn word(&mut self, word: OsString, words: &mut Words) -> Result<(), String> {
        let text = word.to_string_lossy();
        if let Some(Ask::HelpCommand(topics)) = &mut words.ask {
            topics.push(text.into_owned());
            return Ok(());
        }
        match &words.command {
            Some(command) => Err(format!("unexpected {} after {command}", quoted(&text))),
            None if text == "help" => {
                words.ask.get_or_insert(Ask::HelpCommand(Vec::new()));
                Ok(())
            }
            None if self.spec.commands.iter().any(|command| *command == text) => {
                words.command = Some(text.into_owned());
                Ok(())
            }
            None => Err(format!(
                "expected a command ({}), got {}",
                self.spec.commands.join(", "),
                quoted(&text)
            )),
        }
    }

    fn flag(&mut self, name: &str, words: &mut Words) -> Result<(), String> {
        let unknown = || format!("unknown flag --{}", printable(name));
        let (name, flag, on) = match self.spec.flags.get(name) {
            Some(flag) => (name, *flag, true),
            None => {
                let positive = name.strip_prefix("no-").ok_or_else(unknown)?;
                let flag = self.spec.flags.get(positive).filter(|flag| flag.switch);
                (positive, *flag.ok_or_else(unknown)?, false)
            }
        };
        if flag.switch {
            if self.tied.take().is_some() {
                return Err(format!("--{name} takes no value: write --{name} or --no-{name}"));
            }
            if ask(name, words) {
                return Ok(());
            }
        }
        let given = if flag.switch {
            Given::Switch(on)
        } else {
            Given::Value(self.value(name)?)
        };
        if !flag.common {
            words.homeless.get_or_insert_with(|| name.to_owned());
        }
        if !flag.list && words.flags.iter().any(|(earlier, _)| earlier == name) {
            words.repeated.get_or_insert_with(|| name.to_owned());
        }
        words.flags.push((name.to_owned(), given));
        Ok(())
    }

    fn value(&mut self, name: &str) -> Result<OsString, String> {
        match self.next()? {
            Token::Word(value) => Ok(value),
            _ => Err(format!("--{name} needs a value: write --{name}=value")),
        }
    }
}

/// Notes a switch that asks for something to be printed; false if `name` is none of those.
fn ask(name: &str, words: &mut Words) -> bool {
    let ask = match name {
        "help" => {
            words.help = true;
            return true;
        }
        "completion-bash" => {
            words.complete = true;
            return true;
        }
        "version" => Ask::Version,
        "help-long" => Ask::HelpLong,
        "help-man" => Ask::HelpMan,
        "completion-script-bash" => Ask::BashScript,
        "completion-script-zsh" => Ask::ZshScript,
        _ => return false,
    };
    words.ask.get_or_insert(ask);
    true
}

/// A word of the command line in quotes, on one line and not too long: it may be a piece of somebody's YAML.
fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(text))
}

fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push_str("...");
    }
    shown
}
