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

/// What the lexer must know of a flag before it knows the command; the same in every command that has it.
#[derive(Clone, Debug)]
struct Flag {
    /// Takes no value.
    switch: bool,
    /// A switch that is on unless it is turned off.
    on_by_default: bool,
    /// May be repeated.
    list: bool,
    /// Valid without a command.
    common: bool,
    short: Option<char>,
    /// The commands that have it.
    commands: Vec<String>,
}

/// Whether a flag takes no value. One that is on unless it is turned off has an optional value in clap's definition.
pub(super) fn is_switch(arg: &clap::Arg) -> bool {
    !arg.get_action().takes_values() || is_on_by_default(arg)
}

fn is_on_by_default(arg: &clap::Arg) -> bool {
    arg.get_num_args()
        .is_some_and(|count| count.takes_values() && count.min_values() == 0)
}

/// The commands and flags that exist.
#[derive(Debug)]
pub(super) struct Spec<'a> {
    root: &'a clap::Command,
    flags: BTreeMap<String, Flag>,
}

impl<'a> Spec<'a> {
    /// Reads the definition; flags that `root` itself has are valid without a command.
    pub(super) fn new(root: &'a clap::Command) -> Self {
        let mut flags: BTreeMap<String, Flag> = BTreeMap::new();
        for (name, command) in commands(root) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                let flag = flags.entry(long.to_owned()).or_insert_with(|| Flag {
                    switch: is_switch(arg),
                    on_by_default: is_on_by_default(arg),
                    list: matches!(arg.get_action(), clap::ArgAction::Append),
                    common: false,
                    short: arg.get_short(),
                    commands: Vec::new(),
                });
                match name.is_empty() {
                    true => flag.common = true,
                    false => flag.commands.push(name.join(" ")),
                }
            }
        }
        Self { root, flags }
    }
}

/// The definition of the command that these words name; that of the program if there are none.
pub(super) fn find<'a>(root: &'a clap::Command, path: &[String]) -> Option<&'a clap::Command> {
    path.iter()
        .try_fold(root, |command, name| command.find_subcommand(name))
}

/// Every command by the words that name it, groups of commands and the program itself (no words) too, parents first.
pub(super) fn commands(root: &clap::Command) -> Vec<(Vec<String>, &clap::Command)> {
    let mut found = vec![(Vec::new(), root)];
    for command in root.get_subcommands() {
        let below = commands(command).into_iter();
        found.extend(below.map(|(path, inner)| ([vec![command.get_name().to_owned()], path].concat(), inner)));
    }
    found
}

/// A request to print something in place of running; of several the first counts, whatever stands around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PrintRequest {
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
    /// The words of the command, as far as it was reached.
    pub(super) command: Vec<String>,
    /// Flags in order: name, and value or (for a switch) whether it is on.
    flags: Vec<(String, Given)>,
    /// What to print in place of running.
    pub(super) request: Option<PrintRequest>,
    /// `--help` or `-h` was there.
    pub(super) help: bool,
    /// `--completion-bash` was there.
    pub(super) complete: bool,
    /// The first mistake in the form; reading stopped there.
    pub(super) mistake: Option<String>,
    /// The first flag that was given twice though it is no list.
    pub(super) repeated: Option<String>,
    /// A flag that needs a command, and a command that has it.
    pub(super) without_command: Option<(String, String)>,
}

#[derive(Debug)]
enum Given {
    Value(OsString),
    /// Whether it is on, and whether it would be if it were not given.
    Switch(bool, bool),
}

impl Words {
    /// The values that were given for a flag, in order; of a switch whether it is on.
    pub(super) fn values(&self, flag: &str) -> impl Iterator<Item = String> {
        let given = self.flags.iter().filter(move |(name, _)| name == flag);
        given.map(|(_, given)| match given {
            Given::Value(value) => value.to_string_lossy().into_owned(),
            Given::Switch(on, _) => on.to_string(),
        })
    }

    /// The same flags as a command line for clap: a switch that is off is left out (or told to be off, if it is on
    /// otherwise), a value is tied to its flag.
    pub(super) fn for_clap(&self, command: &[String]) -> Vec<OsString> {
        let flags = self.flags.iter().filter_map(|(name, given)| match given {
            Given::Switch(false, true) => Some(format!("--{name}=false").into()),
            Given::Switch(on, _) => on.then(|| format!("--{name}").into()),
            Given::Value(value) => {
                let mut word = OsString::from(format!("--{name}="));
                word.push(value);
                Some(word)
            }
        });
        let command = command.iter().map(OsString::from);
        [OsString::from("narthex")]
            .into_iter()
            .chain(command)
            .chain(flags)
            .collect()
    }
}

/// Reads the words after the program's name.
pub(super) fn read(args: impl IntoIterator<Item = OsString>, spec: &Spec<'_>) -> Words {
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
    spec: &'a Spec<'a>,
    args: VecDeque<OsString>,
    /// What stood behind the `=` of the flag just read.
    tied: Option<OsString>,
    /// `--` was there: flags are words from here on.
    words_only: bool,
    files: usize,
}

impl<'a> Reader<'a> {
    fn new(args: impl IntoIterator<Item = OsString>, spec: &'a Spec<'a>) -> Self {
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
                Token::Short(short) => {
                    let unknown = || format!("unknown flag -{}", printable(&short.to_string()));
                    let name = self.long(short).ok_or_else(unknown)?;
                    self.flag(name, words)?;
                }
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
            // What follows is the value of a flag that takes one, and else more flags.
            let value = self.long(first).is_some_and(|name| !self.spec.flags[name].switch);
            let rest = &short[first.len_utf8().min(short.len())..];
            match chars.as_str() {
                "" => {}
                _ if value => self.tied = Some(OsStr::from_bytes(rest).to_owned()),
                more => self.args.push_front(format!("-{more}").into()),
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

    /// The long name of a short flag.
    fn long(&self, short: char) -> Option<&'a str> {
        let spec = self.spec;
        let found = spec.flags.iter().find(|(_, flag)| flag.short == Some(short));
        found.map(|(name, _)| name.as_str())
    }

    fn word(&mut self, word: OsString, words: &mut Words) -> Result<(), String> {
        let text = word.to_string_lossy();
        if let Some(PrintRequest::HelpCommand(topics)) = &mut words.request {
            topics.push(text.into_owned());
            return Ok(());
        }
        if words.command.is_empty() && text == "help" {
            words.request.get_or_insert(PrintRequest::HelpCommand(Vec::new()));
            return Ok(());
        }
        // What was reached is there: each word of it was found.
        let reached = find(self.spec.root, &words.command).unwrap_or(self.spec.root);
        if !reached.has_subcommands() {
            return Err(format!(
                "unexpected {} after {}",
                quoted(&text),
                words.command.join(" ")
            ));
        }
        if reached.find_subcommand(&*text).is_none() {
            let names: Vec<&str> = reached.get_subcommands().map(clap::Command::get_name).collect();
            let group = match words.command.is_empty() {
                true => String::new(),
                false => format!(" after {}", words.command.join(" ")),
            };
            return Err(format!(
                "expected a command{group} ({}), got {}",
                names.join(", "),
                quoted(&text)
            ));
        }
        words.command.push(text.into_owned());
        words.flags.iter().try_for_each(|(name, _)| self.belongs(name, words))
    }

    /// Refuses a flag that the command does not have, once the command is known to its last word.
    fn belongs(&self, name: &str, words: &Words) -> Result<(), String> {
        let complete = find(self.spec.root, &words.command).is_some_and(|command| !command.has_subcommands());
        let Some(flag) = self.spec.flags.get(name).filter(|_| complete) else {
            return Ok(());
        };
        let command = words.command.join(" ");
        if flag.commands.contains(&command) {
            return Ok(());
        }
        let others = flag.commands.join(", ");
        Err(format!("unknown flag --{name} for {command}: it is one of {others}"))
    }

    fn flag(&mut self, name: &str, words: &mut Words) -> Result<(), String> {
        let spec = self.spec;
        let unknown = || format!("unknown flag --{}", printable(name));
        let (name, flag, on) = match spec.flags.get(name) {
            Some(flag) => (name, flag, true),
            None => {
                let positive = name.strip_prefix("no-").ok_or_else(unknown)?;
                let flag = spec.flags.get(positive).filter(|flag| flag.switch);
                (positive, flag.ok_or_else(unknown)?, false)
            }
        };
        self.belongs(name, words)?;
        if flag.switch {
            if self.tied.take().is_some() {
                return Err(format!("--{name} takes no value: write --{name} or --no-{name}"));
            }
            if record_print_request(name, words) {
                return Ok(());
            }
        }
        let given = if flag.switch {
            Given::Switch(on, flag.on_by_default)
        } else {
            Given::Value(self.value(name)?)
        };
        if !flag.common {
            let command = flag.commands.first().cloned().unwrap_or_default();
            words.without_command.get_or_insert_with(|| (name.to_owned(), command));
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

/// Records a switch that asks for something to be printed; false if `name` is none of those.
fn record_print_request(name: &str, words: &mut Words) -> bool {
    let request = match name {
        "help" => {
            words.help = true;
            return true;
        }
        "completion-bash" => {
            words.complete = true;
            return true;
        }
        "version" => PrintRequest::Version,
        "help-long" => PrintRequest::HelpLong,
        "help-man" => PrintRequest::HelpMan,
        "completion-script-bash" => PrintRequest::BashScript,
        "completion-script-zsh" => PrintRequest::ZshScript,
        _ => return false,
    };
    words.request.get_or_insert(request);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::text::definition;

    #[test]
    fn a_flag_means_the_same_to_the_lexer_in_every_command() {
        let root = definition();
        let spec = Spec::new(&root);
        let (mut seen, mut shorts) = (0, BTreeMap::new());
        for (path, command) in commands(&root) {
            for arg in command.get_arguments() {
                let long = arg.get_long().expect("every flag has a long name");
                let (flag, what) = (&spec.flags[long], format!("--{long} of {path:?}"));
                assert_eq!(flag.switch, is_switch(arg), "{what}");
                assert_eq!(flag.on_by_default, is_on_by_default(arg), "{what}");
                assert_eq!(flag.list, matches!(arg.get_action(), clap::ArgAction::Append), "{what}");
                assert_eq!(flag.short, arg.get_short(), "{what}");
                if let Some(short) = arg.get_short() {
                    assert_eq!(*shorts.entry(short).or_insert(long), long, "-{short}");
                }
                assert!(!long.starts_with("no-"), "{what}: it would be the end of another");
                seen += 1;
            }
        }
        assert!(seen > 150 && shorts.len() >= 3, "{seen} {shorts:?}");
        let on: Vec<_> = spec.flags.iter().filter(|(_, flag)| flag.on_by_default).collect();
        let mut on: Vec<&str> = on.iter().map(|(name, _)| name.as_str()).collect();
        on.sort_unstable();
        assert_eq!(
            on,
            ["prometheus", "store.sealed-from-disk", "upload-compacted", "write"]
        );
    }

    #[test]
    fn commands_are_found_to_any_depth() {
        let root = definition();
        let names: Vec<String> = commands(&root).iter().map(|(path, _)| path.join(" ")).collect();
        let want = [
            "",
            "sidecar",
            "check",
            "status",
            "backfill",
            "bucket",
            "bucket ls",
            "bucket inspect",
            "bucket verify",
            "bucket gaps",
            "restore",
            "tools",
            "tools bucket",
            "tools bucket upload-blocks",
        ];
        assert_eq!(names, want);
        let path = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(find(&root, &path("tools bucket")).unwrap().get_name(), "bucket");
        assert!(find(&root, &path("tools ls")).is_none() && find(&root, &path("bucket ls x")).is_none());
    }
}
