//! The program: parses, prints what was asked for, or runs and exits.

use std::{
    io::{Write, stderr, stdout},
    process::ExitCode,
};

use narthex::{cli, cmd};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        cli::Outcome::Run(command) => cmd::run(command),
        cli::Outcome::Print { to_stdout, text, exit } => {
            // Nobody is left to be told when the terminal is gone.
            let _ = if to_stdout {
                stdout().write_all(text.as_bytes())
            } else {
                stderr().write_all(text.as_bytes())
            };
            ExitCode::from(exit)
        }
    }
}
