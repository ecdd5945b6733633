//! `narthex bucket`: ls, inspect, verify, gaps.

use anyhow::Result;

use crate::{cli, ops::supervisor::Outcome};

pub(super) async fn ls(_flags: cli::Ls) -> Result<Outcome> {
    anyhow::bail!("not there yet")
}

pub(super) async fn inspect(_flags: cli::Inspect) -> Result<Outcome> {
    anyhow::bail!("not there yet")
}

pub(super) async fn verify(_flags: cli::Verify) -> Result<Outcome> {
    anyhow::bail!("not there yet")
}

pub(super) async fn gaps(_flags: cli::Gaps) -> Result<Outcome> {
    anyhow::bail!("not there yet")
}
