//! `narthex bucket ls`: which blocks there are.
//!
//! What has no `meta.json` (yet) is counted in the log, and does not change the exit code: `bucket verify` is there for that.
//! Blocks with one that cannot be read are named there, and the command ends with [`Completion::WithFindings`]: they may belong in
//! the list.

use anyhow::Result;
use futures_util::TryStreamExt;

use super::{
    Completion,
    output::{self, Table},
    scan::{LeftOut, Wanted, scan},
};
use crate::{
    cli::LsOutput,
    objstore::Bucket,
    tsdb::{BlockId, Meta},
};

/// What is kept of a block to be sorted.
#[derive(Debug)]
struct Line {
    min_time: i64,
    id: BlockId,
    rendered: Rendered,
}

#[derive(Debug)]
enum Rendered {
    Id,
    Cells(Vec<String>),
    Document(String),
}

/// The list as it is printed, sorted by start and name.
pub(super) async fn list(
    bucket: &dyn Bucket,
    wanted: &Wanted,
    exclude_marked: bool,
    output: LsOutput,
) -> Result<(String, Completion)> {
    let mut lines = Vec::new();
    let mut left_out = LeftOut::default();
    let mut blocks = std::pin::pin!(scan(bucket, wanted, exclude_marked));
    while let Some(scanned) = blocks.try_next().await? {
        if let Some((meta, false)) = left_out.accept(scanned) {
            lines.push(Line {
                min_time: meta.min_time,
                id: meta.ulid,
                rendered: render(&meta, output),
            });
        }
    }
    left_out.log_counts();
    lines.sort_unstable_by_key(|line| (line.min_time, line.id));
    let mut table = Table::new(&["ULID", "FROM", "UNTIL", "DIFF", ">LEVEL", "RESOLUTION", "SOURCE"]);
    let mut text = String::new();
    for line in lines {
        match line.rendered {
            Rendered::Id => text.push_str(&format!("{}\n", line.id)),
            Rendered::Cells(cells) => table.row(cells),
            Rendered::Document(document) => text.push_str(&document),
        }
    }
    let text = match output {
        LsOutput::Wide => table.to_string(),
        LsOutput::Ids | LsOutput::Json => text,
    };
    Ok((text, left_out.end()))
}

fn render(meta: &Meta, output: LsOutput) -> Rendered {
    match output {
        LsOutput::Ids => Rendered::Id,
        // One after the other, as Thanos prints them; jq reads that.
        LsOutput::Json => Rendered::Document(meta.to_json()),
        LsOutput::Wide => Rendered::Cells(vec![
            meta.ulid.to_string(),
            output::time_to_the_second(meta.min_time),
            output::time_to_the_second(meta.max_time),
            output::go_duration(meta.max_time.saturating_sub(meta.min_time)),
            meta.level.to_string(),
            output::go_duration(meta.resolution()),
            output::printable(&meta.source()),
        ]),
    }
}
