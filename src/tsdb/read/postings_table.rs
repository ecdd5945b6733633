//! The postings table: for each label name and value, in order, where the list of its series is.

use std::sync::Arc;

use super::{
    super::{PinnedFile, check::Broken, window::Window},
    table_entry::Entry,
    tables::{NameEntries, Tables},
};

/// Finds lists by name and value.
#[derive(Debug)]
pub(super) struct PostingsTable {
    tables: Arc<Tables>,
    window: Window,
}

impl PostingsTable {
    pub(super) fn new(index: &Arc<PinnedFile>, tables: &Arc<Tables>, width: usize) -> Self {
        Self {
            tables: Arc::clone(tables),
            window: Window::of_width(index, width),
        }
    }

    /// Where the list of series with this label is; none if there is no such series.
    pub(super) fn find(&mut self, name: &[u8], value: &[u8]) -> Result<Option<u64>, Broken> {
        let mut found = None;
        self.each_value(name, value, |at, list| {
            if at == value {
                found = Some(list);
            }
            Ok(false)
        })?;
        Ok(found)
    }

    /// Hands the values of `name` from `from` on, in order and each with the place of its list, to `on_value`, until that
    /// returns false.
    pub(super) fn each_value(
        &mut self,
        name: &[u8],
        from: &[u8],
        mut on_value: impl FnMut(&[u8], u64) -> Result<bool, Broken>,
    ) -> Result<(), Broken> {
        let tables = Arc::clone(&self.tables);
        let Some((_, entries)) = tables.name(name) else {
            return Ok(());
        };
        let mut at = self.start(entries, from)?;
        while at < entries.end {
            let entry = Entry::read(&mut self.window, at, entries.end)?;
            at = entry.next;
            if entry.value >= from && !on_value(entry.value, entry.list)? {
                break;
            }
        }
        Ok(())
    }

    /// Where to begin to look for the value `from`: the last sample that is not greater, or the first.
    fn start(&mut self, entries: NameEntries<'_>, from: &[u8]) -> Result<u64, Broken> {
        let (mut low, mut high) = (0, entries.samples());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let place = entries.place(middle).unwrap_or(entries.end);
            match Entry::read(&mut self.window, place, entries.end)?.value <= from {
                true => low = middle,
                false => high = middle,
            }
        }
        Ok(entries.place(low).unwrap_or(entries.end))
    }
}
