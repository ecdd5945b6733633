//! What holds the shipper up, said once for as long as it is the same.

use super::{Shipper, upload::Error};
use crate::{objstore, tsdb::BlockId};

/// A failure for the log.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) told: String,
    /// Tells one trouble from another. The words do not: stores number their answers, and of several requests now this
    /// one and now that one fails first.
    same: String,
}

impl Trouble {
    /// One whose words do not change while it lasts.
    pub(super) fn new(told: String) -> Self {
        Self {
            same: told.clone(),
            told,
        }
    }

    pub(super) fn of_block(id: BlockId, error: &Error) -> Self {
        let told = format!("block {id}: {error}");
        match error {
            Error::Bucket(error) => Self {
                same: format!("{id} {:?}", error.kind),
                told,
            },
            _ => Self::new(told),
        }
    }
}

impl From<objstore::Error> for Trouble {
    fn from(error: objstore::Error) -> Self {
        Self {
            told: error.to_string(),
            same: format!("{:?}", error.kind),
        }
    }
}

impl Shipper {
    fn is_news(&self, trouble: &Trouble) -> bool {
        self.said.as_ref().is_none_or(|said| said.same != trouble.same)
    }

    /// Says what holds the shipper up, once for as long as it is the same.
    pub(super) fn say(&mut self, trouble: Trouble) {
        if self.is_news(&trouble) {
            tracing::warn!(
                error = trouble.told,
                "shipping is held up; it is tried again with growing waits of up to 30 s"
            );
        }
        self.said = Some(trouble);
    }

    /// As [`Self::say`], for blocks that wait for labels. That nobody has told them yet is the way of things for a moment
    /// at each start; when it lasts, `--prometheus.ready_timeout` says so aloud.
    pub(super) fn say_waiting(&mut self, trouble: Trouble) {
        if self.is_news(&trouble) {
            match self.labels() {
                None => tracing::info!(why = trouble.told, "blocks wait"),
                Some(_) => tracing::warn!(why = trouble.told, "blocks wait"),
            }
        }
        self.said = Some(trouble);
    }

    /// Says that nothing holds the shipper up any more, if that was said.
    pub(super) fn say_over(&mut self) {
        if self.said.take().is_some() {
            tracing::info!("shipping goes on");
        }
    }
}
