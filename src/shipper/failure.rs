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
    /// It was met on the way to the bucket: that nothing fails any more shows only when something has worked there.
    of_bucket: bool,
    /// It is none: something that is normal at a start is waited for.
    is_wait: bool,
}

impl Failure {
    /// One whose words do not change while it lasts.
    pub(super) fn new(message: String) -> Self {
        Self {
            what: "upload",
            key: message.clone(),
            message,
            of_bucket: false,
            is_wait: false,
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
                of_bucket: true,
                ..Self::new(message)
            },
            _ => Self {
                of_bucket: true,
                ..Self::new(message)
            },
        }
    }
}

impl From<objstore::Error> for Failure {
    fn from(error: objstore::Error) -> Self {
        Self {
            key: format!("{:?}", error.kind),
            of_bucket: true,
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
        self.settings.overviews.show_failure(Some(failure.message.clone()));
        self.last_failure = Some(failure);
    }

    /// As [`Self::log_failure`], for blocks that wait for labels. That they are not `known` yet is normal for a moment at each
    /// start; when it lasts, `--prometheus.ready_timeout` says so as an error.
    pub(super) fn log_waiting(&mut self, why: &'static str, known: bool) {
        let failure = Failure {
            is_wait: !known,
            ..Failure::new(why.to_owned())
        };
        if self.is_new_failure(&failure) {
            match known {
                false => tracing::info!(why, "blocks wait for external labels"),
                true => tracing::warn!(why, "blocks wait for external labels"),
            }
        }
        self.settings.overviews.show_failure(known.then(|| why.to_owned()));
        self.last_failure = Some(failure);
    }

    /// After a pass in which nothing failed: logs that nothing fails any more, if a failure was logged. One of the bucket is
    /// over only when something has `worked` there: a pass that has set every block aside shows nothing. When the pass left
    /// `nothing_open`, it is forgotten without a word, and logged anew when it comes back.
    pub(super) fn log_recovery(&mut self, worked: bool, nothing_open: bool) {
        let Some(last) = &self.last_failure else { return };
        if last.is_wait {
            tracing::debug!("the external labels are known");
        } else if worked || !last.of_bucket {
            tracing::info!("shipping works again");
        } else if !nothing_open {
            return;
        }
        self.settings.overviews.show_failure(None);
        self.last_failure = None;
    }
}
