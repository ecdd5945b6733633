//! The command line: flags, their syntax and their checks.
//!
//! [`parse`] turns a command line into a [`Command`] of typed values or into a text to print; it never exits or prints,
//! and does no I/O but reading the files of `@file` words. Flags that take YAML in a file are read by whoever builds
//! the configuration, through [`content()`]. Nobody outside needs to know that clap is at work inside.

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};

mod argv;
mod check;
mod complete;
mod content;
mod examples;
mod flags;
mod manual;
mod settings;
mod table;
mod text;
mod value;

pub use content::{ContentError, Env, content, named, process_env};
pub use flags::*;
pub use table::{command_names, command_section, flag_table};
pub use text::version;
pub use value::{Address, HashFunc, InlineYaml, LogFormat, LogLevel, MinTime, ReloadMethod, TlsVersion, ValueError};

use argv::{PrintRequest, Spec, Words};

/// Ship Prometheus' blocks to object storage, proven complete, and answer queries for what it holds
#[derive(Parser)]
#[command(
    name = "narthex",
    disable_help_flag = true,
    disable_help_subcommand = true,
    term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What a command line comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Run this.
    Run(Command),
    /// Print a text, which ends with a newline, and exit.
    Print {
        /// To stdout; else to stderr.
        to_stdout: bool,
        /// The text.
        text: String,
        /// The exit code: 0 for what was asked for, 1 for a line that has the wrong form or cannot be run with, 2 for a
        /// bad value or a missing one.
        exit: u8,
    },
}

/// Reads a command line whose first word is the program's name.
///
/// What it prints where, and with which exit code, is as with Thanos:
///
/// | line | text | exit |
/// |---|---|---|
/// | `--help`, `-h`, `help`, `--version`, no command | to stderr | 0 |
/// | `--help-long`, `--help-man`, completion | to stdout | 0 |
/// | unknown flag, stray word, missing value, value for a switch, unreadable `@file` | one line to stderr | 1 |
/// | flags that cannot be run with | a line each to stderr | 1 |
/// | bad value, flag given twice, flag that is missing | usage and a line to stderr | 2 |
/// | a group of commands, without which of them | its help and a line to stderr | 2 |
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Outcome {
    let root = text::definition();
    let args: Vec<OsString> = args.into_iter().skip(1).collect();
    let words = argv::read(args.iter().cloned(), &Spec::new(&root));
    if words.complete {
        return stdout(complete::candidates(&root, &words, &args));
    }
    if let Some(request) = &words.request {
        return print_request(request, &root);
    }
    if let Some(mistake) = &words.mistake {
        return usage_error(mistake, &words.command);
    }
    if words.help {
        return stderr(text::help(&root, &words.command));
    }
    if !words.command.is_empty() && argv::find(&root, &words.command).is_some_and(clap::Command::has_subcommands) {
        return missing_subcommand(&root, &words.command);
    }
    run(&words, &root)
}

fn print_request(request: &PrintRequest, root: &clap::Command) -> Outcome {
    match request {
        PrintRequest::Version => stderr(version()),
        PrintRequest::HelpLong => stdout(text::long_help(root)),
        PrintRequest::HelpMan => stdout(manual::manual(root)),
        PrintRequest::BashScript => stdout(complete::BASH.to_owned()),
        PrintRequest::ZshScript => stdout(complete::ZSH.to_owned()),
        PrintRequest::HelpCommand(topics) if argv::find(root, topics).is_none() => usage_error("unknown command", &[]),
        PrintRequest::HelpCommand(topics) => stderr(text::help(root, topics)),
    }
}

/// The line stops at a group of commands.
fn missing_subcommand(root: &clap::Command, group: &[String]) -> Outcome {
    let names: Vec<&str> = argv::find(root, group)
        .into_iter()
        .flat_map(clap::Command::get_subcommands)
        .map(clap::Command::get_name)
        .collect();
    let message = format!("{} needs a command: {}", group.join(" "), names.join(", "));
    let help = text::help(root, group);
    Outcome::Print {
        to_stdout: false,
        text: format!("{help}narthex: error: {message}\n"),
        exit: 2,
    }
}

fn run(words: &Words, root: &clap::Command) -> Outcome {
    if let (true, Some((flag, command))) = (words.command.is_empty(), &words.without_command) {
        return usage_error(
            &format!("--{flag} needs a command: narthex {command} --{flag} ..."),
            &[],
        );
    }
    // Without a command the flags that every command has are still checked.
    let sidecar = ["sidecar".to_owned()];
    let path: &[String] = if words.command.is_empty() {
        &sidecar
    } else {
        &words.command
    };
    if let Some(flag) = &words.repeated {
        return bad_value(path, &format!("--{flag} is given more than once"));
    }
    let parsed = Cli::command()
        .try_get_matches_from(words.for_clap(path))
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let command = match parsed {
        Ok(cli) => cli.command,
        Err(error) => return bad_value(path, &text::value_error(&error)),
    };
    if words.command.is_empty() {
        return stderr(text::help(root, &[]));
    }
    if let Some(twice) = check::repeated_label(&command) {
        return bad_value(path, &format!("--label: {twice} is given more than once"));
    }
    let findings = check::command(&command);
    if findings.is_empty() {
        return Outcome::Run(with_settings(command, words, root));
    }
    let lines = findings
        .iter()
        .map(|line| format!("narthex: error: {line}\n"))
        .collect();
    Outcome::Print {
        to_stdout: false,
        text: lines,
        exit: 1,
    }
}

/// The command, which shows what it was started with where it can.
fn with_settings(mut command: Command, words: &Words, root: &clap::Command) -> Command {
    if let Command::Sidecar(flags) = &mut command {
        flags.settings = settings::of(words, root);
    }
    command
}

fn stderr(text: String) -> Outcome {
    Outcome::Print {
        to_stdout: false,
        text,
        exit: 0,
    }
}

fn stdout(text: String) -> Outcome {
    Outcome::Print {
        to_stdout: true,
        text,
        exit: 0,
    }
}

fn usage_error(mistake: &str, command: &[String]) -> Outcome {
    let text = format!("narthex: error: {mistake}; see {} --help\n", full_name(command));
    Outcome::Print {
        to_stdout: false,
        text,
        exit: 1,
    }
}

fn bad_value(command: &[String], message: &str) -> Outcome {
    let command = full_name(command);
    let usage = format!("usage: {command} [flags], see {command} --help\n");
    Outcome::Print {
        to_stdout: false,
        text: format!("{usage}narthex: error: {message}\n"),
        exit: 2,
    }
}

/// A command with the program's name before it, as it is typed.
fn full_name(command: &[String]) -> String {
    let words: String = command.iter().map(|word| format!(" {word}")).collect();
    format!("narthex{words}")
}
