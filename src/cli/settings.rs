//! What every flag of a command is set to, as it may be shown: without secrets.

use clap::Arg;
use url::Url;

use super::{
    argv::{Words, find, is_switch},
    flags::Setting,
    text::{HELP, shown_default},
};
use crate::model::url_text::without_secrets;

/// What is shown in the place of a secret.
const REDACTED: &str = "<redacted>";

/// The flags of the command that was read, in the order of its help; those that are hidden or have no default only if they
/// were given.
pub(super) fn of(words: &Words, root: &clap::Command) -> Vec<Setting> {
    let Some(command) = find(root, &words.command) else {
        return Vec::new();
    };
    let settings = command
        .get_arguments()
        .filter(|arg| arg.get_help_heading() != Some(HELP));
    settings.filter_map(|arg| setting(words, arg)).collect()
}

fn setting(words: &Words, arg: &Arg) -> Option<Setting> {
    let flag = arg.get_long()?;
    let given: Vec<String> = words.values(flag).map(|value| shown(arg, &value)).collect();
    let default = || match is_switch(arg) {
        true => Some("false".to_owned()),
        false => shown_default(arg),
    };
    let value = match given.is_empty() {
        true => default().filter(|_| !arg.is_hide_set())?,
        false => given.join(", "),
    };
    Some(Setting {
        flag: flag.to_owned(),
        value,
        given: !given.is_empty(),
    })
}

/// A value without what is secret in it.
fn shown(arg: &Arg, value: &str) -> String {
    let kind = arg.get_value_names().and_then(|names| names.first());
    match kind.map(|kind| kind.as_str()) {
        Some("yaml") if !value.is_empty() => REDACTED.to_owned(),
        Some("url") => Url::parse(value).map_or(REDACTED.to_owned(), |url| without_secrets(&url).into()),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, Outcome, parse};

    fn settings(flags: &[&str]) -> Vec<Setting> {
        let args = ["narthex", "sidecar"].iter().chain(flags).map(Into::into);
        match parse(args) {
            Outcome::Run(Command::Sidecar(flags)) => flags.settings,
            other => panic!("no sidecar: {other:?}"),
        }
    }

    fn value(settings: &[Setting], flag: &str) -> Option<(String, bool)> {
        let found = settings.iter().find(|setting| setting.flag == flag);
        found.map(|setting| (setting.value.clone(), setting.given))
    }

    #[test]
    fn defaults_and_what_was_given_are_told_apart_and_lists_are_whole() {
        let settings = settings(&[
            "--label=a=\"1\"",
            "--label=b=\"2\"",
            "--tsdb.path=/data",
            "--shipper.upload-compacted",
        ]);
        let is = |flag: &str, text: &str, given| {
            assert_eq!(value(&settings, flag), Some((text.to_owned(), given)), "{flag}")
        };
        is("label", "a=\"1\", b=\"2\"", true);
        is("tsdb.path", "/data", true);
        is("shipper.upload-compacted", "true", true);
        is("http-address", "0.0.0.0:10902", false);
        is("shipper.jitter", "0s", false);
        for hidden in ["shipper.ignore-unequal-block-size", "debug.name", "help", "http.config"] {
            assert_eq!(value(&settings, hidden), None, "{hidden}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let settings = settings(&[
            "--prometheus.url=http://admin:hunter2@localhost:9090/prom",
            "--objstore.config={type: S3, config: {secret_key: hunter2}}",
            "--prometheus.http-client={basic_auth: {password: hunter2}}",
        ]);
        assert_eq!(
            value(&settings, "prometheus.url"),
            Some(("http://localhost:9090/prom".to_owned(), true))
        );
        assert!(
            settings.iter().all(|setting| !setting.value.contains("hunter2")),
            "{settings:?}"
        );
        assert_eq!(value(&settings, "objstore.config"), Some((REDACTED.to_owned(), true)));
    }
}
