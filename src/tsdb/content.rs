//! What kind of content a block has, as far as somebody behind the bucket must know: whether today's readers can read it,
//! and whether it overlaps other blocks by its nature.

use std::fmt;

use super::{BlockMeta, check::Encodings, meta::Parents};

/// A kind of content. A block can be of several kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Nothing that anybody must know.
    Plain,
    /// It has chunks in encodings that Thanos' Store Gateway and Compactor refuse: XOR2, HISTOGRAM_ST, FLOAT_HISTOGRAM_ST.
    NewerEncodings,
    /// It has chunks in encodings that are not known here.
    UnknownEncodings,
    /// Prometheus made it of samples that came out of order: it overlaps the block of its time.
    OutOfOrder,
    /// Prometheus made it of series that have ended, before the block of its time: it overlaps that one.
    StaleSeries,
    /// Prometheus wrote it anew without deleted samples, under another name: it overlaps what was shipped before.
    Rewritten,
    /// Its times overlap those of another local block, for whatever reason.
    Overlapping,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Plain,
        Self::NewerEncodings,
        Self::UnknownEncodings,
        Self::OutOfOrder,
        Self::StaleSeries,
        Self::Rewritten,
        Self::Overlapping,
    ];

    /// The kind as the value of a metric's label, and in tables.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::NewerEncodings => "newer_encodings",
            Self::UnknownEncodings => "unknown_encodings",
            Self::OutOfOrder => "out_of_order",
            Self::StaleSeries => "stale_series",
            Self::Rewritten => "rewritten_after_deletion",
            Self::Overlapping => "overlapping",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The kinds of a block by its `meta.json` alone: how it came about, where that makes it overlap others.
pub fn by_meta(meta: &BlockMeta) -> Vec<Kind> {
    let hint = |name: &str| meta.hints.iter().any(|hint| hint == name);
    let mut kinds = Vec::new();
    if hint("from-stale-series") {
        kinds.push(Kind::StaleSeries);
    }
    // Before there were hints, only the parent without a name told it.
    if hint("from-out-of-order") || meta.is_cut_from_head() && meta.parents == Parents::Nameless {
        kinds.push(Kind::OutOfOrder);
    }
    // A block that was cut from the head has no parent; one that was compacted is of a higher level.
    if meta.level <= 1 && matches!(meta.parents, Parents::Blocks(_)) {
        kinds.push(Kind::Rewritten);
    }
    kinds
}

/// Whether a block was cut from the head as a whole and in order: only such a block tells where the head begins. One of stale or
/// selected series ends where its range does, and the head still holds samples of the others (Prometheus'
/// `inOrderBlocksMaxTime`).
pub fn is_in_order(meta: &BlockMeta) -> bool {
    let is_of_some = |kind: &Kind| matches!(kind, Kind::OutOfOrder | Kind::StaleSeries);
    !by_meta(meta).iter().any(is_of_some) && !meta.hints.iter().any(|hint| hint == "from-selected-series")
}

/// The kinds of a block; never empty.
pub fn kinds(meta: &BlockMeta, encodings: &Encodings, overlapping: bool) -> Vec<Kind> {
    let mut kinds = by_meta(meta);
    let more = [
        (Kind::NewerEncodings, encodings.newer() > 0),
        (Kind::UnknownEncodings, encodings.unknown() > 0),
        (Kind::Overlapping, overlapping),
    ];
    kinds.extend(more.into_iter().filter(|(_, is)| *is).map(|(kind, _)| kind));
    if kinds.is_empty() {
        kinds.push(Kind::Plain);
    }
    kinds.sort_unstable();
    kinds
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tsdb::Meta;

    /// As Prometheus 3.14 and earlier versions write it; see the contract, "Level-1 does not mean plain 2 h block".
    #[test]
    fn how_a_block_came_about_is_told_by_its_meta_json() {
        let none = r#""parents":[{"ulid":"00000000000000000000000000","minTime":0,"maxTime":0}]"#;
        let some = r#""parents":[{"ulid":"01K4ABCDEFGHJKMNPQRSTVWXY1","minTime":0,"maxTime":9}]"#;
        for (compaction, expected) in [
            (r#""level":1"#.to_owned(), &[][..]),
            (
                format!(r#""level":1,{none},"hints":["from-out-of-order"]"#),
                &[Kind::OutOfOrder],
            ),
            (format!(r#""level":1,{none}"#), &[Kind::OutOfOrder]),
            (
                format!(r#""level":1,{none},"hints":["from-stale-series"]"#),
                &[Kind::StaleSeries],
            ),
            (format!(r#""level":1,{some}"#), &[Kind::Rewritten]),
            (format!(r#""level":2,{some}"#), &[]),
            (
                format!(r#""level":2,{some},"hints":["from-out-of-order"]"#),
                &[Kind::OutOfOrder],
            ),
            (
                r#""level":1,"parents":[{"ulid":"not one"}]"#.to_owned(),
                &[Kind::Rewritten],
            ),
            (r#""level":1,"parents":[]"#.to_owned(), &[]),
            (r#""level":1,"parents":null"#.to_owned(), &[]),
        ] {
            let text = format!(r#"{{"ulid":"01K4ABCDEFGHJKMNPQRSTVWXYZ","version":1,"compaction":{{{compaction}}}}}"#);
            let meta = Meta::parse(text.as_bytes()).unwrap();
            assert_eq!(by_meta(&meta), expected, "{compaction}");
        }
    }

    #[test]
    fn a_block_of_some_series_or_out_of_order_does_not_tell_where_the_head_begins() {
        for (hints, expected) in [
            ("", true),
            (r#""from-out-of-order""#, false),
            (r#""from-stale-series""#, false),
            (r#""from-selected-series""#, false),
        ] {
            let text = format!(
                r#"{{"ulid":"01K4ABCDEFGHJKMNPQRSTVWXYZ","version":1,"compaction":{{"level":1,"hints":[{hints}]}}}}"#
            );
            let meta = crate::tsdb::Meta::parse(text.as_bytes()).unwrap();
            assert_eq!(is_in_order(&meta), expected, "{hints}");
        }
    }

    #[test]
    fn a_block_of_which_nothing_is_to_be_said_is_plain_and_others_are_of_all_their_kinds() {
        let text = r#"{"ulid":"01K4ABCDEFGHJKMNPQRSTVWXYZ","version":1,"compaction":{"level":1,"hints":["from-out-of-order"]}}"#;
        let meta = Meta::parse(text.as_bytes()).unwrap();
        let of = |bytes: &[u8]| Encodings {
            chunks: bytes.iter().map(|byte| (*byte, 1)).collect::<BTreeMap<_, _>>(),
            complete: true,
        };
        let all = [
            Kind::NewerEncodings,
            Kind::UnknownEncodings,
            Kind::OutOfOrder,
            Kind::Overlapping,
        ];
        assert_eq!(kinds(&meta, &of(&[1, 4, 7]), true), all);
        let text = r#"{"ulid":"01K4ABCDEFGHJKMNPQRSTVWXYZ","version":1,"compaction":{"level":1}}"#;
        let meta = Meta::parse(text.as_bytes()).unwrap();
        // 0xff: what Thanos downsampled.
        assert_eq!(kinds(&meta, &of(&[1, 2, 3, 0xff]), false), [Kind::Plain]);
        for newer in [4, 5, 6] {
            assert_eq!(kinds(&meta, &of(&[1, newer]), false), [Kind::NewerEncodings]);
        }
        for unknown in [0, 7, 0x80] {
            assert_eq!(kinds(&meta, &of(&[unknown]), false), [Kind::UnknownEncodings]);
        }
    }
}
