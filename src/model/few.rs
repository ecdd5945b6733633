//! A few names of many, for messages.

use std::fmt;

/// The first of `names`, and how many more there are: a message stays short however many blocks or files it is about.
pub fn few<T: fmt::Display>(names: impl ExactSizeIterator<Item = T>) -> String {
    const NAMED: usize = 3;
    let more = names.len().saturating_sub(NAMED);
    let named: Vec<String> = names.take(NAMED).map(|name| name.to_string()).collect();
    match more {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_names_are_told_and_the_others_counted() {
        for (names, text) in [
            (&[][..], ""),
            (&[1], "1"),
            (&[1, 2, 3], "1, 2, 3"),
            (&[1, 2, 3, 4, 5], "1, 2, 3 and 2 more"),
        ] {
            assert_eq!(few(names.iter()), text);
        }
    }
}
