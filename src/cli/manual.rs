//! The manual page, made from the definition of the flags.

use clap::Arg;

use super::{
    argv::{commands, is_switch},
    examples,
    text::{shown_default, signature},
};

/// A manual page of the program and all its commands, as input for man.
pub(super) fn manual(root: &clap::Command) -> String {
    let about = root.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = format!(
        ".TH NARTHEX 1 \"\" \"narthex {}\"\n.SH NAME\nnarthex \\- {}\n.SH SYNOPSIS\n.B narthex\n\
         .RI \" command \" [ flags ]\n",
        env!("CARGO_PKG_VERSION"),
        roff(&about)
    );
    page.push_str(".SH COMMANDS\n");
    let leaves = || {
        commands(root)
            .into_iter()
            .filter(|(_, command)| !command.has_subcommands())
    };
    for (path, command) in leaves() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        page.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", roff(&path.join(" ")), roff(&about)));
    }
    for (path, command) in leaves() {
        section(&mut page, &path, command);
    }
    page
}

/// What there is to say of one command.
fn section(page: &mut String, path: &[String], command: &clap::Command) {
    let about = command
        .get_long_about()
        .or(command.get_about())
        .map(ToString::to_string)
        .unwrap_or_default();
    page.push_str(&format!(".SH narthex {}\n{}\n", roff(&path.join(" ")), roff(&about)));
    let mut heading = None;
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        if heading != arg.get_help_heading() {
            heading = arg.get_help_heading();
            page.push_str(&format!(".SS {}\n", roff(heading.unwrap_or_default())));
        }
        flag(page, arg);
    }
    if let Some(codes) = examples::exit_codes(path) {
        page.push_str(".SS Exit codes\n");
        for (code, meaning) in codes {
            page.push_str(&format!(".TP\n\\fB{code}\\fR\n{}\n", roff(meaning)));
        }
    }
    let examples = examples::of(path);
    if !examples.is_empty() {
        page.push_str(".SS Examples\n");
    }
    for example in examples {
        page.push_str(&format!(
            ".PP\n{}:\n.PP\n.RS 4\n.nf\n{}\n.fi\n.RE\n",
            roff(example.what),
            roff(example.line)
        ));
    }
}

fn flag(page: &mut String, arg: &Arg) {
    let help = arg
        .get_long_help()
        .or(arg.get_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    page.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", roff(&signature(arg)), roff(&help)));
    let values = arg.get_possible_values();
    if !values.is_empty() && !is_switch(arg) {
        let names: Vec<&str> = values.iter().map(|value| value.get_name()).collect();
        page.push_str(&format!(".br\nOne of: {}.\n", roff(&names.join(", "))));
    }
    if let Some(default) = shown_default(arg) {
        page.push_str(&format!(".br\nDefault: {}.\n", roff(&default)));
    }
}

/// Text as roff takes it: no macro at the start of a line, no lost sign.
fn roff(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
        .replace('`', "\\(ga")
        .replace('~', "\\(ti")
        .replace('^', "\\(ha");
    let lines = escaped.lines().map(|line| match line {
        "" => ".sp".to_owned(),
        line if line.starts_with('.') => format!("\\&{line}"),
        line => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sign_is_lost_in_a_manual_page() {
        assert_eq!(roff("a-b"), "a\\-b");
        assert_eq!(roff(".TH\n'x\n\n\\n `~^"), "\\&.TH\n\\(aqx\n.sp\n\\en \\(ga\\(ti\\(ha");
    }

    #[test]
    fn a_page_has_only_lines_that_man_knows() {
        let page = manual(&super::super::text::definition());
        let known = [
            ".TH ", ".SH ", ".SS ", ".TP", ".PP", ".B ", ".RI ", ".RS 4", ".RE", ".nf", ".fi", ".br", ".sp",
        ];
        for line in page.lines() {
            assert!(!line.is_empty() && !line.starts_with('\''), "{line:?}");
            let macro_or_text = !line.starts_with('.') || known.iter().any(|known| line.starts_with(known));
            assert!(macro_or_text, "{line:?}");
        }
        for part in [
            ".SH narthex bucket verify\n",
            ".SH narthex tools bucket upload\\-blocks\n",
            "\\fB\\-\\-[no\\-]upload\\-compacted\\fR",
            "\\fB\\-l, \\-\\-selector=<selector>\\fR",
            ".br\nOne of: ids, wide, json.\n",
            ".SS Examples\n",
            ".SS Exit codes\n.TP\n\\fB0\\fR\n",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }
}
