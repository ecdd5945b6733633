//! The status as text for a terminal.

use std::fmt::Write as _;

use super::{Block, Status, Tone, times::ago, tone_of};
use crate::model::readable::{byte_size, printable, time_to_the_second, with_commas};

/// Messages that are printed.
const MESSAGES: usize = 5;
/// Durable blocks that are printed, the newest.
const BLOCKS: usize = 5;

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
    line("narthex", format!("{}, {ready}", printable(&status.build.version)));
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
            printable(&prometheus.version),
            printable(&prometheus.url),
            printable(&labels)
        ),
    );
    line("shipping", paint(verdict.tone(), verdict.in_words()));
    match &shipping.failure {
        Some(failure) => line("", printable(failure)),
        None if shipping.is_on() => line("", format!("to {}", printable(&shipping.bucket))),
        None => line("", printable(&shipping.state)),
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
    for upload in &shipping.uploads {
        let percent = 100 * upload.sent_bytes / upload.total_bytes.max(1);
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

/// All blocks that are not durable, and the newest of the others.
fn block_lines(status: &Status, colours: bool) -> String {
    let blocks = &status.shipping.blocks;
    let is_durable = |block: &&Block| tone_of(&block.state) == Tone::Good;
    let durable: Vec<&Block> = blocks.iter().filter(is_durable).collect();
    let newest = &durable[durable.len().saturating_sub(BLOCKS)..];
    let others = blocks.iter().filter(|block| !is_durable(block));
    let mut out = String::new();
    for block in others.chain(newest.iter().copied()) {
        let state = painted(
            tone_of(&block.state),
            &format!("{:<11}", printable(&block.state)),
            colours,
        );
        let from = block.min_time_ms.map(time_to_the_second).unwrap_or_default();
        let bytes = block.bytes.map(byte_size).unwrap_or_default();
        let _ = write!(out, "  {:<26}  {state}  {from:<20}  {bytes:>10}", printable(&block.id));
        let _ = match block.reason.is_empty() {
            true => writeln!(out),
            false => writeln!(out, "  {}", printable(&block.reason)),
        };
    }
    out
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
