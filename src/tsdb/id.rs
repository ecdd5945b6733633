//! A block's name.

use std::fmt;

use ulid::Ulid;

/// The name of a block: a ULID. Blocks sort by the moment they were made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(Ulid);

impl BlockId {
    /// The block that `name` names, if it is a ULID as Prometheus spells it: 26 upper-case letters and digits of
    /// Crockford's alphabet, no greater than 128 bits.
    ///
    /// A name is valid only if it is what the block would be called again: the decoder alone takes lower case, and
    /// names that overflow, for the names of other blocks.
    pub fn parse(name: &str) -> Option<Self> {
        let id = Ulid::from_string(name).ok()?;
        (id.array_to_str(&mut [0; ulid::ULID_LEN]) == name).then_some(Self(id))
    }

    /// The name of a block that is made now (ms since 1970), with something by chance.
    pub fn new(now_ms: u64, chance: u128) -> Self {
        Self(Ulid::from_parts(now_ms, chance))
    }

    /// The lowest name of a block that is made at this time (ms since 1970).
    pub fn first_at(ms: u64) -> Self {
        Self(Ulid::from_parts(ms, 0))
    }

    /// When the block was made, by the clock of its maker (ms since 1970). Not the time of its samples.
    pub fn timestamp_ms(self) -> u64 {
        self.0.timestamp_ms()
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.array_to_str(&mut [0; ulid::ULID_LEN]))
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_the_canonical_spelling_only() {
        for good in [
            "01K4ABCDEFGHJKMNPQRSTVWXYZ",
            "00000000000000000000000000",
            "7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
        ] {
            assert_eq!(BlockId::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "01K4ABCDEFGHJKMNPQRSTVWXY",
            "01K4ABCDEFGHJKMNPQRSTVWXYZ0",
            "01k4abcdefghjkmnpqrstvwxyz",
            "81BX5ZZKBKACTAV9WEVGEMMVRZ",
            "ZZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "01K4ABCDEFGHIJKLMNOPQRSTUV",
            "01K4ABCDEFGHJKMNPQRSTVWXY ",
            "01K4ABCDEFGHJKMNPQRSTVWX-Z",
            "01K4ABCDEFGHJKMNPQRSTVWXÄ",
            "01K4ABCDEFGHJKMNPQRSTVWXYZ.tmp-for-creation",
            "prometheus-backup-20260101",
        ] {
            assert_eq!(BlockId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn knows_when_the_block_was_made() {
        assert_eq!(BlockId::parse("00000000000000000000000000").unwrap().timestamp_ms(), 0);
        assert_eq!(BlockId::parse("0000000001ZZZZZZZZZZZZZZZZ").unwrap().timestamp_ms(), 1);
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_names(a in "[0-7][0-9A-HJKMNP-TV-Z]{25}", b in "[0-7][0-9A-HJKMNP-TV-Z]{25}") {
            let (x, y) = (BlockId::parse(&a).unwrap(), BlockId::parse(&b).unwrap());
            prop_assert_eq!(x.to_string(), a.clone());
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn never_panics(name in ".{0,30}") {
            if let Some(id) = BlockId::parse(&name) {
                prop_assert_eq!(id.to_string(), name);
            }
        }
    }
}
