//! The labels of series, from the numbers of their symbols to the bytes that are sent.

use std::sync::Arc;

use bytes::BytesMut;

use super::{
    super::check::{Broken, index::bad},
    symbols::Symbols,
    tables::Tables,
};
use crate::model::{LabelBytes, label_bytes::put_label};

/// So many labels are kept as they are sent, for all blocks together: most come again and again.
const KEPT: usize = 1 << 11;
/// For one block no fewer.
const LEAST_KEPT: usize = 1 << 6;
/// After so many label sets that many are kept: most answers have fewer.
const FEW_SETS: u32 = 256;
/// A label that takes more bytes is not kept.
const LONGEST_KEPT: usize = 256;
/// No label set is longer, as it is sent (bytes): many labels may have one long value.
const LONGEST_SET: usize = 32 << 20;
/// Label sets share memory of this size (bytes).
const SHARED: usize = 32 << 10;

/// Writes label sets.
#[derive(Debug)]
pub(super) struct LabelWriter {
    tables: Arc<Tables>,
    out: BytesMut,
    kept: Vec<Kept>,
    /// How many are to be kept if there are many sets.
    most_kept: usize,
    sets: u32,
}

/// A label, as it is sent; the first time that it is seen without its bytes.
#[derive(Clone, Debug, Default)]
struct Kept {
    name: u32,
    value: u32,
    bytes: Vec<u8>,
}

impl Kept {
    fn is(&self, name: u32, value: u32) -> bool {
        (self.name, self.value) == (name, value) && !self.bytes.is_empty()
    }
}

impl LabelWriter {
    /// For one of `blocks` blocks that are read together.
    pub(super) fn new(tables: &Arc<Tables>, blocks: usize) -> Self {
        Self {
            tables: Arc::clone(tables),
            out: BytesMut::new(),
            kept: vec![Kept::default(); LEAST_KEPT],
            most_kept: (KEPT / blocks.max(1)).max(LEAST_KEPT),
            sets: 0,
        }
    }

    /// Has the processor fetch what writing these labels needs, while other things are done.
    pub(super) fn prefetch(&self, labels: &[(u32, u32)], symbols: &Symbols) {
        for (name, value) in labels {
            if !self.kept[self.slot(*name, *value)].is(*name, *value) {
                symbols.prefetch(*value);
            }
        }
    }

    fn slot(&self, name: u32, value: u32) -> usize {
        name.wrapping_mul(31).wrapping_add(value) as usize % self.kept.len()
    }

    /// The set of the labels with these numbers, which are in order.
    ///
    /// # Errors
    /// A symbol is not there, or the set is longer than any may be.
    pub(super) fn write(&mut self, labels: &[(u32, u32)], symbols: &mut Symbols) -> Result<LabelBytes, Broken> {
        if self.out.capacity() < LONGEST_KEPT {
            let shared = if self.sets < FEW_SETS { SHARED / 8 } else { SHARED };
            self.out = BytesMut::with_capacity(shared);
        }
        self.sets = self.sets.saturating_add(1);
        if self.sets == FEW_SETS {
            self.kept.resize(self.most_kept, Kept::default());
        }
        for (name, value) in labels {
            if self.out.len() > LONGEST_SET {
                return Err(bad(format_args!(
                    "index has a series whose labels take more than {LONGEST_SET} bytes"
                )));
            }
            let slot = self.slot(*name, *value);
            let kept = &mut self.kept[slot];
            if kept.is(*name, *value) {
                self.out.extend_from_slice(&kept.bytes);
                continue;
            }
            let start = self.out.len();
            match self.tables.name_of(*name) {
                Some(name) => put_label(&mut self.out, name, symbols.get(*value)?),
                // The postings table has no such name, which is no matter here.
                None => {
                    let name = symbols.get(*name)?.to_vec();
                    put_label(&mut self.out, &name, symbols.get(*value)?);
                }
            }
            let written = &self.out[start..];
            let is_seen_again = (kept.name, kept.value) == (*name, *value);
            (kept.name, kept.value) = (*name, *value);
            kept.bytes.clear();
            // Many are never seen again.
            if is_seen_again && written.len() <= LONGEST_KEPT {
                kept.bytes.extend_from_slice(written);
            }
        }
        Ok(LabelBytes::from_encoded(self.out.split().freeze()))
    }
}
