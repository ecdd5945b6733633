//! The last warnings and errors of the log, for whoever shows them beside the state of the process.
//!
//! At most [`KEPT`] are kept, each cut at [`TEXT_MAX`] bytes; one that is logged again with the same message about the same
//! block counts on and takes its latest fields. What `--log.level` leaves out is not kept either. In memory only.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use tracing::{Event, Level, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::layer::{Context, Layer};

use super::{log_fields::Collected, log_line::level_name};

/// How many are kept.
const KEPT: usize = 50;
/// The longest text of a message or a field, in bytes.
const TEXT_MAX: usize = 1000;

/// The last warnings and errors; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Message>>>);

/// What was logged, once or again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `error` or `warn`.
    pub level: &'static str,
    /// What happened, and what to do.
    pub text: String,
    /// To what: the fields, by their names.
    pub fields: Vec<(&'static str, String)>,
    /// How often it was logged.
    pub count: u64,
    /// When it was logged first (ms since 1970).
    pub first_ms: i64,
    /// When it was logged last (ms since 1970).
    pub last_ms: i64,
}

impl Message {
    fn block(&self) -> Option<&str> {
        let block = self.fields.iter().find(|(name, _)| *name == "block");
        block.map(|(_, value)| value.as_str())
    }

    fn is_about_the_same(&self, other: &Self) -> bool {
        (self.level, &self.text, self.block()) == (other.level, &other.text, other.block())
    }
}

impl Recent {
    /// They, the latest first.
    pub fn messages(&self) -> Vec<Message> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().cloned().collect()
    }

    fn add(&self, mut message: Message) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|before| before.is_about_the_same(&message))
            && let Some(before) = kept.remove(at)
        {
            message.count += before.count;
            message.first_ms = before.first_ms;
        }
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(message);
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        if *metadata.level() > Level::WARN {
            return;
        }
        let Collected { message, fields } = Collected::of(event);
        let now = Timestamp::now().as_millisecond();
        let fields = fields.into_iter().map(|(name, value)| (name, cut(value.text())));
        self.add(Message {
            level: level_name(*metadata.level()),
            text: cut(&message),
            fields: fields.collect(),
            count: 1,
            first_ms: now,
            last_ms: now,
        });
    }
}

/// The text, or as much of its beginning as is kept.
fn cut(text: &str) -> String {
    match text.len() <= TEXT_MAX {
        true => text.to_owned(),
        false => format!("{}…", &text[..text.floor_char_boundary(TEXT_MAX)]),
    }
}

#[cfg(test)]
mod tests {
    use tracing::{error, info, warn};
    use tracing_subscriber::{layer::SubscriberExt as _, registry::Registry};

    use super::*;

    fn kept(work: impl FnOnce()) -> Vec<Message> {
        let recent = Recent::default();
        tracing::subscriber::with_default(Registry::default().with(recent.clone()), work);
        recent.messages()
    }

    #[test]
    fn warnings_and_errors_are_kept_the_latest_first_and_what_is_logged_again_counts_on() {
        let messages = kept(|| {
            warn!(block = "a", wait = 1, "a block waits");
            error!(block = "b", "a block is broken");
            info!("not kept");
            warn!(block = "b", "a block waits");
            warn!(block = "a", wait = 2, "a block waits");
        });
        let shown = |message: &Message| {
            (
                message.level,
                message.text.clone(),
                message.count,
                message.fields.clone(),
            )
        };
        let expected = [
            ("warn", "a block waits", 2, vec![("block", "a"), ("wait", "2")]),
            ("warn", "a block waits", 1, vec![("block", "b")]),
            ("error", "a block is broken", 1, vec![("block", "b")]),
        ];
        let expected = expected.map(|(level, text, count, fields)| {
            let fields = fields.into_iter().map(|(name, value)| (name, value.to_owned()));
            (level, text.to_owned(), count, fields.collect::<Vec<_>>())
        });
        assert_eq!(messages.iter().map(shown).collect::<Vec<_>>(), expected);
        assert!(messages.iter().all(|message| message.first_ms <= message.last_ms));
    }

    #[test]
    fn no_more_than_so_many_are_kept_and_none_of_any_length() {
        let messages = kept(|| {
            for block in 0..3 * KEPT {
                warn!(block, detail = "é".repeat(TEXT_MAX), "a block waits");
            }
        });
        assert_eq!(messages.len(), KEPT);
        assert_eq!(messages[0].block(), Some((3 * KEPT - 1).to_string().as_str()));
        assert!(messages[0].fields[1].1.len() <= TEXT_MAX + "…".len());
    }
}
