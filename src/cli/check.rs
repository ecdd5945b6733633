//! Flags whose values are right in themselves and still cannot be run with.
//!
//! A flag of Thanos whose function narthex does not have yet is refused, so that nobody relies on what is not there. A
//! flag that only tunes a function which is off is accepted, as Thanos accepts it.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    content::named,
    flags::{
        BackfillSource, BlockTimes, Bucket, Command, Common, Gaps, Restore, Selection, Sidecar, Tools, ToolsBucket,
    },
    value::InlineYaml,
};

/// Less than this, in bytes a second, nobody means.
const LEAST_RATE: u64 = 1024;
/// Less than this, in bytes, and no call could be answered.
const LEAST_MEMORY: u64 = 1 << 20;

/// Everything that stands against running, one line each; empty if nothing does.
pub(super) fn command(command: &Command) -> Vec<String> {
    let mut found = Findings(Vec::new());
    common(command.common(), &mut found);
    match command {
        Command::Sidecar(flags) => sidecar(flags, &mut found),
        Command::Check(flags) => {
            sidecar(&flags.sidecar, &mut found);
            found.when(
                flags.check.timeout.is_zero(),
                "--timeout must be above 0, for example 30s".to_owned(),
            );
        }
        Command::Status(flags) => found.when(
            flags.timeout.is_zero(),
            "--timeout must be above 0, for example 10s".to_owned(),
        ),
        Command::Backfill(flags) => backfill(&flags.source, &mut found),
        Command::Bucket(Bucket::Ls(flags)) => selection(&flags.blocks.selection, &mut found),
        Command::Bucket(Bucket::Inspect(flags)) => selection(&flags.blocks.selection, &mut found),
        Command::Bucket(Bucket::Verify(flags)) => selection(&flags.blocks.selection, &mut found),
        Command::Bucket(Bucket::Gaps(flags)) => gaps(flags, &mut found),
        Command::Restore(flags) => restore(flags, &mut found),
        Command::Tools(Tools::Bucket(ToolsBucket::UploadBlocks(_))) => {}
    }
    found.0
}

fn sidecar(flags: &Sidecar, found: &mut Findings) {
    found.when(
        given(&flags.reloader.config_file) && flags.reloader.config_file == flags.reloader.envsubst_file,
        "--reloader.config-envsubst-file is the same as --reloader.config-file, which it would overwrite: name another file"
            .to_owned(),
    );
    let prometheus = &flags.prometheus;
    for (name, value) in [
        ("prometheus.get_config_interval", prometheus.get_config_interval),
        ("prometheus.get_config_timeout", prometheus.get_config_timeout),
        ("store.timeout", flags.store.timeout),
    ] {
        found.when(value.is_zero(), format!("--{name} must be above 0, for example 30s"));
    }
    found.when(
        (1..LEAST_RATE).contains(&flags.shipper.max_rate),
        "--shipper.max-rate must be at least 1KiB (a second), or 0 for no limit: a number without a unit is one of bytes"
            .to_owned(),
    );
    found.when(
        flags.store.memory_limit < LEAST_MEMORY,
        "--store.memory-limit must be at least 1MiB, for example 256MiB: no call could be answered".to_owned(),
    );
}

fn backfill(source: &BackfillSource, found: &mut Findings) {
    times(source.times, found);
    found.when(
        set(&source.client.http_client, &source.client.http_client_file) && source.prometheus_url.is_none(),
        "--prometheus.http-client and --prometheus.http-client-file say how to ask a Prometheus: give \
         --prometheus.url, too"
            .to_owned(),
    );
    found.when(
        source.accept_label_change && source.label.is_empty() && source.prometheus_url.is_none(),
        "--accept-label-change needs labels to change to: give --label or --prometheus.url, too".to_owned(),
    );
}

fn selection(selection: &Selection, found: &mut Findings) {
    times(selection.times, found);
}

fn restore(flags: &Restore, found: &mut Findings) {
    selection(&flags.blocks.selection, found);
    for (flag, is_given) in [("until", flags.until.is_some()), ("if-lost", flags.if_lost)] {
        found.when(
            is_given && !flags.wal,
            format!("--{flag} is about the write-ahead log: give --wal, too"),
        );
    }
}

fn gaps(flags: &Gaps, found: &mut Findings) {
    selection(&flags.blocks.selection, found);
    let now = now();
    found.when(
        flags
            .until
            .is_some_and(|until| until.resolve(now) <= flags.blocks.selection.times.min_time.resolve(now)),
        "--until is not after --min-time: there is no time in between".to_owned(),
    );
    found.when(
        flags.slot < SHORTEST_SLOT,
        "--slot must be at least 1s; blocks are 2h long unless Prometheus is told otherwise".to_owned(),
    );
}

/// Shorter slots are a mistake in the unit, and would be far too many.
const SHORTEST_SLOT: Duration = Duration::from_secs(1);

fn times(times: BlockTimes, found: &mut Findings) {
    let now = now();
    found.when(
        times.min_time.resolve(now) > times.max_time.resolve(now),
        "--min-time is after --max-time: no block can be in between".to_owned(),
    );
}

/// The time (ms since 1970); a clock that stands before 1970 is taken for 1970.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn common(flags: &Common, found: &mut Findings) {
    let ratio = flags.auto_gomemlimit_ratio;
    let inside = ratio > 0.0 && ratio <= 1.0;
    found.when(
        !inside,
        format!("--auto-gomemlimit.ratio must be above 0 and at most 1, not {ratio}"),
    );
}

struct Findings(Vec<String>);

impl Findings {
    fn when(&mut self, wrong: bool, line: String) {
        if wrong {
            self.0.push(line);
        }
    }
}

fn given(path: &Option<PathBuf>) -> bool {
    named(path.as_deref()).is_some()
}

fn set(inline: &InlineYaml, file: &Option<PathBuf>) -> bool {
    !inline.is_empty() || given(file)
}

/// A label name that `--label` sets twice.
pub(super) fn repeated_label(command: &Command) -> Option<&str> {
    let labels = match command {
        Command::Sidecar(flags) => &flags.prometheus.label,
        Command::Check(flags) => &flags.sidecar.prometheus.label,
        Command::Backfill(flags) => &flags.source.label,
        Command::Tools(Tools::Bucket(ToolsBucket::UploadBlocks(flags))) => &flags.label,
        Command::Status(_) | Command::Bucket(_) | Command::Restore(_) => return None,
    };
    let again = |i: &usize| labels[..*i].iter().any(|earlier| earlier.name == labels[*i].name);
    (0..labels.len()).find(again).map(|i| &*labels[i].name)
}
