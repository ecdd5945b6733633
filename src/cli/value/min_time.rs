//! From which time on queries are answered: a time, an offset from now, or `auto`.

use super::{ValueError, error};
use crate::model::duration::TimeOrDuration;

/// From which time on queries are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinTime {
    /// A time, or one that moves with the clock.
    Fixed(TimeOrDuration),
    /// What the bucket does not prove to have.
    Auto,
}

pub(in crate::cli) fn min_time(text: &str) -> Result<MinTime, ValueError> {
    if text == "auto" {
        return Ok(MinTime::Auto);
    }
    match TimeOrDuration::parse(text) {
        Ok(time) => Ok(MinTime::Fixed(time)),
        Err(wrong) => error(format!("{wrong}; or auto")),
    }
}
