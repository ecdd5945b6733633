//! The blocks whose files are being sent at this moment, and how far each has come: for whoever shows it to an operator.
//!
//! A block is listed from its first file to its last, and is gone from the list however its upload ends. What is counted are
//! bytes that were read to be sent, so that it is up to a few MiB ahead of what the store has; bytes of a second attempt
//! count again, up to the size of the block. Kept in memory only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{objstore::ReadBytes, tsdb::BlockId};

/// The uploads under way; clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct UnderWay(Arc<Mutex<BTreeMap<BlockId, Entry>>>);

#[derive(Debug)]
struct Entry {
    total: u64,
    read: ReadBytes,
    /// What was in the bucket before, in bytes.
    before: u64,
    begun: Instant,
}

/// How far one block has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The block.
    pub id: BlockId,
    /// What its files have, in bytes.
    pub total: u64,
    /// What of that was sent, in bytes; what an earlier attempt has sent counts.
    pub sent: u64,
    /// What of that was sent since this attempt began, in bytes.
    pub sent_now: u64,
    /// How long ago that was.
    pub took: Duration,
}

/// An entry of the list: gone when it is dropped.
#[derive(Debug)]
pub(super) struct Sending {
    id: BlockId,
    read: ReadBytes,
    list: UnderWay,
}

impl UnderWay {
    /// The files of a block begin to be sent: `total` bytes, of which the bucket has `before`.
    pub(super) fn begin(&self, id: BlockId, total: u64, before: u64) -> Sending {
        let read = ReadBytes::default();
        let entry = Entry {
            total,
            read: read.clone(),
            before,
            begun: Instant::now(),
        };
        self.lock().insert(id, entry);
        let list = self.clone();
        Sending { id, read, list }
    }

    /// What is being sent now, the oldest block first.
    pub fn uploads(&self) -> Vec<Upload> {
        let uploads = self.lock();
        let uploads = uploads.iter().map(|(id, entry)| {
            let sent = entry.before.saturating_add(entry.read.total()).min(entry.total);
            Upload {
                id: *id,
                total: entry.total,
                sent,
                sent_now: sent.saturating_sub(entry.before),
                took: entry.begun.elapsed(),
            }
        });
        uploads.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BlockId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sending {
    /// Where bytes are counted that are read to be sent.
    pub(super) fn read(&self) -> ReadBytes {
        self.read.clone()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.list.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipper::testing::numbered;

    #[tokio::test(start_paused = true)]
    async fn a_block_is_listed_while_it_is_sent_and_never_with_more_than_it_has() {
        let list = UnderWay::default();
        assert_eq!(list.uploads(), []);
        let (second, first) = (list.begin(numbered(2), 100, 0), list.begin(numbered(1), 50, 20));
        first.read().add(10);
        tokio::time::advance(Duration::from_secs(4)).await;
        second.read().add(170);
        let upload = |n, total, sent, sent_now| Upload {
            id: numbered(n),
            total,
            sent,
            sent_now,
            took: Duration::from_secs(4),
        };
        assert_eq!(list.uploads(), [upload(1, 50, 30, 10), upload(2, 100, 100, 100)]);
        drop(first);
        assert_eq!(list.uploads(), [upload(2, 100, 100, 100)]);
        drop(second);
        assert_eq!(list.uploads(), []);
    }
}
