//! Where messages start in the bytes of a body: each has a flag, a length and that many bytes.

use std::cmp::min;

/// The length of the prefix of a message: a byte of flags and four of length.
pub(super) const PREFIX: usize = 5;

/// The flag of a compressed message.
pub(super) const COMPRESSED: u8 = 1;

/// The prefix of a message of `length` bytes.
pub(super) fn prefix(flag: u8, length: u32) -> [u8; PREFIX] {
    let [a, b, c, d] = length.to_be_bytes();
    [flag, a, b, c, d]
}

/// The length in a prefix.
pub(super) fn length(prefix: [u8; PREFIX]) -> u32 {
    let [_, a, b, c, d] = prefix;
    u32::from_be_bytes([a, b, c, d])
}

/// A piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A message begins.
    Prefix([u8; PREFIX]),
    /// Bytes of the message that began last; never empty.
    Bytes(&'a [u8]),
}

/// Cuts a body, however its bytes come, into prefixes and bytes of messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    left: u32,
    prefix: [u8; PREFIX],
    have: usize,
}

impl Messages {
    /// Takes the next piece from `data`; `None` when all of it is taken.
    pub(super) fn next<'a>(&mut self, data: &mut &'a [u8]) -> Option<Piece<'a>> {
        if self.left > 0 {
            let (now, rest) = data.split_at(min(self.left as usize, data.len()));
            *data = rest;
            self.left -= now.len() as u32;
            return (!now.is_empty()).then_some(Piece::Bytes(now));
        }
        // As a rule a prefix comes whole.
        if self.have == 0
            && let Some((prefix, rest)) = data.split_first_chunk::<PREFIX>()
        {
            *data = rest;
            self.left = length(*prefix);
            return Some(Piece::Prefix(*prefix));
        }
        let (now, rest) = data.split_at(min(PREFIX - self.have, data.len()));
        self.prefix[self.have..self.have + now.len()].copy_from_slice(now);
        *data = rest;
        self.have += now.len();
        if self.have < PREFIX {
            return None;
        }
        self.have = 0;
        self.left = length(self.prefix);
        Some(Piece::Prefix(self.prefix))
    }

    /// How many messages begin in `data`, the next bytes of the body.
    pub(super) fn count(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while let Some(piece) = self.next(&mut data) {
            begun += u64::from(matches!(piece, Piece::Prefix(_)));
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(lengths: &[usize]) -> Vec<u8> {
        let message = |length: &usize| [&prefix(0, *length as u32)[..], &vec![7; *length]].concat();
        lengths.iter().flat_map(message).collect()
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let body = body(&[3, 0, 300, 1, 0]);
        for step in 1..body.len() {
            let mut messages = Messages::default();
            let begun: u64 = body.chunks(step).map(|chunk| messages.count(chunk)).sum();
            assert_eq!((begun, messages.left, messages.have), (5, 0, 0), "in steps of {step}");
        }
        let mut messages = Messages::default();
        assert_eq!(messages.count(&body[..body.len() - 1]), 4);
        assert_eq!(messages.have, PREFIX - 1);
    }

    #[test]
    fn pieces_are_the_messages() {
        let body = body(&[2, 0]);
        let (mut messages, mut data) = (Messages::default(), &body[..]);
        assert_eq!(messages.next(&mut data), Some(Piece::Prefix([0, 0, 0, 0, 2])));
        assert_eq!(messages.next(&mut data), Some(Piece::Bytes(&[7, 7])));
        assert_eq!(messages.next(&mut data), Some(Piece::Prefix([0; 5])));
        assert_eq!(messages.next(&mut data), None);
    }
}
