//! A stream of pieces, cut into batches: what an object of unknown length travels in.
//!
//! A piece goes into its batch as it is, cut where the batch ends; only small pieces are copied together, so that what a
//! batch costs beside its bytes is bounded however small they are. More bytes than the caller grants end it before they are
//! in any batch. Memory: the batch that is being filled, and what is left of one piece. Dropping stops it; nothing is kept.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream::Fuse};

use super::{Error, ErrorKind, Op, PieceError, Pieces};
use crate::model::error_text::with_causes;

/// Pieces of fewer bytes are copied together: one of its own would cost more than that.
const SMALL: usize = 4 << 10;

/// How many bytes of such pieces are allocated at once.
const SMALL_TOGETHER: usize = 64 << 10;

/// Bytes that travel together, in the pieces in which they came; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    pieces: Arc<[Bytes]>,
    len: u64,
}

impl Batch {
    /// How many bytes they are.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// What remains behind the first `at` bytes; `None` beyond the end. Nothing is copied.
    pub(super) fn from(&self, at: u64) -> Option<Batch> {
        let len = self.len.checked_sub(at)?;
        let mut left = at;
        let mut pieces = Vec::new();
        for piece in self.pieces.iter() {
            let gone = left.min(piece.len() as u64);
            left -= gone;
            // No more than the piece has.
            let rest = piece.slice(gone as usize..);
            if !rest.is_empty() {
                pieces.push(rest);
            }
        }
        Some(Batch {
            pieces: pieces.into(),
            len,
        })
    }

    /// They, in order; no piece is empty.
    pub(super) fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }
}

impl From<Bytes> for Batch {
    fn from(bytes: Bytes) -> Self {
        let mut filling = Filling::default();
        filling.push(bytes);
        filling.finish()
    }
}

/// A batch in the making.
#[derive(Default)]
struct Filling {
    pieces: Vec<Bytes>,
    /// Small pieces, copied together.
    small: BytesMut,
    len: u64,
}

impl Filling {
    fn push(&mut self, piece: Bytes) {
        self.len += piece.len() as u64;
        if piece.len() >= SMALL {
            self.end_small();
            self.pieces.push(piece);
        } else if !piece.is_empty() {
            if self.small.capacity() - self.small.len() < piece.len() {
                self.end_small();
                self.small = BytesMut::with_capacity(SMALL_TOGETHER);
            }
            self.small.extend_from_slice(&piece);
        }
    }

    /// What follows is no part of them; the rest of the allocation is for those that come later.
    fn end_small(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
    }

    fn finish(mut self) -> Batch {
        self.end_small();
        Batch {
            pieces: self.pieces.into(),
            len: self.len,
        }
    }
}

/// Why no more bytes are taken.
#[derive(Debug)]
pub(super) enum Unusable {
    /// Whoever makes them failed.
    Producer(PieceError),
    /// There are more than this many.
    TooMany(u64),
}

impl Unusable {
    /// The failure of the object at `place`.
    pub(super) fn into_error(self, place: String) -> Error {
        let (kind, detail) = match self {
            Unusable::Producer(error) => (
                ErrorKind::Local,
                format!("making its bytes failed: {}", with_causes(&*error)),
            ),
            Unusable::TooMany(most) => {
                let detail = format!("it has more than the {most} bytes that are sent at most");
                (ErrorKind::TooLarge, detail)
            }
        };
        Error {
            op: Op::Upload,
            key: place,
            kind,
            detail,
            source: None,
        }
    }
}

/// A stream that is being cut.
pub(super) struct Batches<'a> {
    pieces: Fuse<Pieces<'a>>,
    /// What has come and is in no batch yet.
    rest: Bytes,
    /// How many bytes have come, and how many may come.
    came: u64,
    most: u64,
}

impl<'a> Batches<'a> {
    /// At most `most` bytes are taken from `pieces`.
    pub(super) fn new(pieces: Pieces<'a>, most: u64) -> Self {
        Self {
            pieces: pieces.fuse(),
            rest: Bytes::new(),
            came: 0,
            most,
        }
    }

    /// Whether there are more bytes; waits until that is known.
    pub(super) async fn has_more(&mut self) -> Result<bool, Unusable> {
        while self.rest.is_empty() {
            // Where pieces are always at hand, what runs beside this is to run all the same.
            tokio::task::consume_budget().await;
            match self.pieces.next().await {
                Some(Ok(piece)) => {
                    self.came = self.came.saturating_add(piece.len() as u64);
                    if self.came > self.most {
                        return Err(Unusable::TooMany(self.most));
                    }
                    self.rest = piece;
                }
                Some(Err(error)) => return Err(Unusable::Producer(error)),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The next `size` bytes; fewer when the stream has ended, none when it had ended before.
    pub(super) async fn next(&mut self, size: u64) -> Result<Batch, Unusable> {
        let mut filling = Filling::default();
        while filling.len < size && self.has_more().await? {
            let here = self.rest.len();
            let take = usize::try_from(size - filling.len).map_or(here, |left| left.min(here));
            filling.push(self.rest.split_to(take));
        }
        Ok(filling.finish())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn pieces(lens: &[usize]) -> (Vec<Bytes>, Vec<u8>) {
        let mut all = Vec::new();
        let pieces = lens.iter().map(|len| {
            let piece: Vec<u8> = (all.len()..all.len() + len).map(|i| (i ^ (i >> 8)) as u8).collect();
            all.extend_from_slice(&piece);
            Bytes::from(piece)
        });
        (pieces.collect(), all)
    }

    fn batches(pieces: &[Bytes], most: u64) -> Batches<'static> {
        let pieces: Vec<Result<Bytes, PieceError>> = pieces.iter().cloned().map(Ok).collect();
        Batches::new(stream::iter(pieces).boxed(), most)
    }

    #[tokio::test]
    async fn batches_have_the_size_that_is_asked_for_and_all_bytes_in_order() {
        for (lens, size, expected) in [
            (&[][..], 10, &[][..]),
            (&[0, 0], 10, &[]),
            (&[1], 10, &[1]),
            (&[10], 10, &[10]),
            (&[11], 10, &[10, 1]),
            (&[0, 5, 0, 5, 0], 10, &[10]),
            (&[100_000, 3, 99_997], 50_000, &[50_000, 50_000, 50_000, 50_000]),
            (&[4_095, 4_096, 4_097, 1], 6_000, &[6_000, 6_000, 289]),
            (&[1; 70_000], 66_000, &[66_000, 4_000]),
        ] {
            let (pieces, all) = pieces(lens);
            let mut batches = batches(&pieces, all.len() as u64);
            let (mut lens, mut got) = (Vec::new(), Vec::new());
            while batches.has_more().await.unwrap() {
                let batch = batches.next(size).await.unwrap();
                assert_eq!(batch.pieces().concat().len() as u64, batch.len());
                assert!(batch.pieces().iter().all(|piece| !piece.is_empty()));
                lens.push(batch.len());
                got.extend(batch.pieces().concat());
            }
            assert_eq!(lens, expected);
            assert!(got == all, "{expected:?}");
            assert_eq!(batches.next(size).await.unwrap().len(), 0, "it stays over");
        }
    }

    #[tokio::test]
    async fn pieces_are_not_copied_unless_they_are_small() {
        let (pieces, _) = pieces(&[SMALL, 20_000, 3, 4, 5, SMALL]);
        let batch = batches(&pieces, u64::MAX).next(u64::MAX).await.unwrap();
        let lens: Vec<usize> = batch.pieces().iter().map(Bytes::len).collect();
        assert_eq!(lens, [SMALL, 20_000, 12, SMALL]);
        for (ours, theirs) in [(0, 0), (1, 1), (3, 5)] {
            assert_eq!(batch.pieces()[ours].as_ptr(), pieces[theirs].as_ptr());
        }
        // One small piece between others takes no allocation of its own.
        let (pieces, _) = self::pieces(&[1, SMALL].repeat(100));
        let batch = batches(&pieces, u64::MAX).next(u64::MAX).await.unwrap();
        let small: Vec<*const u8> = batch.pieces().iter().step_by(2).map(|piece| piece.as_ptr()).collect();
        assert_eq!(small.len(), 100);
        assert!(small.windows(2).all(|two| two[1] == two[0].wrapping_add(1)));
    }

    #[tokio::test]
    async fn more_bytes_than_granted_are_in_no_batch() {
        let (pieces, _) = pieces(&[10, 10, 1]);
        let mut batches = batches(&pieces, 20);
        assert_eq!(batches.next(10).await.unwrap().len(), 10);
        let error = batches.next(11).await.unwrap_err().into_error("b/k".to_owned());
        assert_eq!(error.kind, ErrorKind::TooLarge);
        assert_eq!(
            error.to_string(),
            "cannot upload b/k: it has more than the 20 bytes that are sent at most"
        );
    }

    #[tokio::test]
    async fn an_error_of_the_producer_is_told_with_what_lies_below() {
        #[derive(Debug, thiserror::Error)]
        #[error("chunk 7 is damaged")]
        struct Damaged(#[source] std::num::ParseIntError);

        let below = "x".parse::<u8>().unwrap_err();
        let error: PieceError = Box::new(Damaged(below));
        let pieces = [Ok(Bytes::from_static(b"x")), Err(error)];
        let mut batches = Batches::new(stream::iter(pieces).boxed(), 9);
        let error = batches.next(9).await.unwrap_err().into_error("b/k".to_owned());
        assert_eq!(error.kind, ErrorKind::Local);
        assert_eq!(
            error.to_string(),
            "cannot upload b/k: making its bytes failed: chunk 7 is damaged: invalid digit found in string"
        );
    }
}
