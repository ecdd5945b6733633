//! `narthex restore --wal`.

use std::{fmt::Write as _, time::Instant};

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::report::{in_shell, selectors};
use crate::{
    cli::{self, Output},
    cmd::{
        job::{Completion, OpenBucket},
        output,
    },
    model::Labels,
    restore::{
        Stop, Target,
        log::{Applied, Choice, Found, LogSurvey, NoLog, Start, Unusable, apply, has_log, survey},
    },
};

/// How soon after its last piece a log may still be written (rounds).
const ROUNDS: i64 = 3;

/// What there is to bring back.
enum Planned {
    /// This.
    Log(Box<Log>),
    /// Nothing, in words: there is nothing that could be brought back.
    Nothing(String),
    /// It is not clear which log is meant, in words.
    Unclear(String),
}

struct Log {
    labels: Labels,
    choice: Choice,
    /// The time between two rounds of its sender (ms).
    interval_ms: i64,
    /// What is to be said of it.
    notes: Vec<String>,
}

/// Whether the directory has a log, which is no failure with `--if-lost`.
///
/// # Errors
/// It has one.
pub(super) fn is_there(flags: &cli::Restore) -> Result<bool> {
    let Some(path) = has_log(&flags.to)? else {
        return Ok(false);
    };
    let path = path.display();
    if !flags.if_lost {
        bail!(
            "{path} is there already: a log is restored to a directory without one only. Move it away if its samples are not \
             needed, or restore to another directory"
        );
    }
    tracing::info!(%path, "there is a log already: nothing is restored (--if-lost)");
    Ok(true)
}

/// Brings the log back.
pub(super) async fn run(flags: &cli::Restore, store: &OpenBucket, token: CancellationToken) -> Result<Completion> {
    let begun = Instant::now();
    let Some(planned) = token.run_until_cancelled(plan(flags, store)).await else {
        tracing::warn!("interrupted while the bucket was read; nothing was restored");
        return Ok(Completion::Interrupted);
    };
    let log = match planned? {
        Planned::Log(log) => log,
        Planned::Nothing(why) => {
            print_nothing(flags, store, &why)?;
            return Ok(match flags.if_lost {
                true => Completion::Clean,
                false => Completion::WithFindings,
            });
        }
        Planned::Unclear(why) => {
            print_nothing(flags, store, &why)?;
            return Ok(Completion::WithFindings);
        }
    };
    let applied = match flags.dry_run {
        true => None,
        false => Some(bring(flags, store, &log, &token).await?),
    };
    let report = Report {
        flags,
        bucket: store.bucket.identity(),
        log: &log,
        applied: applied.as_ref(),
        seconds: begun.elapsed().as_secs_f64(),
    };
    match flags.result.output {
        Output::Text => output::print(&report.text())?,
        Output::Json => output::print(&format!("{:#}\n", report.json()))?,
    }
    report.end()
}

async fn plan(flags: &cli::Restore, store: &OpenBucket) -> Result<Planned> {
    let bucket = &*store.bucket;
    let survey = match survey(bucket, &flags.blocks.selection.selector).await? {
        Ok(survey) => survey,
        Err(NoLog::SeveralSets(sets)) => {
            let list = selectors(&sets, ("LOGS", "log"));
            return Ok(Planned::Unclear(format!(
                "the logs that are selected have several sets of external labels, and a Prometheus has one. Add one of these:\n{list}"
            )));
        }
        Err(NoLog::Nothing(others)) if others.counted.is_empty() => {
            let why = "the bucket has no write-ahead log: no sidecar with --wal.interval has sent one there".to_owned();
            return Ok(Planned::Nothing(why));
        }
        Err(NoLog::Nothing(others)) => {
            let list = selectors(&others, ("LOGS", "log"));
            return Ok(Planned::Nothing(format!(
                "no log has labels that are selected. There are logs of these:\n{list}"
            )));
        }
    };
    for unreadable in &survey.unreadable {
        tracing::warn!(unreadable, "left out what cannot be used");
    }
    choose_newest(flags, store, survey).await
}

/// Takes the newest copy that is of use.
async fn choose_newest(flags: &cli::Restore, store: &OpenBucket, survey: LogSurvey) -> Result<Planned> {
    let now = jiff::Timestamp::now().as_millisecond();
    let until = flags.until.map(|until| until.resolve(now));
    let best = survey.best(&*store.bucket, until).await?;
    let mut refused = String::new();
    for (generation, why) in &best.passed_over {
        let why = in_words(why);
        tracing::warn!(%generation, why, "passing over a copy of the log");
        let _ = write!(refused, "\n  {generation}: {why}");
    }
    Ok(match best.chosen {
        Some((choice, found)) => Planned::Log(Box::new(Log::new(survey.labels, choice, &found, now))),
        None => Planned::Nothing(format!("no copy of the log of {} is of use:{refused}", survey.labels)),
    })
}

fn in_words(why: &Unusable) -> String {
    match why {
        Unusable::NotWhole => "its beginning never reached the bucket whole, or was removed from it".to_owned(),
        Unusable::Later(ms) => format!("it begins after --until, at {}", output::time(*ms)),
        Unusable::Lacks((from, until), reaches) => format!(
            "it reaches to {}, but lacks samples from {} to {}, which an older copy has",
            output::time(*reaches),
            output::time(*from),
            output::time(*until)
        ),
        Unusable::Begun(reaches) => format!(
            "it was begun and did not reach the end of the log, only {}; an older copy has more",
            output::time(*reaches)
        ),
        Unusable::InBlocks(reaches, end) => format!(
            "it reaches to {}, and the blocks of the bucket have everything up to {}: restore those, without --wal",
            output::time(*reaches),
            output::time(*end)
        ),
    }
}

/// There is nothing to bring back.
fn print_nothing(flags: &cli::Restore, store: &OpenBucket, why: &str) -> Result<()> {
    output::print(&match flags.result.output {
        Output::Text => format!("Nothing was restored: {why}\n"),
        Output::Json => {
            let (bucket, to) = (store.bucket.identity(), flags.to.display().to_string());
            format!(
                "{:#}\n",
                json!({ "bucket": bucket, "to": to, "restored": false, "why": why })
            )
        }
    })
}

async fn bring(flags: &cli::Restore, store: &OpenBucket, log: &Log, token: &CancellationToken) -> Result<Applied> {
    let target = Target::open(&flags.to)?;
    let (bytes, free) = (log.choice.bytes(), target.free()?);
    super::enough_room(flags, bytes, free, "free some space")?;
    let _progress = super::progress(store, bytes);
    Ok(apply(&*store.bucket, &target, &log.choice, flags.transfer.concurrency, token).await)
}

impl Log {
    fn new(labels: Labels, choice: Choice, found: &Found, now: i64) -> Self {
        let interval_ms = i64::try_from(found.manifest.interval_ms).unwrap_or(i64::MAX);
        let mut notes = Vec::new();
        if let Some((from, until)) = choice.missing_ms {
            let from = match from {
                i64::MIN => "from before".to_owned(),
                from => format!("from {}", output::time(from)),
            };
            notes.push(format!(
                "missing: samples {from} to {}, which are neither in blocks of the bucket nor in this log",
                output::time(until)
            ));
        }
        if choice.is_uncertain {
            notes.push(
                "not certain: this copy was not sent to the end of the log, or nothing tells what its checkpoint lacks; it may reach less far than it says"
                    .to_owned(),
            );
        }
        for (from, until) in &choice.left_out_ms {
            notes.push(format!(
                "missing: samples from {} to {}, of which the bucket has no block; what the log has of them cannot be replayed beside later blocks",
                output::time(*from),
                output::time(*until)
            ));
        }
        if choice.beyond > 0 {
            notes.push(format!(
                "missing: something before the last {}, which cannot be used",
                output::counted(choice.beyond as u64, "object")
            ));
        }
        if now.saturating_sub(choice.reaches_ms) < interval_ms.saturating_mul(ROUNDS) {
            notes.push(
                "the log was written until a moment ago: if its Prometheus still runs, two will write blocks with the same labels"
                    .to_owned(),
            );
        }
        Self {
            labels,
            choice,
            interval_ms,
            notes,
        }
    }
}

struct Report<'a> {
    flags: &'a cli::Restore,
    bucket: &'a str,
    log: &'a Log,
    applied: Option<&'a Applied>,
    seconds: f64,
}

impl Report<'_> {
    fn text(&self) -> String {
        let Log {
            labels, choice, notes, ..
        } = self.log;
        let start = match &choice.start {
            Start::Beginning => "its first segment".to_owned(),
            Start::Checkpoint(checkpoint) => format!("checkpoint {}", checkpoint.number),
        };
        let segments = choice.wal.last().map_or(0, |part| part.piece.segment);
        let mut text = format!(
            "log of {labels}, copy {}: from {start} to segment {segments}, {}\nreaches to {}\n",
            choice.generation,
            output::byte_size(choice.bytes()),
            output::time_to_the_second(choice.reaches_ms),
        );
        if let Some(end) = choice.blocks_end_ms {
            let _ = writeln!(
                text,
                "samples before {} are in blocks of the bucket, and are not taken from the log",
                output::time_to_the_second(end)
            );
        }
        for note in notes {
            let _ = writeln!(text, "{note}");
        }
        match self.applied {
            None => text.push_str("\nThis was a dry run: nothing was restored.\n"),
            Some(applied) => text.push_str(&self.result(applied)),
        }
        text
    }

    fn result(&self, applied: &Applied) -> String {
        let mut text = String::new();
        for damaged in &applied.damaged {
            let _ = writeln!(
                text,
                "damaged: {damaged}; Prometheus repairs what it can when it replays the log"
            );
        }
        if applied.stopped.is_some() || applied.wrong.is_some() {
            text.push_str("\nNot everything is done; run the same command again to continue.\n");
            return text;
        }
        let dir = in_shell(&self.flags.to.display().to_string());
        let _ = write!(
            text,
            "\nrestored {} with {} in {:.1} s. Start a Prometheus of the same or a later version with\n  --storage.tsdb.path={dir}\n",
            output::counted(applied.files as u64, "file"),
            output::byte_size(applied.bytes),
            self.seconds
        );
        text
    }

    fn json(&self) -> Value {
        let Log {
            labels,
            choice,
            notes,
            interval_ms,
        } = self.log;
        let checkpoint = match &choice.start {
            Start::Beginning => None,
            Start::Checkpoint(checkpoint) => Some(checkpoint.number),
        };
        let applied = self.applied;
        json!({
            "bucket": self.bucket,
            "to": self.flags.to.display().to_string(),
            "dry_run": self.flags.dry_run,
            "restored": applied.is_some_and(|applied| applied.stopped.is_none() && applied.wrong.is_none()),
            "labels": output::labels_json(labels),
            "generation": choice.generation.to_string(),
            "checkpoint": checkpoint,
            "first_segment": choice.wal.first().map(|part| part.piece.segment),
            "last_segment": choice.wal.last().map(|part| part.piece.segment),
            "bytes": choice.bytes(),
            "reaches_ms": choice.reaches_ms,
            "interval_ms": interval_ms,
            "blocks_end_ms": choice.blocks_end_ms,
            "missing_ms": choice.missing_ms.map(|(from, until)| json!([from, until])),
            "left_out_ms": choice.left_out_ms.iter().map(|(from, until)| json!([from, until])).collect::<Vec<_>>(),
            "notes": notes,
            "damaged": applied.map(|applied| &applied.damaged),
            "empty_block": applied.map(|applied| applied.empty_block),
            "seconds": self.seconds,
        })
    }

    fn end(&self) -> Result<Completion> {
        let again = "; what is complete stays, run it again to continue";
        if let Some(applied) = self.applied {
            match (&applied.stopped, &applied.wrong) {
                (Some(Stop::Cut), _) => return Ok(Completion::Interrupted),
                (Some(stop), _) => return Err(anyhow!("{stop}{again}")),
                (None, Some(why)) => {
                    return Err(anyhow!(
                        "{why}; the log cannot be restored beyond it, but up to a time before it with --until"
                    ));
                }
                (None, None) => {}
            }
        }
        let choice = &self.log.choice;
        let is_missing =
            choice.missing_ms.is_some() || choice.is_uncertain || !choice.left_out_ms.is_empty() || choice.beyond > 0;
        let is_damaged = self.applied.is_some_and(|applied| !applied.damaged.is_empty());
        Ok(match is_missing || is_damaged {
            true => Completion::WithFindings,
            false => Completion::Clean,
        })
    }
}
