//! Which pieces make a log without a gap.
//!
//! Pieces may overlap: one whose acknowledgement was lost was sent again with what had come meanwhile, and two processes may
//! have read the same log for a while. They have the same bytes where they overlap, since a log only grows.

use super::layout::Piece;

/// A piece, and how much of its beginning other pieces have already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The piece.
    pub piece: Piece,
    /// So many of its first bytes are in the parts before (bytes).
    pub skip: u64,
}

/// Pieces in order, without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The parts, in order.
    pub parts: Vec<Part>,
    /// How many pieces there are behind a gap.
    pub beyond: usize,
}

impl Chain {
    /// The longest chain of `pieces` from the beginning of `segment` on. It has no parts if there is no such beginning.
    pub fn from(pieces: &[Piece], segment: u64) -> Self {
        let mut pieces = pieces.to_vec();
        // Of those that begin at one place the longest first.
        pieces.sort_unstable_by_key(|piece| (piece.position, piece.segment, std::cmp::Reverse(piece.len), *piece));
        let begins = |piece: &Piece| piece.segment == segment && piece.offset == 0;
        let Some(first) = pieces.iter().position(begins) else {
            return Self {
                parts: Vec::new(),
                beyond: pieces.len(),
            };
        };
        let mut chain = Self::default();
        let begin = pieces[first];
        chain.parts.push(Part { piece: begin, skip: 0 });
        // Where the next byte is: its position, its segment and its place there.
        let (mut end, mut at) = (begin.end(), (segment, begin.len));
        for piece in &pieces[first + 1..] {
            match follows(piece, end, at) {
                Follows::Behind => {}
                Follows::From(skip) => {
                    chain.parts.push(Part { piece: *piece, skip });
                    end = piece.end();
                    at = (piece.segment, piece.offset + piece.len);
                }
                Follows::Beyond => chain.beyond += 1,
            }
        }
        chain
    }

    /// Its last piece.
    pub fn last(&self) -> Option<&Piece> {
        self.parts.last().map(|part| &part.piece)
    }

    /// The parts until everything that had been written at `until_ms` is in them.
    pub fn until(&self, until_ms: i64) -> &[Part] {
        // All pieces of one look have its time.
        let enough = self.parts.iter().find(|part| part.piece.read_ms >= until_ms);
        let Some(enough) = enough.map(|part| part.piece.read_ms) else {
            return &self.parts;
        };
        let end = self.parts.partition_point(|part| part.piece.read_ms <= enough);
        &self.parts[..end]
    }
}

enum Follows {
    /// All its bytes are there.
    Behind,
    /// From so many bytes on it continues what is there.
    From(u64),
    /// Something is missing before it, or it is of another log.
    Beyond,
}

fn follows(piece: &Piece, end: u64, (segment, offset): (u64, u64)) -> Follows {
    // It may have no bytes, as a segment may have none.
    if piece.position == end && piece.offset == 0 && piece.segment == segment + 1 {
        return Follows::From(0);
    }
    if piece.end() <= end {
        return Follows::Behind;
    }
    let skip = end.checked_sub(piece.position);
    match skip.filter(|skip| piece.segment == segment && piece.offset.checked_add(*skip) == Some(offset)) {
        Some(skip) => Follows::From(skip),
        None => Follows::Beyond,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(position: u64, segment: u64, offset: u64, len: u64) -> Piece {
        Piece {
            position,
            segment,
            offset,
            len,
            read_ms: (position + len) as i64,
            crc: 0,
        }
    }

    fn parts(chain: &Chain) -> Vec<(u64, u64, u64)> {
        chain
            .parts
            .iter()
            .map(|part| (part.piece.segment, part.piece.offset, part.skip))
            .collect()
    }

    #[test]
    fn a_chain_runs_over_segments_until_something_is_missing() {
        let pieces = [
            piece(0, 3, 0, 10),
            piece(10, 3, 10, 5),
            piece(15, 4, 0, 7),
            piece(22, 5, 0, 1),
            // The end of segment 5 is missing.
            piece(30, 6, 0, 1),
        ];
        let chain = Chain::from(&pieces, 3);
        assert_eq!(parts(&chain), [(3, 0, 0), (3, 10, 0), (4, 0, 0), (5, 0, 0)]);
        assert_eq!((chain.last(), chain.beyond), (Some(&pieces[3]), 1));
        assert_eq!(parts(&Chain::from(&pieces, 4)), [(4, 0, 0), (5, 0, 0)]);
        assert_eq!(parts(&Chain::from(&pieces, 6)), [(6, 0, 0)]);
        assert_eq!(
            Chain::from(&pieces, 7),
            Chain {
                parts: vec![],
                beyond: 5
            }
        );
    }

    #[test]
    fn what_was_sent_twice_is_taken_once() {
        let pieces = [
            piece(0, 0, 0, 4),
            piece(0, 0, 0, 6),
            piece(2, 0, 2, 3),
            piece(4, 0, 4, 6),
            piece(10, 0, 10, 2),
        ];
        assert_eq!(parts(&Chain::from(&pieces, 0)), [(0, 0, 0), (0, 4, 2), (0, 10, 0)]);
    }

    #[test]
    fn segments_without_bytes_are_part_of_the_chain() {
        let pieces = [
            piece(0, 2, 0, 0),
            piece(0, 3, 0, 0),
            piece(0, 4, 0, 8),
            piece(8, 5, 0, 0),
            piece(8, 6, 0, 3),
        ];
        let all = [(2, 0, 0), (3, 0, 0), (4, 0, 0), (5, 0, 0), (6, 0, 0)];
        assert_eq!(parts(&Chain::from(&pieces, 2)), all);
        let mut twice = pieces.to_vec();
        twice.extend(pieces);
        twice.rotate_left(3);
        assert_eq!(parts(&Chain::from(&twice, 2)), all);
        // Without the one that says that segment 5 is empty, 6 follows upon nothing.
        assert_eq!(parts(&Chain::from(&[pieces[2], pieces[4]], 4)), [(4, 0, 0)]);
    }

    #[test]
    fn a_segment_that_is_left_out_or_begins_in_its_middle_is_a_gap() {
        for odd in [piece(5, 2, 0, 5), piece(5, 1, 3, 5), piece(5, 0, 6, 5)] {
            let chain = Chain::from(&[piece(0, 0, 0, 5), odd], 0);
            assert_eq!((chain.parts.len(), chain.beyond), (1, 1), "{odd:?}");
        }
    }

    #[test]
    fn up_to_a_time_all_of_the_look_counts_that_has_seen_it() {
        let mut pieces = [
            piece(0, 0, 0, 5),
            piece(5, 0, 5, 5),
            piece(10, 1, 0, 5),
            piece(15, 1, 5, 5),
        ];
        for (piece, read_ms) in pieces.iter_mut().zip([100, 200, 200, 300]) {
            piece.read_ms = read_ms;
        }
        let chain = Chain::from(&pieces, 0);
        for (until, count) in [(0, 1), (100, 1), (101, 3), (200, 3), (201, 4), (300, 4), (999, 4)] {
            assert_eq!(chain.until(until).len(), count, "{until}");
        }
    }
}
