//! What stores say and how things fail, in one line of bounded length.

use std::error::Error as StdError;

use super::transport;

/// The longest part of a store's message that is kept, in characters.
const MESSAGE_LIMIT: usize = 300;

/// The longest text of an error and all that it stems from, in characters: it ends with the innermost cause.
const CHAIN_LIMIT: usize = 800;

/// One line of bounded length: stores and proxies answer all sorts of things.
pub(in crate::objstore) fn tidy(text: &str) -> String {
    one_line(text, MESSAGE_LIMIT)
}

/// One line of at most `limit` characters.
fn one_line(text: &str, limit: usize) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(limit)
        .collect();
    line.trim().to_owned()
}

/// The text of the first element of this name in an XML error; these documents are flat.
pub(in crate::objstore) fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    (!text.trim().is_empty()).then(|| text.trim())
}

/// The first error of a type in a chain of sources.
pub(in crate::objstore) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    transport::causes(error).find_map(|cause| cause.downcast_ref())
}

/// An error and all that it stems from, in one line.
pub(in crate::objstore) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for cause in transport::causes(error).filter(|cause| !transport::is_only_a_wrapper(*cause)) {
        let more = cause.to_string();
        if text.is_empty() {
            text = more;
        } else if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
    }
    one_line(&text, CHAIN_LIMIT)
}
