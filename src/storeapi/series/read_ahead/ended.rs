//! Why an answer ends before its client has all of it, in words for the client, the log and `/debug/calls`.
//!
//! Each releases what is held for the answer, and the request to Prometheus. The status waits until the client reads it.

use std::io;

use tonic::Status;

use super::{Core, reader::DISK_LIMIT, spill::SpillDir};
use crate::storeapi::context::CLIENT_STALL;

impl Core {
    /// Ends an answer for which Prometheus has waited long enough: because of the client, or of the disk if it was mostly that.
    pub(super) fn end_overdue(&mut self, spill_dir: Option<&SpillDir>) {
        if self.waited_for_disk > self.waited() / 2 {
            self.end_on_slow_disk(spill_dir);
        } else {
            self.end_lagging();
        }
    }

    /// Ends the answer of a client that Prometheus has waited for long enough.
    fn end_lagging(&mut self) {
        let text = format!(
            "the client reads too slowly: there is no room for more of its answer, and Prometheus may wait {:?} for \
             it in all (--store.max-client-lag, at most a quarter of Prometheus' block duration), since an open \
             remote read keeps it from sealing blocks; read faster, ask for less at once, or give narthex more room: \
             --store.read-ahead within --store.memory-limit, --store.spill-dir within --store.spill-limit",
            self.delivery.patience
        );
        self.delivery.metrics.lagged();
        self.set_stage("ended because the client reads too slowly; its status waits to be read");
        self.stop(Status::aborted(text));
    }

    /// Ends an answer whose file is in a directory that is too slow for Prometheus.
    fn end_on_slow_disk(&mut self, spill_dir: Option<&SpillDir>) {
        let text = format!(
            "the directory of --store.spill-dir is too slow: Prometheus has waited {:?} for it, and may wait no \
             longer, since an open remote read keeps it from sealing blocks; retry, ask for less at once, or give \
             narthex a faster directory, or more memory (--store.read-ahead)",
            self.waited_for_disk
        );
        if let Some(spill_dir) = spill_dir {
            let error = format!(
                "Prometheus has waited {:?} for it on behalf of one call",
                self.waited_for_disk
            );
            let error = io::Error::new(io::ErrorKind::TimedOut, error);
            spill_dir.log_failure(&error, "that call has ended with an error (Unavailable)");
        }
        self.set_stage("ended because the directory of --store.spill-dir is too slow; its status waits to be read");
        self.stop(Status::unavailable(text));
    }

    /// Ends an answer whose file cannot be reached.
    pub(super) fn end_without_disk(&mut self, spill_dir: &SpillDir) {
        let error = format!("no response within {DISK_LIMIT:?}");
        let error = io::Error::new(io::ErrorKind::TimedOut, error);
        spill_dir.log_failure(
            &error,
            "a call that waited for it has ended with an error (Unavailable)",
        );
        self.set_stage(
            "ended because the directory of --store.spill-dir does not respond; its status waits to be read",
        );
        let text = "the directory of --store.spill-dir does not respond; retry";
        self.stop(Status::unavailable(text));
    }

    /// Ends the answer of a client that takes nothing.
    pub(super) fn end_stalled(&mut self) {
        let text = format!(
            "the client read nothing for {CLIENT_STALL:?}; its answer was dropped to free memory for other calls"
        );
        self.delivery.metrics.stalled();
        self.set_stage("ended because the client reads nothing");
        self.stop(Status::aborted(text));
    }

    /// Ends the answer of a slow client because there are too many of them: what each holds would be missing for other calls.
    pub(super) fn end_crowded_out(&mut self) {
        self.delivery.metrics.lagged();
        self.set_stage("ended because too many clients read slowly; its status waits to be read");
        self.stop(Status::aborted(
            "the client reads too slowly, and so do so many others that what is held for them takes half of \
             --store.memory-limit; read faster, ask for less at once, or raise it",
        ));
    }
}
