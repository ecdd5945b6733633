//! The labels of series, from the numbers of their symbols to the bytes that are sent.

use std::collections::{HashMap, hash_map::Entry};

use bytes::BytesMut;

use super::{
    super::check::{Broken, index::bad},
    symbols::Symbols,
};
use crate::model::{LabelBytes, label_bytes::put_label};

/// So many labels are kept as they are sent, for all blocks together: most come again and again.
const KEPT: usize = 1 << 11;
/// For one block no fewer.
const LEAST_KEPT: usize = 1 << 6;
/// So many names are kept.
const NAMES: usize = 1 << 9;
/// A label that takes more bytes is not kept.
const LONGEST_KEPT: usize = 256;
/// No label set is longer, as it is sent (bytes): many labels may have one long value.
const LONGEST_SET: usize = 32 << 20;
/// Label sets share memory of this size (bytes).
const SHARED: usize = 32 << 10;

/// Writes label sets.
#[derive(Debug)]
pub(super) struct LabelWriter {
    out: BytesMut,
    kept: Box<[Kept]>,
    /// By their numbers.
    names: HashMap<u32, Box<[u8]>>,
}

/// A label, as it is sent.
#[derive(Clone, Debug, Default)]
struct Kept {
    name: u32,
    value: u32,
    bytes: Vec<u8>,
}

impl LabelWriter {
    /// For one of `blocks` blocks that are read together.
    pub(super) fn new(blocks: usize) -> Self {
        Self {
            out: BytesMut::new(),
            kept: vec![Kept::default(); (KEPT / blocks.max(1)).max(LEAST_KEPT)].into(),
            names: HashMap::new(),
        }
    }

    /// The set of the labels with these numbers, which are in order.
    ///
    /// # Errors
    /// A symbol is not there, or the set is longer than any may be.
    pub(super) fn write(&mut self, labels: &[(u32, u32)], symbols: &mut Symbols) -> Result<LabelBytes, Broken> {
        if self.out.capacity() < LONGEST_KEPT {
            self.out = BytesMut::with_capacity(SHARED);
        }
        for (name, value) in labels {
            if self.out.len() > LONGEST_SET {
                return Err(bad(format_args!(
                    "index has a series whose labels take more than {LONGEST_SET} bytes"
                )));
            }
            let slot = name.wrapping_mul(31).wrapping_add(*value) as usize % self.kept.len();
            let kept = &mut self.kept[slot];
            if (kept.name, kept.value) == (*name, *value) && !kept.bytes.is_empty() {
                self.out.extend_from_slice(&kept.bytes);
                continue;
            }
            let start = self.out.len();
            if self.names.len() > NAMES {
                self.names.clear();
            }
            // Looked up apart: values of series that follow one another mostly do so, too, and names stand elsewhere.
            let name_text = match self.names.entry(*name) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(free) => free.insert(symbols.get(*name)?.into()),
            };
            put_label(&mut self.out, name_text, symbols.get(*value)?);
            let written = &self.out[start..];
            if written.len() <= LONGEST_KEPT {
                (kept.name, kept.value) = (*name, *value);
                kept.bytes.clear();
                kept.bytes.extend_from_slice(written);
            }
        }
        Ok(LabelBytes::from_encoded(self.out.split().freeze()))
    }
}
