//! The labels of a series in one piece of memory.

use std::fmt;

use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

/// The key of a length-delimited field 1: a label within a series, a name within a label.
const FIRST: u8 = 0x0a;

/// The key of a length-delimited field 2: a value within a label.
const SECOND: u8 = 0x12;

/// A label set as it stands on the wire in a `thanos.Series` or a `thanos.ZLabelSet`: its labels one after another, each
/// as field 1. Sorted by name, names unique, without labels of an empty value. Costs its bytes and 16 more.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LabelSet(Box<[u8]>);

impl LabelSet {
    /// Encodes labels that are sorted by name, names unique; those of an empty value are left out.
    pub fn encode<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut bytes = Vec::new();
        for (name, value) in labels {
            push(&mut bytes, name, value);
        }
        Self(bytes.into())
    }

    /// The bytes: of labels as field 1, without a length before them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Name and value of each label, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &*self.0;
        // Nothing but `encode` makes these bytes, so that none of this can fail.
        std::iter::from_fn(move || {
            let mut label = field(&mut rest, FIRST)?;
            let name = text(field(&mut label, FIRST)?)?;
            Some((name, text(field(&mut label, SECOND)?)?))
        })
    }
}

impl fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

fn push(bytes: &mut Vec<u8>, name: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    let size = |text: &str| 1 + encoded_len_varint(text.len() as u64) + text.len();
    bytes.push(FIRST);
    encode_varint((size(name) + size(value)) as u64, bytes);
    for (key, text) in [(FIRST, name), (SECOND, value)] {
        bytes.push(key);
        encode_varint(text.len() as u64, bytes);
        bytes.extend_from_slice(text.as_bytes());
    }
}

/// Takes a field off the front.
fn field<'a>(bytes: &mut &'a [u8], key: u8) -> Option<&'a [u8]> {
    *bytes = bytes.strip_prefix(&[key])?;
    let length = decode_varint(bytes).ok()?;
    let (field, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(field)
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::pb::thanos;

    #[test]
    fn is_the_same_bytes_as_the_message() {
        let long = "x".repeat(300);
        let labels = [("__name__", "up"), ("a", "b"), ("c", ""), ("long", &long), ("ü", "😀")];
        let set = LabelSet::encode(labels);
        let kept: Vec<_> = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let label = |(name, value): &(&str, &str)| thanos::Label {
            name: (*name).into(),
            value: (*value).into(),
        };
        let message = thanos::ZLabelSet {
            labels: kept.iter().map(label).collect(),
        };
        assert_eq!(set.as_bytes(), message.encode_to_vec());
        assert_eq!(set.iter().collect::<Vec<_>>(), kept);
        assert_eq!(LabelSet::encode([("a", "b")]).as_bytes(), b"\x0a\x06\x0a\x01a\x12\x01b");
        assert_eq!(LabelSet::encode([]).iter().count(), 0);
    }
}
