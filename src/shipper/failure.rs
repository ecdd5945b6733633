//! Why blocks are not shipped, logged once for as long as it is the same, and once more when it is over.

use super::{Shipper, upload::Error};
use crate::{objstore, tsdb::BlockId};

/// A failure for the log.
#[derive(Debug)]
pub(super) struct Failure {
    /// What failed, in a word.
    what: &'static str,
    /// What happened, in words.
    pub(super) message: String,
    /// Tells one failure from another. The words do not: stores number their answers, and of several requests now this
    /// one and now that one fails first.
    key: String,
}

impl Failure {
    /// One whose words do not change while it lasts.
    pub(super) fn new(message: String) -> Self {
        Self {
            what: "upload",
            key: message.clone(),
            message,
        }
    }

    /// One of reading the data directory.
    pub(super) fn of_scan(message: String) -> Self {
        Self {
            what: "scan",
            ..Self::new(message)
        }
    }

    pub(super) fn of_block(id: BlockId, error: &Error) -> Self {
        let message = format!("block {id}: {error}");
        match error {
            Error::Bucket(error) => Self {
                key: format!("{id} {:?}", error.kind),
                ..Self::new(message)
            },
            _ => Self::new(message),
        }
    }
}

impl From<objstore::Error> for Failure {
    fn from(error: objstore::Error) -> Self {
        Self {
            key: format!("{:?}", error.kind),
            ..Self::new(error.to_string())
        }
    }
}

impl Shipper {
    fn is_new_failure(&self, failure: &Failure) -> bool {
        self.last_failure.as_ref().is_none_or(|last| last.key != failure.key)
    }

    /// Logs why a pass failed, once for as long as it is the same.
    pub(super) fn log_failure(&mut self, failure: Failure) {
        if self.is_new_failure(&failure) {
            tracing::warn!(
                error = failure.message,
                "{} failed, retrying with growing waits of up to 30 s",
                failure.what
            );
        }
        self.last_failure = Some(failure);
    }

    /// As [`Self::log_failure`], for blocks that wait for labels. That they are not known yet is normal for a moment at each
    /// start; when it lasts, `--prometheus.ready_timeout` says so as an error.
    pub(super) fn log_waiting(&mut self, failure: Failure) {
        if self.is_new_failure(&failure) {
            match self.labels() {
                None => tracing::info!(why = failure.message, "blocks wait for external labels"),
                Some(_) => tracing::warn!(why = failure.message, "blocks wait for external labels"),
            }
        }
        self.last_failure = Some(failure);
    }

    /// Logs that nothing fails any more, if a failure was logged.
    pub(super) fn log_recovery(&mut self) {
        if self.last_failure.take().is_some() {
            tracing::info!("shipping works again");
        }
    }
}
