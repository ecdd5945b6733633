//! Encodes messages into many pieces of memory: a message of any size is never in one piece, and never copied as it
//! grows. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// Bytes of a piece, as a rule.
const PIECE: usize = 64 << 10;
/// First size of a piece, in bytes; it grows up to [`PIECE`].
const FIRST: usize = 256;
/// Up to this size a buffer is copied into the end of another one, in bytes.
const SMALL: usize = 4 << 10;

/// Bytes in pieces.
#[derive(Debug, Default)]
pub(super) struct MessageBuffer {
    pieces: Vec<BytesMut>,
    length: usize,
}

impl MessageBuffer {
    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Appends the fields of a message.
    pub(super) fn fields(&mut self, message: &impl Message) {
        let length = message.encoded_len();
        // There is room for them, so that it cannot fail.
        let _ = message.encode(self.space(length));
        self.length += length;
    }

    /// Appends a message as a field; numbers of fields are below 16 here.
    pub(super) fn field(&mut self, number: u8, message: &impl Message) {
        self.head(number, message.encoded_len());
        self.fields(message);
    }

    /// Appends a text as a field.
    pub(super) fn text(&mut self, number: u8, text: &str) {
        self.head(number, text.len());
        self.put(text.as_bytes());
    }

    /// Appends a message that is encoded already, as a field.
    pub(super) fn nested(&mut self, number: u8, message: Self) {
        self.head(number, message.length);
        self.append(message);
    }

    /// Appends all of another one.
    pub(super) fn append(&mut self, other: Self) {
        if other.length > SMALL {
            self.length += other.length;
            self.pieces.extend(other.pieces);
            return;
        }
        for piece in &other.pieces {
            self.put(piece);
        }
    }

    /// Appends a message as it travels in a body of gRPC. `None` if it is too long for that.
    pub(super) fn message(&mut self, message: Self) -> Option<()> {
        // Its length travels in 32 bits.
        let length = u32::try_from(message.length).ok()?;
        self.put(&[0]);
        self.put(&length.to_be_bytes());
        self.append(message);
        Some(())
    }

    /// The pieces, in order.
    pub(super) fn into_pieces(self) -> impl Iterator<Item = Bytes> + Send {
        self.pieces.into_iter().map(BytesMut::freeze)
    }

    fn head(&mut self, number: u8, length: usize) {
        const DELIMITED: u8 = 2;
        self.put(&[number << 3 | DELIMITED]);
        let mut varint = [0; 10];
        let mut rest = &mut varint[..];
        // Ten bytes hold any length.
        let _ = prost::encode_length_delimiter(length, &mut rest);
        let used = 10 - rest.len();
        self.put(&varint[..used]);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).put_slice(bytes);
        self.length += bytes.len();
    }

    /// A piece with room for so many bytes more.
    fn space(&mut self, bytes: usize) -> &mut BytesMut {
        let fits = self.pieces.last().is_some_and(|piece| piece.len() + bytes <= PIECE);
        if !fits {
            let size = if self.pieces.is_empty() { FIRST } else { PIECE };
            self.pieces.push(BytesMut::with_capacity(size.max(bytes)));
        }
        let last = self.pieces.len() - 1;
        let piece = &mut self.pieces[last];
        piece.reserve(bytes);
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::thanos::{Label, ZLabelSet};

    fn all(buffer: MessageBuffer) -> Vec<u8> {
        let length = buffer.len();
        let bytes: Vec<u8> = buffer.into_pieces().flatten().collect();
        assert_eq!(bytes.len(), length);
        bytes
    }

    fn label(size: usize) -> Label {
        Label {
            name: "n".into(),
            value: "v".repeat(size),
        }
    }

    #[test]
    fn a_message_in_pieces_is_the_message() {
        let labels: Vec<Label> = [0, 1, 127, 128, 5000, 70_000, 3, 200_000].map(label).into();
        let mut buffer = MessageBuffer::default();
        for label in &labels {
            buffer.field(1, label);
        }
        assert!(buffer.pieces.len() > 3);
        let mut outer = MessageBuffer::default();
        outer.nested(1, buffer);
        let set = ZLabelSet { labels };
        let want = crate::pb::thanos::DroppedTarget {
            discovered_labels: Some(set),
        };
        let mut body = MessageBuffer::default();
        body.message(outer).unwrap();
        let bytes = all(body);
        assert_eq!(bytes[5..], want.encode_to_vec());
        assert_eq!(bytes[..5], [&[0], &(bytes.len() as u32 - 5).to_be_bytes()[..]].concat());
    }

    #[test]
    fn small_ropes_are_joined_and_pieces_stay_small() {
        let mut buffer = MessageBuffer::default();
        for _ in 0..1000 {
            let mut small = MessageBuffer::default();
            small.field(1, &label(100));
            buffer.append(small);
        }
        assert_eq!(buffer.pieces.len(), 2);
        assert!(buffer.pieces.iter().all(|piece| piece.capacity() <= 2 * PIECE));
    }
}
