//! The ledger `thanos.shipper.json`: which local blocks are durable in the bucket.
//!
//! Prometheus reads it (`--storage.tsdb.delay-compact-file.path`) and compacts without asking when it is missing or
//! unreadable. So: a valid one is there before anything else, replaced by one atomic rename, never removed, always
//! readable by other users (mode 0644), and written only when it changes. A block is listed only after it was proven
//! complete in the bucket that the ledger names. Beside Thanos' keys it has one of ours: the bucket and which of the places
//! at its address it is, the labels of the last commit, the durable blocks that are gone and live on in local compacted
//! ones, the highest time that is durable, the blocks that are listed without being durable, how old samples may be that
//! Prometheus still holds, and under which labels blocks were sealed that are not durable yet: a change of the labels does
//! not concern them.
//!
//! **Listed without being durable** are local blocks that are never shipped by decision, such as empty ones: Prometheus
//! compacts nothing beyond the first block of level 1 that is not listed (its planner stops there), so that one that is
//! never listed would end its compaction for good. They are kept apart, in memory and on disk, and count for nothing else.
//!
//! **What the file says at the start** counts only if we wrote it, for this very place. Everything else proves nothing:
//! each block is looked up in the bucket before anything is sent. What becomes of the file:
//!
//! | found | until the bucket was looked at | beside |
//! |---|---|---|
//! | nothing | an empty one at once | |
//! | one that Thanos wrote | stays: who only tries narthex, or has the endpoint wrong, loses nothing | `.before-narthex`, once it is replaced |
//! | one of ours for another bucket or place | an empty one at once: Prometheus must not merge away what *this* bucket lacks | `.replaced` |
//! | no ledger, or one that cannot be read | an empty one at once: Prometheus takes it for none and merges all | `.replaced` |
//!
//! While the ledger of Thanos stays, Prometheus goes by it as it did before. It is mostly about the same bucket; if it is
//! not, Prometheus may merge a block, between the start and the first complete look, that the bucket lacks. The merged
//! block is then reported as not durable (see `durability`), so nothing is lost silently.
//!
//! Each file beside is one, the newest that says something; one that lists nothing does not push it out.
//!
//! On a crash the old or the new file is there, whole; a leftover `.tmp` is overwritten by the next write. A failed write
//! leaves the old file and is tried again with the next save.

mod file;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use file::{File, Ours, SealedUnder, Stamp};

use crate::{
    model::Labels,
    tsdb::{Block, BlockId, BlockMeta},
};

/// The most sources that are remembered, the newest: ten years of two-hour blocks. Others are looked up in the bucket.
const MOST_SOURCES: usize = 50_000;
/// What is put behind the name of a ledger that Thanos wrote, when ours takes its place.
const BEFORE: &str = ".before-narthex";
/// What is put behind the name of anything else that stood there and was not ours for this place.
const REPLACED: &str = ".replaced";

/// What the file said when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Ours, for this bucket.
    Ours,
    /// No file.
    Missing,
    /// A valid file without a bucket's identity, as Thanos writes it: its entries are looked up before they count.
    Unidentified,
    /// Written for another bucket, named here.
    OtherBucket(String),
    /// Written for another place at the same address, named here: another file system is mounted, or none.
    OtherPlace(String),
    /// Not readable or not a ledger; why.
    Bad(String),
}

/// A local block, as far as the ledger must know it.
#[derive(Clone, Copy, Debug)]
pub struct LocalBlock<'a> {
    /// Its name.
    pub id: BlockId,
    /// What it says of itself; `None` if that cannot be read.
    pub meta: Option<&'a BlockMeta>,
}

impl<'a> From<&'a Block> for LocalBlock<'a> {
    fn from(block: &'a Block) -> Self {
        Self {
            id: block.id,
            meta: Some(&block.meta),
        }
    }
}

/// The durable blocks among the local ones, in memory and on disk.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    bucket: String,
    incarnation: Option<String>,
    labels: Labels,
    shipped: BTreeSet<BlockId>,
    order: Vec<BlockId>,
    /// Local blocks that are listed though they are not durable: they are never shipped.
    skipped: BTreeSet<BlockId>,
    /// The external labels under which local blocks were sealed that are not durable.
    sealed_under: BTreeMap<BlockId, Labels>,
    /// Durable blocks that are not local any more, or not listed, and that a local block was compacted of.
    sources: BTreeSet<BlockId>,
    /// The highest end of a durable block (ms since 1970).
    highest: Option<i64>,
    /// How old samples may be that Prometheus holds in its head (ms); see [`super::out_of_order`].
    pub(super) out_of_order_window: Option<i64>,
    /// What Thanos wrote, as long as it is to stay.
    foreign: Option<String>,
    /// What is to be kept beside before the next write.
    displaced: Option<Displaced>,
    written: Option<String>,
    on_disk: Option<Stamp>,
}

/// What stood in the place of the ledger, and must not be lost when it is replaced.
#[derive(Debug)]
enum Displaced {
    /// What Thanos wrote: it is replaced only after it was kept.
    Thanos(String),
    /// Whatever stands there now: kept if that is possible.
    Other,
}

impl Ledger {
    /// Reads the ledger at `path`, of the bucket with this identity and, where it is known by now, this incarnation (see
    /// [`Ledger::confirm_incarnation`]); never fails, what was found is returned beside it. Nothing is written.
    pub fn open(path: PathBuf, bucket: &str, incarnation: Option<&str>) -> (Self, Found) {
        let mut ledger = Self {
            path,
            bucket: bucket.to_owned(),
            incarnation: incarnation.map(str::to_owned),
            labels: Labels::default(),
            shipped: BTreeSet::new(),
            order: Vec::new(),
            skipped: BTreeSet::new(),
            sealed_under: BTreeMap::new(),
            sources: BTreeSet::new(),
            highest: None,
            out_of_order_window: None,
            foreign: None,
            displaced: None,
            written: None,
            on_disk: None,
        };
        let found = ledger.load();
        let replaced = matches!(found, Found::OtherBucket(_) | Found::OtherPlace(_) | Found::Bad(_));
        ledger.displaced = replaced.then_some(Displaced::Other);
        (ledger, found)
    }

    fn load(&mut self) -> Found {
        // Before it is read: one that changes meanwhile is read again.
        let stamp = file::stamp(&self.path);
        let text = match file::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Missing,
            Err(error) => return Found::Bad(error.to_string()),
        };
        let text = match String::from_utf8(text) {
            Ok(text) => text,
            Err(error) => return Found::Bad(error.to_string()),
        };
        let file = match File::parse(&text) {
            Ok(file) => file,
            Err(why) => return Found::Bad(why),
        };
        let Some(ours) = &file.narthex else {
            self.foreign = Some(text);
            self.on_disk = stamp;
            return Found::Unidentified;
        };
        if ours.bucket != self.bucket {
            return Found::OtherBucket(ours.bucket.clone());
        }
        match (&ours.incarnation, &self.incarnation) {
            (Some(there), Some(here)) if there != here => return Found::OtherPlace(there.clone()),
            _ => {}
        }
        let lists = [file.uploaded(), &ours.sources, &ours.skipped].map(blocks);
        let (mut order, sources, skipped) = match lists {
            [Ok(order), Ok(sources), Ok(skipped)] => (order, sources, skipped),
            [Err(name), ..] | [_, Err(name), _] | [.., Err(name)] => {
                return Found::Bad(format!("{name:?} is not a block"));
            }
        };
        for SealedUnder { labels, blocks: names } in &ours.sealed_under {
            let labels = Labels::from_pairs(labels.clone());
            match blocks(names) {
                Ok(ids) => self.sealed_under.extend(ids.into_iter().map(|id| (id, labels.clone()))),
                Err(name) => return Found::Bad(format!("{name:?} is not a block")),
            }
        }
        self.skipped = skipped.into_iter().collect();
        order.retain(|id| !self.skipped.contains(id));
        self.incarnation = self.incarnation.take().or_else(|| ours.incarnation.clone());
        self.labels = Labels::from_pairs(ours.labels.clone());
        self.shipped = order.iter().copied().collect();
        self.order = order;
        self.sources = sources.into_iter().collect();
        self.highest = ours.durable_until;
        self.out_of_order_window = ours.out_of_order_window_ms;
        self.written = Some(text);
        self.on_disk = stamp;
        Found::Ours
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The external labels of the last commit; empty when there was none.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Whether `id` is a local block that is durable in the bucket.
    pub fn contains(&self, id: BlockId) -> bool {
        self.shipped.contains(&id)
    }

    /// Whether `id` is durable in the bucket: listed, or one of the sources that are remembered.
    pub fn knows(&self, id: BlockId) -> bool {
        self.shipped.contains(&id) || self.sources.contains(&id)
    }

    /// The durable blocks that are listed.
    pub fn listed(&self) -> impl Iterator<Item = BlockId> {
        self.order.iter().copied()
    }

    /// The youngest block that is listed: if the bucket has it, and does not say that it was merged, the bucket is the one
    /// that it was; if not, see [`Ledger::clear`].
    pub fn newest(&self) -> Option<BlockId> {
        self.shipped.last().copied()
    }

    /// Lists these local blocks, in place of those that were given before: they are never shipped, and Prometheus must not
    /// wait for them. What is durable is not among them. Written with the next [`Ledger::save`].
    pub fn list_skipped(&mut self, skipped: impl IntoIterator<Item = BlockId>) {
        let skipped = skipped.into_iter().filter(|id| !self.shipped.contains(id));
        self.skipped = skipped.collect();
    }

    /// Keeps under which external labels these local blocks were sealed, of those of which it is not known; whether there
    /// were such. Written with the next [`Ledger::save`], and kept until the block is durable or gone.
    pub fn keep_labels(&mut self, blocks: impl IntoIterator<Item = BlockId>, labels: &Labels) -> bool {
        let known = self.sealed_under.len();
        for id in blocks.into_iter().filter(|id| !self.shipped.contains(id)) {
            self.sealed_under.entry(id).or_insert_with(|| labels.clone());
        }
        self.sealed_under.len() > known
    }

    /// Under which external labels a block was sealed that is not durable, if that is known.
    pub fn sealed_under(&self, id: BlockId) -> Option<&Labels> {
        self.sealed_under.get(&id)
    }

    /// The highest end of a durable block (ms since 1970), whether the block is still local or not.
    pub fn highest(&self) -> Option<i64> {
        self.highest
    }

    /// Whether the file is ours: not while the one that Thanos wrote is left there.
    pub fn is_confirmed(&self) -> bool {
        self.foreign.is_none()
    }

    /// Says that every local block was looked up, so that what is recorded by now may take the place of what Thanos wrote;
    /// call [`Ledger::save`] at once. Changes nothing when it is ours already.
    pub fn confirm(&mut self) {
        if let Some(text) = self.foreign.take() {
            // Thanos may have run until a moment ago.
            self.displaced = Some(Displaced::Thanos(file::read_foreign(&self.path).unwrap_or(text)));
        }
    }

    /// Says that the bucket is not what it was: emptied, or made anew. Nothing that was recorded proves anything from now
    /// on; call [`Ledger::save`] at once, so that Prometheus merges nothing that the bucket lacks.
    pub fn clear(&mut self) {
        self.shipped.clear();
        self.order.clear();
        self.sources.clear();
        self.highest = None;
        if self.foreign.is_none() && self.displaced.is_none() {
            self.displaced = Some(Displaced::Other);
        }
    }

    /// Says which place is found at the bucket's address, for when that was not known at [`Ledger::open`]. Returns whether
    /// it is the one that the ledger is about; if not, nothing that was recorded counts any more, as after
    /// [`Ledger::clear`]. A ledger that names none is taken to be about this one.
    pub fn confirm_incarnation(&mut self, incarnation: &str) -> bool {
        let same = self.incarnation.as_deref().is_none_or(|known| known == incarnation);
        if !same {
            self.clear();
        }
        self.incarnation = Some(incarnation.to_owned());
        same
    }

    /// Records that the local block `id`, whose samples end before `max_time` (ms since 1970), is durable in the bucket; call
    /// [`Ledger::save`] at once. An empty set of labels is not recorded: it could not be shipped under.
    pub fn record(&mut self, id: BlockId, labels: &Labels, max_time: i64) {
        if self.shipped.insert(id) {
            self.order.push(id);
        }
        self.sealed_under.remove(&id);
        if !labels.is_empty() {
            self.labels = labels.clone();
        }
        self.raise_highest(max_time);
    }

    /// Records that `id`, which is not local, is durable in the bucket. It is kept as long as a local block names it as its
    /// source.
    pub fn record_source(&mut self, id: BlockId) {
        if !self.shipped.contains(&id) {
            self.sources.insert(id);
        }
    }

    /// Goes by the local blocks, in the order to list them in. A listed one that is gone is kept among the sources while a
    /// local block names it, or while there is one that cannot be read and might; else it is forgotten. What is kept is
    /// bounded by what the local blocks name and was durable once, and by [`MOST_SOURCES`].
    pub fn retain<'a>(&mut self, local: impl IntoIterator<Item = LocalBlock<'a>>) {
        let (mut present, mut named, mut unreadable) = (HashSet::new(), HashSet::new(), false);
        let mut order = Vec::new();
        for block in local {
            let listed = present.insert(block.id) && self.shipped.contains(&block.id);
            if listed {
                order.push(block.id);
            }
            let Some(meta) = block.meta else {
                unreadable = true;
                continue;
            };
            let other = meta.sources.iter().filter(|source| **source != block.id);
            named.extend(other.copied().filter(|source| self.knows(*source)));
            if listed {
                self.raise_highest(meta.max_time);
            }
        }
        let gone = self.shipped.iter().copied().filter(|id| !present.contains(id));
        self.sources.extend(gone);
        self.sources.retain(|id| unreadable || named.contains(id));
        while self.sources.len() > MOST_SOURCES {
            self.sources.pop_first();
        }
        self.shipped = order.iter().copied().collect();
        self.order = order;
        self.sealed_under.retain(|id, _| present.contains(id));
    }

    /// A block that ends in the future tells nothing of now; what a clock that was wrong once let through is dropped.
    fn raise_highest(&mut self, max_time: i64) {
        let now = now_ms();
        if max_time <= now {
            self.highest = self.highest.filter(|highest| *highest <= now).max(Some(max_time));
        }
    }

    /// Writes the file if it would differ from what is there, or if somebody removed, replaced or hid it: temporary file,
    /// fsync, rename, fsync of the directory.
    ///
    /// # Errors
    /// When the directory is missing, full or read-only; the old file then stays as it was, and the next save tries
    /// again.
    pub fn save(&mut self) -> io::Result<()> {
        if self.foreign.is_some() {
            return self.leave_foreign();
        }
        let text = self.text()?;
        if self.written.as_ref() == Some(&text) && self.is_unchanged_on_disk() {
            return Ok(());
        }
        self.keep_displaced()?;
        file::write(&self.path, text.as_bytes())?;
        self.written = Some(text);
        self.on_disk = file::stamp(&self.path);
        Ok(())
    }

    /// Leaves what Thanos wrote, or has written since; puts it back if it is gone, hidden or no ledger any more.
    fn leave_foreign(&mut self) -> io::Result<()> {
        if self.is_unchanged_on_disk() {
            return Ok(());
        }
        let stamp = file::stamp(&self.path);
        if let Some(text) = file::read_foreign(&self.path) {
            self.foreign = Some(text);
            self.on_disk = stamp;
        }
        if let Some(text) = self.foreign.as_ref().filter(|_| !self.is_unchanged_on_disk()) {
            file::write(&self.path, text.as_bytes())?;
            self.on_disk = file::stamp(&self.path);
        }
        Ok(())
    }

    fn keep_displaced(&mut self) -> io::Result<()> {
        match &self.displaced {
            None => return Ok(()),
            Some(Displaced::Thanos(text)) => file::keep_text(&file::beside(&self.path, BEFORE), text.as_bytes())?,
            Some(Displaced::Other) => {
                let kept = file::beside(&self.path, REPLACED);
                if let Err(error) = file::keep_file(&self.path, &kept) {
                    tracing::warn!(
                        ledger = %self.path.display(), kept = %kept.display(), %error,
                        "cannot keep a copy of what was there in the place of the ledger; replacing it nevertheless, since Prometheus would compact blocks that are not durable"
                    );
                }
            }
        }
        self.displaced = None;
        Ok(())
    }

    /// Whether the file is still the one that was read or written: one that somebody removed, replaced or hid from other
    /// users is written again.
    fn is_unchanged_on_disk(&self) -> bool {
        self.on_disk.is_some() && file::stamp(&self.path) == self.on_disk
    }

    fn text(&self) -> io::Result<String> {
        let names = |ids: &mut dyn Iterator<Item = &BlockId>| ids.map(BlockId::to_string).collect();
        let pairs = |labels: &Labels| {
            labels
                .iter()
                .map(|l| (l.name.to_string(), l.value.to_string()))
                .collect()
        };
        let mut sealed: BTreeMap<&Labels, Vec<String>> = BTreeMap::new();
        for (id, labels) in &self.sealed_under {
            sealed.entry(labels).or_default().push(id.to_string());
        }
        let sealed = sealed.into_iter().map(|(labels, blocks)| SealedUnder {
            labels: pairs(labels),
            blocks,
        });
        let skipped = || self.skipped.difference(&self.shipped);
        let ours = Ours {
            bucket: self.bucket.clone(),
            incarnation: self.incarnation.clone(),
            labels: pairs(&self.labels),
            sources: names(&mut self.sources.iter()),
            skipped: names(&mut skipped()),
            sealed_under: sealed.collect(),
            durable_until: self.highest,
            out_of_order_window_ms: self.out_of_order_window,
        };
        File::new(names(&mut self.order.iter().chain(skipped())), ours).text()
    }
}

/// Logs what was found in the place of the ledger.
pub(super) fn log_found(path: &Path, found: &Found) {
    let ledger = path.display();
    let then = "every local block is looked up in the bucket before anything is sent";
    let kept = file::beside(path, REPLACED);
    let kept = kept.display();
    match found {
        Found::Ours => tracing::debug!(%ledger, "read the ledger"),
        Found::Missing => tracing::info!(%ledger, "there is no ledger yet; starting with an empty one: {then}"),
        Found::Unidentified => {
            let kept = file::beside(path, BEFORE);
            tracing::info!(%ledger, kept = %kept.display(), "the ledger does not say which bucket it belongs to (Thanos wrote it); it stays until the bucket was read, and a copy is kept then: {then}");
        }
        Found::OtherBucket(other) => {
            tracing::warn!(%ledger, other, %kept, "the ledger belongs to another bucket; a copy of it is kept, starting with an empty one: {then}");
        }
        Found::OtherPlace(other) => {
            tracing::warn!(%ledger, other, %kept, "the ledger belongs to another file system at the path of the bucket; check that the right one is mounted. A copy of it is kept, starting with an empty one: {then}");
        }
        Found::Bad(why) => {
            tracing::error!(%ledger, why, %kept, "the ledger cannot be used; a copy of it is kept, starting with an empty one: {then}");
        }
    }
}

/// The blocks of these names, or the first name that is none.
fn blocks(names: &[String]) -> Result<Vec<BlockId>, &str> {
    let parse = |name: &'_ String| BlockId::parse(name);
    names.iter().map(|name| parse(name).ok_or(name.as_str())).collect()
}

pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    i64::try_from(now).unwrap_or(i64::MAX)
}
