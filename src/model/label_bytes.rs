//! A label set as the bytes of a message, which are the same in Prometheus' remote read and in the StoreAPI.

use std::{cmp::Ordering, ops::Range};

use bytes::{BufMut, Bytes, BytesMut};

use super::uvarint::{put_uvarint, uvarint, uvarint_size};

/// A label set as the bytes of `repeated Label labels = 1`: sorted by name, names unique, no empty value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelBytes(Bytes);

/// `Label` as a field with number 1.
const LABEL_TAG: u8 = 0x0a;
const NAME_TAG: u8 = 0x0a;
const VALUE_TAG: u8 = 0x12;

impl LabelBytes {
    /// Encodes pairs that are in order. Pairs with an empty value are left out.
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut bytes = BytesMut::new();
        for (name, value) in pairs {
            put_label(&mut bytes, name, value);
        }
        Self(bytes.freeze())
    }

    /// Encodes pairs in any order; of several with one name the last counts.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_by_key(|(name, _)| *name);
        let last = |at: &usize| pairs.get(at + 1).is_none_or(|next| next.0 != pairs[*at].0);
        Self::from_sorted((0..pairs.len()).filter(last).map(|at| pairs[at]))
    }

    /// Takes fields that are written as [`put_label`] writes them, sorted by name, names unique.
    pub fn from_encoded(fields: Bytes) -> Self {
        Self(fields)
    }

    /// The encoded fields.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || Some(pair(field(&mut rest, LABEL_TAG)?)))
    }

    /// Where each label is among the [fields](Self::as_bytes), and its name, in order.
    pub fn places(&self) -> impl Iterator<Item = (Range<usize>, &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let start = self.0.len() - rest.len();
            let mut label = field(&mut rest, LABEL_TAG)?;
            let end = self.0.len() - rest.len();
            Some((start..end, field(&mut label, NAME_TAG).unwrap_or_default()))
        })
    }

    /// The same labels with memory of their own, which keeps no frame alive.
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl Ord for LabelBytes {
    /// The order of the StoreAPI: pair by pair, name before value, bytewise; the shorter set first.
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut left, mut right) = (&self.0[..], &other.0[..]);
        loop {
            let order = match (field(&mut left, LABEL_TAG), field(&mut right, LABEL_TAG)) {
                (Some(left), Some(right)) if left == right => Ordering::Equal,
                (Some(left), Some(right)) => pair(left).cmp(&pair(right)),
                (left, right) => return left.is_some().cmp(&right.is_some()),
            };
            if order.is_ne() {
                return order;
            }
        }
    }
}

impl PartialOrd for LabelBytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Name and value of a label.
#[inline]
fn pair(mut label: &[u8]) -> (&[u8], &[u8]) {
    (
        field(&mut label, NAME_TAG).unwrap_or_default(),
        field(&mut label, VALUE_TAG).unwrap_or_default(),
    )
}

/// Appends a label as a field; one with an empty value is left out.
pub fn put_label(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    if value.is_empty() {
        return;
    }
    let text = |text: &[u8]| 1 + uvarint_size(text.len() as u64) + text.len();
    let length = text(name) + text(value);
    out.reserve(1 + uvarint_size(length as u64) + length);
    put_head(out, LABEL_TAG, length);
    for (tag, text) in [(NAME_TAG, name), (VALUE_TAG, value)] {
        put_head(out, tag, text.len());
        out.put_slice(text);
    }
}

/// Appends the head of a field that has so many bytes.
fn put_head(out: &mut BytesMut, tag: u8, length: usize) {
    out.put_u8(tag);
    put_uvarint(out, length as u64);
}

/// Takes a length-delimited field off `rest` if it comes next.
#[inline]
fn field<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&first, after) = rest.split_first()?;
    if first != tag {
        return None;
    }
    let (length, size) = uvarint(after)?;
    let end = size.checked_add(usize::try_from(length).ok()?)?;
    let text = after.get(size..end)?;
    *rest = &after[end..];
    Some(text)
}

/// The name of a label that is written as we would: name, value, which is not empty, and nothing else.
pub fn plain_name(mut label: &[u8]) -> Option<&[u8]> {
    let name = field(&mut label, NAME_TAG)?;
    let value = field(&mut label, VALUE_TAG)?;
    (label.is_empty() && !value.is_empty()).then_some(name)
}
