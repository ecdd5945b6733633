//! Objects that a check of the bucket writes and removes again: the only ones that narthex ever removes.
//!
//! [`Bucket::remove`](super::Bucket::remove) takes nothing but a [`CanaryKey`], and there is no way to make one of another
//! place than [`CANARY_DIR`]. Readers of the bucket look at directories that bear the name of a block only: neither
//! `narthex-check` nor what is below it has the form of one.

/// The directory of all objects that checks write.
pub const CANARY_DIR: &str = "narthex-check";

/// The place of one check, which no other check has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary(String);

/// The key of an object of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryKey(String);

impl Canary {
    /// A new place, by chance.
    pub fn new() -> Self {
        Self(format!("{CANARY_DIR}/{:016x}", rand::random::<u64>()))
    }

    /// The key of the object that is sent in one request.
    pub fn whole(&self) -> CanaryKey {
        CanaryKey(format!("{}/whole", self.0))
    }

    /// The key of the object that is sent in parts.
    pub fn parts(&self) -> CanaryKey {
        CanaryKey(format!("{}/parts", self.0))
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self::new()
    }
}

impl CanaryKey {
    /// The key, relative to the configured prefix as all keys are.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_new_each_time_and_never_that_of_a_block() {
        let (one, other) = (Canary::new(), Canary::new());
        assert_ne!(one, other);
        for key in [one.whole(), one.parts()] {
            let names: Vec<&str> = key.as_str().split('/').collect();
            assert_eq!((names.len(), names[0]), (3, CANARY_DIR));
            // That of a block has 26 characters.
            assert!(names.iter().all(|name| name.len() != 26), "{names:?}");
        }
    }
}
