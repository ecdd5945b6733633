//! `narthex backfill` and `narthex tools bucket upload-blocks`.

use anyhow::Result;

use crate::{cli, ops::supervisor::Outcome};

pub(super) async fn backfill(_flags: cli::Backfill) -> Result<Outcome> {
    anyhow::bail!("not there yet")
}

pub(super) async fn upload_blocks(_flags: cli::UploadBlocks) -> Result<Outcome> {
    anyhow::bail!("not there yet")
}
