//! What several sections of the page have in common.

use maud::{Markup, html};

use crate::status::Tone;

/// The class of a tone.
pub(super) fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Neutral => "neutral",
        Tone::Warning => "warning",
        Tone::Bad => "bad",
    }
}

/// A table that scrolls by itself where it is too wide. A title that begins with `>` belongs to a column of numbers.
pub(super) fn table(titles: &[&str], rows: impl Iterator<Item = Markup>) -> Markup {
    html! {
        div.scroll tabindex="0" {
            table {
                thead { tr { @for title in titles { (title_of(title)) } } }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
    }
}

fn title_of(title: &str) -> Markup {
    match title.strip_prefix('>') {
        Some(title) => html! { th.number scope="col" { (title) } },
        None => html! { th scope="col" { (title) } },
    }
}
