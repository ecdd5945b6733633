//! `narthex bucket inspect`: a table of the blocks, with the columns and cells of Thanos' table of that name.

use std::cmp::Ordering;

use anyhow::Result;
use futures_util::TryStreamExt;
use serde_json::{Value, json};

use super::{
    Completion,
    output::{self, Table},
    scan::{LeftOut, Scanned, Wanted, scan},
};
use crate::{
    catalog::{self, FirstChunks},
    cli::{InspectColumn, InspectOutput},
    model::Labels,
    objstore::Bucket,
    tsdb::{
        BlockId, Encodings, Meta,
        content::{self, Kind},
    },
};

/// The columns; a `>` stands before those of numbers.
const TITLES: [&str; 14] = [
    "ULID",
    "FROM",
    "UNTIL",
    "RANGE",
    "UNTIL-DOWN",
    ">#SERIES",
    ">#SAMPLES",
    ">#CHUNKS",
    ">COMP-LEVEL",
    "COMP-FAILED",
    "LABELS",
    "RESOLUTION",
    "SOURCE",
    "CONTENT",
];

/// The content of a block whose chunks were rewritten on its way to the bucket.
const REWRITTEN: &str = "rewritten_encodings";

/// How long a range must be before a compactor downsamples blocks of a resolution (both ms).
const DOWNSAMPLED_FROM: [(i64, i64); 2] = [(0, 40 * 3_600_000), (300_000, 240 * 3_600_000)];

/// A block of the table.
#[derive(Clone, Debug)]
struct Row {
    id: BlockId,
    from: i64,
    until: i64,
    series: u64,
    samples: u64,
    chunks: u64,
    level: u64,
    failed: bool,
    labels: Labels,
    resolution: i64,
    source: String,
    /// By its `meta.json` and its first chunks; empty if it is plain.
    content: Vec<&'static str>,
}

impl Row {
    fn new(meta: &Meta, encodings: &Encodings) -> Self {
        let kinds = content::kinds(meta, encodings, false).into_iter();
        let kinds = kinds.filter(|kind| *kind != Kind::Plain).map(|kind| kind.as_str());
        let rewritten = meta.rewritten_from().map(|_| REWRITTEN);
        let content = kinds.chain(rewritten).collect();
        Self {
            id: meta.ulid,
            from: meta.min_time,
            until: meta.max_time,
            series: meta.num_series,
            samples: meta.num_samples,
            chunks: meta.num_chunks,
            level: meta.level,
            failed: meta.failed,
            labels: meta.thanos_labels.clone().unwrap_or_default(),
            resolution: meta.resolution(),
            source: meta.source(),
            content,
        }
    }

    fn range(&self) -> i64 {
        self.until.saturating_sub(self.from)
    }

    /// How much longer its range would have to be for it to be downsampled; `None` if it never is.
    fn until_down(&self) -> Option<i64> {
        let (_, due) = DOWNSAMPLED_FROM
            .iter()
            .find(|(resolution, _)| *resolution == self.resolution)?;
        Some(due.saturating_sub(self.range()))
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            output::time_to_the_second(self.from),
            output::time_to_the_second(self.until),
            output::go_duration(self.range()),
            self.until_down().map_or_else(|| "-".to_owned(), output::go_duration),
            output::with_commas(self.series),
            output::with_commas(self.samples),
            output::with_commas(self.chunks),
            self.level.to_string(),
            self.failed.to_string(),
            output::labels(&self.labels),
            output::go_duration(self.resolution),
            self.source.clone(),
            match self.content.is_empty() {
                true => "-".to_owned(),
                false => self.content.join(","),
            },
        ]
    }

    fn json(&self) -> Value {
        json!({
            "ulid": self.id.to_string(),
            "from": self.from,
            "until": self.until,
            "range": self.range(),
            "until_down": self.until_down(),
            "series": self.series,
            "samples": self.samples,
            "chunks": self.chunks,
            "level": self.level,
            "failed": self.failed,
            "labels": output::labels_json(&self.labels),
            "resolution": self.resolution,
            "source": self.source,
            "content": self.content,
        })
    }

    fn compare(&self, other: &Self, column: InspectColumn) -> Ordering {
        match column {
            InspectColumn::Ulid => self.id.cmp(&other.id),
            // By what is shown, as Thanos sorts.
            InspectColumn::From => self.from.div_euclid(1000).cmp(&other.from.div_euclid(1000)),
            InspectColumn::Until => self.until.div_euclid(1000).cmp(&other.until.div_euclid(1000)),
            InspectColumn::Range => self.range().cmp(&other.range()),
            // What is never downsampled comes last.
            InspectColumn::UntilDown => {
                let key = |row: &Self| (row.until_down().is_none(), row.until_down());
                key(self).cmp(&key(other))
            }
            InspectColumn::Series => self.series.cmp(&other.series),
            InspectColumn::Samples => self.samples.cmp(&other.samples),
            InspectColumn::Chunks => self.chunks.cmp(&other.chunks),
            InspectColumn::Level => self.level.cmp(&other.level),
            InspectColumn::Failed => self.failed.cmp(&other.failed),
            InspectColumn::Labels => self.labels.cmp(&other.labels),
            InspectColumn::Resolution => self.resolution.cmp(&other.resolution),
            InspectColumn::Source => self.source.cmp(&other.source),
        }
    }
}

/// The table as it is printed.
pub(super) async fn table(
    bucket: &dyn Bucket,
    wanted: &Wanted,
    sort_by: &[InspectColumn],
    output: InspectOutput,
) -> Result<(String, Completion)> {
    let mut left_out = LeftOut::default();
    let looks = scan(bucket, wanted, false).map_ok(|scanned| async move {
        let encodings = match &scanned {
            Scanned::Block { meta, .. } => match catalog::first_encodings(bucket, meta).await? {
                FirstChunks::Seen(encodings) => encodings,
                FirstChunks::Refused(error) => {
                    tracing::warn!(block = %meta.ulid, %error, "cannot see in which encodings the chunks of this block are");
                    Encodings::default()
                }
            },
            Scanned::Partial(_) | Scanned::Unreadable(..) => Encodings::default(),
        };
        anyhow::Ok((scanned, encodings))
    });
    let mut looks = std::pin::pin!(looks.try_buffer_unordered(catalog::AT_ONCE));
    let mut rows: Vec<Row> = Vec::new();
    while let Some((scanned, encodings)) = looks.try_next().await? {
        rows.extend(left_out.accept(scanned).map(|(meta, _)| Row::new(&meta, &encodings)));
    }
    left_out.log_counts();
    sort(&mut rows, sort_by);
    Ok((print(&rows, output)?, left_out.end()))
}

/// Sorts by these columns, or by start and end; blocks that are alike in those sort by name.
fn sort(rows: &mut [Row], by: &[InspectColumn]) {
    let by = match by {
        [] => &[InspectColumn::From, InspectColumn::Until],
        by => by,
    };
    rows.sort_by(|a, b| {
        let columns = by.iter().chain(&[InspectColumn::Ulid]);
        columns.fold(Ordering::Equal, |so_far, column| {
            so_far.then_with(|| a.compare(b, *column))
        })
    });
}

fn print(rows: &[Row], output: InspectOutput) -> Result<String> {
    Ok(match output {
        InspectOutput::Table => {
            let mut table = Table::new(&TITLES);
            for row in rows {
                table.row(row.cells().iter().map(|cell| output::printable(cell)).collect());
            }
            table.to_string()
        }
        InspectOutput::Csv => separated(rows, ','),
        InspectOutput::Tsv => separated(rows, '\t'),
        InspectOutput::Json => output::json(&rows.iter().map(Row::json).collect())?,
    })
}

/// Lines of cells with `comma` between them (RFC 4180).
fn separated(rows: &[Row], comma: char) -> String {
    let titles = TITLES.iter().map(|title| title.trim_start_matches('>').to_owned());
    let mut text = String::new();
    for line in [titles.collect()].into_iter().chain(rows.iter().map(Row::cells)) {
        for (i, cell) in line.iter().enumerate() {
            if i > 0 {
                text.push(comma);
            }
            // Go also quotes a cell that begins with a space.
            let quoted = cell.contains([comma, '"', '\r', '\n']) || cell.starts_with(char::is_whitespace);
            match quoted {
                true => text.push_str(&format!("\"{}\"", cell.replace('"', "\"\""))),
                false => text.push_str(cell),
            }
        }
        text.push('\n');
    }
    text
}
