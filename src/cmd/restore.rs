//! `narthex restore`.

use anyhow::Result;

use crate::{cli, ops::supervisor::Outcome};

pub(super) async fn restore(_flags: cli::Restore) -> Result<Outcome> {
    anyhow::bail!("not there yet")
}
