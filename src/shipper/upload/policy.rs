//! What becomes of a block by its content: a pure function of the operator's choice and what the check has found.

use super::UploadRequest;
use crate::tsdb::{
    Encodings,
    content::{self, Kind},
};

/// Why a compactor must leave a block alone whose chunks it cannot read.
pub(in crate::shipper) const NEWER_ENCODINGS: &str = "it has chunks in encodings that compactors refuse";

/// What happens with a block whose chunks Thanos' Store Gateway and Compactor refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewerEncodings {
    /// It is sent with these chunks in the encodings that they read.
    #[default]
    Rewrite,
    /// It stays on the local disk, and is set aside.
    Hold,
    /// It is sent as it is.
    Ship,
    /// It is sent as it is, with marks that keep compactors from it.
    Mark,
}

/// What happens with a block that overlaps others by its nature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlapping {
    /// It is sent as it is.
    #[default]
    Ship,
    /// It is sent with a mark that keeps compactors from it.
    Mark,
}

/// What the operator has chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentPolicy {
    /// For chunks in newer encodings.
    pub newer_encodings: NewerEncodings,
    /// For blocks that overlap others.
    pub overlapping: Overlapping,
}

/// How a block is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Treatment {
    /// Its chunks are rewritten.
    pub(super) rewrite: bool,
    /// Why a compactor must leave it alone, if it must.
    pub(super) no_compact: Option<String>,
    /// It must not be downsampled either.
    pub(super) no_downsample: bool,
}

impl ContentPolicy {
    /// How the block of a request is sent; else why it is not.
    pub(super) fn treatment(&self, request: &UploadRequest, encodings: &Encodings) -> Result<Treatment, String> {
        let (newer, unknown) = (encodings.newer(), encodings.unknown());
        let (mut rewrite, mut no_downsample, mut reasons) = (false, false, Vec::new());
        match self.newer_encodings {
            NewerEncodings::Rewrite | NewerEncodings::Hold if unknown > 0 => {
                return Err(format!(
                    "{unknown} of its chunks are in an encoding that this version of narthex does not know, so that they cannot be \
                     rewritten. Run a newer version, or send the block as it is with --shipper.newer-encodings=ship or =mark if \
                     what reads the bucket knows them"
                ));
            }
            NewerEncodings::Hold if newer > 0 => {
                return Err(format!(
                    "{newer} of its chunks are in encodings that Thanos' Store Gateway and Compactor refuse, and \
                     --shipper.newer-encodings=hold keeps it on the local disk until Prometheus' retention deletes it; choose \
                     rewrite to have it sent"
                ));
            }
            NewerEncodings::Rewrite => rewrite = newer > 0,
            NewerEncodings::Mark if newer + unknown > 0 => {
                reasons.push(NEWER_ENCODINGS.to_owned());
                no_downsample = true;
            }
            NewerEncodings::Hold | NewerEncodings::Ship | NewerEncodings::Mark => {}
        }
        if self.overlapping == Overlapping::Mark {
            let kinds = content::by_meta(&request.block.meta);
            reasons.extend(kinds.iter().map(|kind| format!("it overlaps other blocks ({kind})")));
            if !request.overlapped.is_empty() {
                let kind = Kind::Overlapping;
                reasons.push(format!("it overlaps {} ({kind})", request.overlapped));
            }
        }
        let no_compact = (!reasons.is_empty()).then(|| reasons.join("; "));
        Ok(Treatment {
            rewrite,
            no_compact,
            no_downsample,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::tsdb::{Block, Meta};

    fn request(hint: &str, overlapped: &str) -> UploadRequest {
        let name = "01K4ABCDEFGHJKMNPQRSTVWXYZ";
        let meta = format!(r#"{{"ulid":"{name}","version":1,"compaction":{{"level":1,"hints":[{hint}]}}}}"#);
        let meta = Meta::parse(meta.as_bytes()).unwrap();
        UploadRequest {
            overlapped: overlapped.to_owned(),
            ..UploadRequest::new(Block {
                id: meta.ulid,
                dir: Path::new("data").into(),
                meta: meta.into(),
            })
        }
    }

    fn of(bytes: &[u8]) -> Encodings {
        Encodings {
            chunks: bytes.iter().map(|byte| (*byte, 1)).collect(),
            complete: true,
        }
    }

    #[test]
    fn what_becomes_of_newer_and_unknown_encodings() {
        use NewerEncodings::*;
        let sent = |rewrite, marked| Some((rewrite, marked));
        for (choice, plain, newer, unknown) in [
            (Rewrite, sent(false, false), sent(true, false), None),
            (Hold, sent(false, false), None, None),
            (Ship, sent(false, false), sent(false, false), sent(false, false)),
            (Mark, sent(false, false), sent(false, true), sent(false, true)),
        ] {
            let policy = ContentPolicy {
                newer_encodings: choice,
                ..ContentPolicy::default()
            };
            let treated = |bytes: &[u8]| {
                let treatment = policy.treatment(&request("", ""), &of(bytes));
                treatment.ok().map(|how| {
                    assert_eq!(how.no_compact.is_some(), how.no_downsample);
                    (how.rewrite, how.no_downsample)
                })
            };
            assert_eq!(treated(&[1, 2, 3, 0xff]), plain, "{choice:?}");
            assert_eq!(treated(&[1, 4]), newer, "{choice:?}");
            assert_eq!(treated(&[1, 9]), unknown, "{choice:?}");
            assert_eq!(treated(&[4, 9]), unknown, "{choice:?}");
        }
    }

    #[test]
    fn what_overlaps_is_marked_when_that_is_wanted() {
        let mark = ContentPolicy {
            overlapping: Overlapping::Mark,
            ..ContentPolicy::default()
        };
        for (hint, overlapped, expected) in [
            ("", "", None),
            (
                r#""from-out-of-order""#,
                "",
                Some("it overlaps other blocks (out_of_order)"),
            ),
            ("", "B", Some("it overlaps B (overlapping)")),
        ] {
            let request = request(hint, overlapped);
            let marked = mark.treatment(&request, &of(&[1])).unwrap();
            assert_eq!((marked.no_compact.as_deref(), marked.no_downsample), (expected, false));
            let shipped = ContentPolicy::default().treatment(&request, &of(&[1])).unwrap();
            assert_eq!(shipped.no_compact, None);
        }
    }
}
