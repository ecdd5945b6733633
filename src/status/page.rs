//! The page: one HTML document without script, made of a [`Status`] alone. Every text of others is escaped.

mod parts;
mod style;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::parts::{class, table};
use super::{
    Block, Prometheus, Queries, Readiness, Sealed, Shipping, Status, Tone, Upload,
    timeline::Timeline,
    times::{ago, duration, span_of},
    tone_of,
};
use crate::model::readable::{byte_size, time_to_the_second, with_commas};

/// Blocks that are shown at once; the others are behind a link that opens.
const BLOCKS_OPEN: usize = 20;

/// That retention deletes a block is shown when it is less than this away: 30 days.
const DELETION_SHOWN_MS: i64 = 30 * 24 * 3600 * 1000;

/// A block on its way through an arch.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath \
                    d='M2 15V7a6 6 0 0 1 12 0v8' fill='none' stroke='%232e62a6' stroke-width='2.5'/%3E%3Cpath d='M6 9h4v6H6z' \
                    fill='%231a7f4b'/%3E%3C/svg%3E";

/// The page.
pub fn page(status: &Status) -> String {
    let verdict = status.verdict();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "narthex: " (verdict.in_words()) }
                link rel="icon" href=(ICON);
                style { (PreEscaped(style::CSS)) }
            }
            body {
                header {
                    h1 { "narthex" }
                    p.by { "beside " code { (status.prometheus.url) } }
                    (ready(&status.readiness))
                }
                main {
                    (summary(status))
                    (timeline(status))
                    (messages(status))
                    (uploads(&status.shipping.uploads))
                    @if status.shipping.is_on() { (blocks(status)) }
                    (queries(&status.queries, status.time_ms))
                    (prometheus(&status.prometheus, status.time_ms))
                    (configuration(status))
                }
                (footer(status))
            }
        }
    };
    markup.into_string()
}

fn ready(readiness: &Readiness) -> Markup {
    let (tone, word) = match readiness.ready {
        true => (Tone::Good, "ready"),
        false => (Tone::Bad, "not ready"),
    };
    html! {
        span.pill.(class(tone)) { (word) }
        @if let Some(reason) = &readiness.reason {
            p.reason { (reason) }
        }
    }
}

fn summary(status: &Status) -> Markup {
    let (shipping, queries) = (&status.shipping, &status.queries);
    let verdict = status.verdict();
    html! {
        section.summary aria-label="Summary" {
            div.card.(class(verdict.tone())) {
                h2 { "Shipping" }
                p.big { (verdict.in_words()) }
                p { (how_it_goes(shipping)) }
            }
            @if shipping.is_on() {
                div.card {
                    h2 { "Durable until" }
                    @match shipping.durable_until_ms {
                        Some(until) => {
                            p.big { (ago(until, status.time_ms)) }
                            p { time { (time_to_the_second(until)) } }
                        },
                        None => { p.big { "not known" } p { "No block of this disk is known to be in the bucket." } },
                    }
                }
                div.card {
                    h2 { "Blocks on this disk" }
                    p.big { (shipping.blocks.len() + shipping.more_blocks) }
                    p {
                        (byte_size(shipping.bytes)) ", "
                        @if shipping.not_durable == 0 { "all durable" } @else { (shipping.not_durable) " not durable" }
                        @if shipping.held_bytes > 0 { ", " (byte_size(shipping.held_bytes)) " held of deleted ones" }
                    }
                }
            }
            @if shipping.wal.is_on() {
                div.card {
                    h2 { "Write-ahead log" }
                    @match shipping.wal.durable_ms {
                        Some(at) => { p.big { (ago(at, status.time_ms)) } },
                        None => { p.big { "not known" } },
                    }
                    p {
                        @match &shipping.wal.failure {
                            Some(failure) => (failure),
                            None => { "durable up to then, sent every " (duration((shipping.wal.interval_seconds * 1000.0) as i64)) },
                        }
                    }
                }
            }
            div.card {
                h2 { "Calls running" }
                p.big { (queries.calls_running) }
                p {
                    (queries.remote_reads_running) " of " (queries.slots) " slots at Prometheus, " (queries.waiting) " waiting"
                }
            }
        }
    }
}

fn how_it_goes(shipping: &Shipping) -> Markup {
    html! {
        @if let Some(failure) = &shipping.failure { "The last try failed: " (failure) }
        @else if shipping.is_on() { "to " code { (shipping.bucket) } }
        @else { (shipping.reason) }
    }
}

fn timeline(status: &Status) -> Markup {
    let Some(line) = Timeline::new(status) else {
        return html! {};
    };
    let rows = [
        ("Head", line.head.iter().collect::<Vec<_>>()),
        ("Sealed", line.blocks.iter().collect()),
        ("Durable", line.durable.iter().chain(&line.at_risk).collect()),
        ("Retention", line.kept.iter().collect()),
    ];
    html! {
        section {
            h2 { "Time line" }
            div.line {
                @for (name, stretches) in rows {
                    span.row { (name) }
                    div.bar {
                        @for stretch in stretches {
                            span.(class(stretch.tone)).apart[stretch.is_apart()] title=(stretch.what)
                                style=(format!("left:min({:.3}%,100% - 2px);width:{:.3}%", stretch.from, stretch.length)) {}
                        }
                    }
                }
                span.row {}
                div.ends {
                    time { (time_to_the_second(line.begin_ms)) }
                    span { (duration(line.end_ms.saturating_sub(line.begin_ms))) }
                    time { (time_to_the_second(line.end_ms)) }
                }
            }
            p.key {
                span.dot.good {} "in the bucket" span.dot.neutral {} "in Prometheus" span.dot.warning {} "on this disk only"
                span.dot.bad {} "needs your attention"
            }
        }
    }
}

fn messages(status: &Status) -> Markup {
    html! {
        section {
            h2 { "Last warnings and errors" }
            @if status.messages.is_empty() { p.none { "None since the start." } }
            ul.messages {
                @for message in &status.messages {
                    li.(class(if message.level == "error" { Tone::Bad } else { Tone::Warning })) {
                        p {
                            span.level { (message.level) } " " (message.text)
                        }
                        p.when {
                            time datetime=(time_to_the_second(message.last_ms)) { (ago(message.last_ms, status.time_ms)) }
                            @if message.count > 1 {
                                ", " (with_commas(message.count)) " times since " (time_to_the_second(message.first_ms))
                            }
                        }
                        @if !message.fields.is_empty() {
                            dl { @for (name, value) in &message.fields { dt { (name) } dd { (value) } } }
                        }
                    }
                }
            }
        }
    }
}

fn uploads(uploads: &[Upload]) -> Markup {
    html! {
        @if !uploads.is_empty() {
            section {
                h2 { "Uploads under way" }
                (table(&["Block", "Sent", ">Size", ">Rate"], uploads.iter().map(|upload| html! {
                    td { code { (upload.block) } }
                    td { progress max=(upload.total_bytes.max(1)) value=(upload.sent_bytes) { (byte_size(upload.sent_bytes)) } }
                    td.number { (byte_size(upload.total_bytes)) }
                    td.number { (byte_size(upload.bytes_per_second as u64)) "/s" }
                })))
            }
        }
    }
}

fn blocks(status: &Status) -> Markup {
    let shipping = &status.shipping;
    let sorted = status.blocks_by_urgency();
    let (open, rest) = sorted.split_at(sorted.len().min(BLOCKS_OPEN));
    let titles = [
        "Block",
        "State",
        "From",
        ">Length",
        ">Size",
        ">Series",
        ">Samples",
        ">Level",
        "Content",
        ">Sealed to durable",
    ];
    html! {
        section {
            h2 { "Blocks" }
            @if sorted.is_empty() {
                p.none { "There is no block in " code { (shipping.dir) } " yet. Prometheus seals its first one about three hours after its first sample." }
            } @else {
                (table(&titles, open.iter().map(|block| block_row(block, status.time_ms))))
                @if !rest.is_empty() {
                    details {
                        summary { (rest.len()) " more" }
                        (table(&titles, rest.iter().map(|block| block_row(block, status.time_ms))))
                    }
                }
            }
            @if shipping.more_blocks > 0 {
                p.none {
                    "And " (with_commas(shipping.more_blocks as u64)) " more, of which "
                    @if shipping.more_not_durable == 0 { "all are durable." }
                    @else { (with_commas(shipping.more_not_durable as u64)) " are not durable." }
                }
            }
        }
    }
}

fn block_row(block: &Block, now_ms: i64) -> Markup {
    html! {
        td { code { (block.id) } }
        td {
            span.pill.(class(tone_of(&block.state))) { (block.state.replace('_', " ")) }
            @if block.held { " " span.pill.warning { "deleted, held open" } }
            @if !block.reason.is_empty() { p.reason { (block.reason) } }
            @if let Some(at) = block.deletion_ms.filter(|at| at.saturating_sub(now_ms) < DELETION_SHOWN_MS) {
                p.reason { "deleted by retention " (span_of(at, now_ms)) }
            }
        }
        td { @if let Some(from) = block.min_time_ms { time { (time_to_the_second(from)) } } }
        td.number {
            @if let (Some(from), Some(to)) = (block.min_time_ms, block.max_time_ms) { (duration(to.saturating_sub(from))) }
        }
        td.number { @if let Some(bytes) = block.bytes { (byte_size(bytes)) } }
        td.number { @if let Some(series) = block.series { (with_commas(series)) } }
        td.number { @if let Some(samples) = block.samples { (with_commas(samples)) } }
        td.number { @if let Some(level) = block.level { (level) } }
        td { (block.content.join(", ").replace('_', " ")) }
        td.number { @if let Some(seconds) = block.seal_to_durable_seconds { (format!("{seconds:.1} s")) } }
    }
}

/// What queries read from sealed blocks.
fn sealed(sealed: &Sealed) -> Markup {
    html! {
        (sealed.in_words())
        @for doubt in &sealed.doubts {
            p.reason {
                "Prometheus is asked "
                @if let Some(from) = doubt.from_ms { "from " time { (time_to_the_second(from)) } " " }
                @if let Some(to) = doubt.to_ms { "to " time { (time_to_the_second(to)) } " " }
                @if doubt.from_ms.is_none() && doubt.to_ms.is_none() { "for all " }
                "as well (" (doubt.reason.replace('_', " ")) ")"
            }
        }
    }
}

fn queries(queries: &Queries, now_ms: i64) -> Markup {
    let limit = |limit: u64, what: &str| match limit {
        0 => format!("{what} without limit"),
        limit => format!("{} {what}", with_commas(limit)),
    };
    html! {
        section {
            h2 { "Queries" }
            dl.facts {
                dt { "Remote reads" }
                dd {
                    (queries.remote_reads_running) " of " (queries.slots) " slots taken, " (queries.waiting) " waiting"
                    @if let Some(oldest) = queries.oldest_remote_read_seconds { ", the oldest for " (format!("{oldest:.1} s")) }
                }
                dt { "Sealed blocks" }
                dd { (sealed(&queries.sealed)) }
                dt { "Ended early" }
                dd {
                    (with_commas(queries.shed)) " got no slot, " (with_commas(queries.lagged)) " had a client that was too slow, "
                    (with_commas(queries.stalled)) " one that read nothing"
                }
                dt { "Memory" }
                dd {
                    (byte_size(queries.memory_bytes)) " of " (byte_size(queries.memory_limit_bytes)) ", "
                    (byte_size(queries.read_ahead_bytes)) " of it for slow clients"
                    @if let Some(spilled) = queries.spilled_bytes { ", " (byte_size(spilled)) " in files" }
                }
                dt { "Limits of a call" }
                dd { (limit(queries.series_limit, "series")) ", " (limit(queries.samples_limit, "samples")) }
                @if let Some(min_time) = queries.min_time_ms {
                    dt { "Answered from" }
                    dd { time { (time_to_the_second(min_time)) } " (" (ago(min_time, now_ms)) ")" }
                }
            }
            @if !queries.calls.is_empty() {
                (table(&["Call", "Client", ">Age", ">Sent", "Where it is", ">Client idle"], queries.calls.iter().map(|call| html! {
                    td { code { (call.method) } }
                    td { (call.peer) }
                    td.number { (format!("{:.1} s", call.age_seconds)) }
                    td.number { (byte_size(call.sent_bytes)) }
                    td { (call.stage) }
                    td.number { (format!("{:.1} s", call.client_idle_seconds)) }
                })))
                @if queries.calls.len() < queries.calls_running {
                    p.none { "And " (queries.calls_running - queries.calls.len()) " more." }
                }
            }
        }
    }
}

fn prometheus(prometheus: &Prometheus, now_ms: i64) -> Markup {
    html! {
        section {
            h2 { "Prometheus" }
            dl.facts {
                dt { "Address" } dd {
                    code { (prometheus.url) } " "
                    @if prometheus.up { span.pill.good { "answers" } } @else { span.pill.bad { "does not answer" } }
                }
                dt { "Version" } dd { (prometheus.version.as_deref().unwrap_or("not known yet")) }
                dt { "External labels" } dd {
                    @if prometheus.labels.is_empty() { "none" }
                    @for (name, value) in &prometheus.labels { code { (name) "=\"" (value) "\"" } " " }
                }
                @if prometheus.agent {
                    dt { "Blocks" } dd { "none: it runs in agent mode" }
                } @else {
                    dt { "Retention" } dd { (prometheus.retention.as_deref().unwrap_or("not known")) }
                    dt { "Compaction" } dd { (compaction(prometheus)) }
                }
                @if let Some(lowest) = prometheus.lowest_time_ms {
                    dt { "Oldest sample" } dd { time { (time_to_the_second(lowest)) } " (" (ago(lowest, now_ms)) ")" }
                }
                @if let Some(head) = prometheus.head_min_time_ms {
                    dt { "Head from" } dd { time { (time_to_the_second(head)) } " (" (ago(head, now_ms)) ")" }
                }
                @for (name, value) in &prometheus.flags { dt.flag { "--" (name) } dd { code { (value) } } }
            }
        }
    }
}

/// Whether Prometheus may merge blocks before they are shipped.
fn compaction(prometheus: &Prometheus) -> &'static str {
    let flag = |name: &str| prometheus.flags.get(name);
    let (least, most) = (
        flag("storage.tsdb.min-block-duration"),
        flag("storage.tsdb.max-block-duration"),
    );
    match (prometheus.delays_compaction, least.is_some() && least == most) {
        (true, _) => "waits until blocks are shipped",
        (false, true) => "off: all blocks have the same length",
        (false, false) if prometheus.flags.is_empty() => "not known",
        (false, false) => "does not wait until blocks are shipped",
    }
}

fn configuration(status: &Status) -> Markup {
    let (given, default): (Vec<_>, Vec<_>) = status.flags.iter().partition(|flag| flag.given);
    html! {
        section {
            h2 { "Configuration" }
            dl.facts.flags { @for flag in given { dt { "--" (flag.name) } dd { code { (flag.value) } } } }
            @for file in &status.configuration {
                h3 { (file.flag) }
                dl.facts.flags { @for (key, value) in &file.entries { dt { (key) } dd { code { (value) } } } }
            }
            details {
                summary { (default.len()) " flags with their defaults" }
                dl.facts.flags { @for flag in default { dt { "--" (flag.name) } dd { code { (flag.value) } } } }
            }
        }
    }
}

fn footer(status: &Status) -> Markup {
    let build = &status.build;
    html! {
        footer {
            p {
                "narthex " (build.version) ", revision " (build.revision) ", started " (ago(build.started_ms, status.time_ms))
                ". This page: " time { (time_to_the_second(status.time_ms)) }
                @if let Some(looked_at) = status.shipping.looked_at_ms { "; blocks as of " (ago(looked_at, status.time_ms)) }
                "."
            }
            nav {
                a href="api/v1/status" { "JSON" } a href="metrics" { "Metrics" } a href="-/ready" { "Ready" }
                a href="debug/calls" { "Calls" }
            }
        }
    }
}
