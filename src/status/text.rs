//! The status as text for a terminal.

use std::fmt::Write as _;

use super::{
    Block, Status, Tone,
    times::{ago, span_of},
    tone_of,
};
use crate::model::readable::{byte_size, printable, time_to_the_second, with_commas};

/// Messages that are printed.
const MESSAGES: usize = 5;
/// Open blocks that are printed, the most urgent ones, and durable ones, the newest.
const BLOCKS: (usize, usize) = (20, 5);

/// The status in some lines; `colours`, where a terminal shows them.
pub fn text(status: &Status, colours: bool) -> String {
    let paint = |tone, text: &str| painted(tone, text, colours);
    let mut out = String::new();
    let (shipping, prometheus, queries) = (&status.shipping, &status.prometheus, &status.queries);
    let mut line = |name: &str, text: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<12}{text}");
    };
    let verdict = status.verdict();
    let ready = match &status.readiness.reason {
        None => paint(Tone::Good, "ready"),
        Some(reason) => format!("{}: {}", paint(Tone::Bad, "not ready"), printable(reason)),
    };
    line(
        "sidecar",
        format!("narthex {}, {ready}", printable(&status.build.version)),
    );
    let up = match prometheus.up {
        true => paint(Tone::Good, "answers"),
        false => paint(Tone::Bad, "does not answer"),
    };
    let labels = prometheus
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"));
    let labels = labels.collect::<Vec<_>>().join(", ");
    line(
        "prometheus",
        format!(
            "{} {}, {up}, {{{}}}",
            printable(prometheus.version.as_deref().unwrap_or("version not known,")),
            printable(&prometheus.url),
            printable(&labels)
        ),
    );
    line("shipping", paint(verdict.tone(), verdict.in_words()));
    match &shipping.failure {
        Some(failure) => line("", format!("the last try failed: {}", printable(failure))),
        None if shipping.is_on() => line("", format!("to {}", printable(&shipping.bucket))),
        None => line("", printable(&shipping.reason)),
    }
    if let Some(until) = shipping.durable_until_ms {
        let past = ago(until, status.time_ms);
        line("durable", format!("until {}, {past}", time_to_the_second(until)));
    }
    let blocks = shipping.blocks.len() + shipping.more_blocks;
    line(
        "blocks",
        format!(
            "{blocks}, {}, {} not durable",
            byte_size(shipping.bytes),
            shipping.not_durable
        ),
    );
    if shipping.wal.is_on() {
        line("log", printable(&shipping.wal.in_words(status.time_ms)));
    }
    line(
        "queries",
        format!(
            "{} running, {} of {} slots at Prometheus taken, {} waiting, {} without a slot since the start",
            queries.calls_running,
            queries.remote_reads_running,
            queries.slots,
            queries.waiting,
            with_commas(queries.shed)
        ),
    );
    line("from disk", queries.sealed.in_words());
    for upload in &shipping.uploads {
        let percent = upload.sent_bytes.saturating_mul(100) / upload.total_bytes.max(1);
        let (size, rate) = (byte_size(upload.total_bytes), byte_size(upload.bytes_per_second as u64));
        line(
            "upload",
            format!("{} {percent} % of {size}, {rate}/s", printable(&upload.block)),
        );
    }
    out.push_str(&block_lines(status, colours));
    out.push_str(&message_lines(status, colours));
    out
}

/// The most urgent blocks that are not durable, and the newest of the others.
fn block_lines(status: &Status, colours: bool) -> String {
    let (open, others): (Vec<&Block>, Vec<&Block>) = status
        .blocks_by_urgency()
        .into_iter()
        .partition(|block| block.is_open());
    let shown = open.iter().take(BLOCKS.0).chain(others.iter().take(BLOCKS.1));
    let mut out: String = shown.map(|block| block_line(block, status.time_ms, colours)).collect();
    let more = open.len().saturating_sub(BLOCKS.0) + status.shipping.more_not_durable;
    if more > 0 {
        let _ = writeln!(out, "  and {} more that are not durable", with_commas(more as u64));
    }
    out
}

fn block_line(block: &Block, now_ms: i64, colours: bool) -> String {
    let state = painted(
        tone_of(&block.state),
        &format!("{:<11}", printable(&block.state)),
        colours,
    );
    let from = block.min_time_ms.map(time_to_the_second).unwrap_or_default();
    let bytes = block.bytes.map(byte_size).unwrap_or_default();
    let mut notes = Vec::new();
    if !block.reason.is_empty() {
        notes.push(printable(&block.reason));
    }
    if block.held {
        notes.push("deleted, held open".to_owned());
    }
    if let Some(at) = block.deletion_ms.filter(|_| block.near_deletion) {
        notes.push(format!("deleted by retention {}", span_of(at, now_ms)));
    }
    let line = format!(
        "  {:<26}  {state}  {from:<20}  {bytes:>10}  {}",
        printable(&block.id),
        notes.join("; ")
    );
    format!("{}\n", line.trim_end())
}

fn message_lines(status: &Status, colours: bool) -> String {
    let mut out = String::new();
    for message in status.messages.iter().take(MESSAGES) {
        let tone = if message.level == "error" {
            Tone::Bad
        } else {
            Tone::Warning
        };
        let fields = message.fields.iter().map(|(name, value)| format!(" {name}={value:?}"));
        let (level, fields) = (
            painted(tone, &printable(&message.level), colours),
            fields.collect::<String>(),
        );
        let _ = writeln!(
            out,
            "{} {level} {}{}",
            time_to_the_second(message.last_ms),
            printable(&message.text),
            printable(&fields)
        );
    }
    out
}

fn painted(tone: Tone, text: &str, colours: bool) -> String {
    let code = match tone {
        _ if !colours => return text.to_owned(),
        Tone::Good => 32,
        Tone::Neutral => 36,
        Tone::Warning => 33,
        Tone::Bad => 31,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}
