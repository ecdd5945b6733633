//! Whether certificates are valid, and for how long: a rule over times.

use jiff::Timestamp;

use super::{Check, Finding};
use crate::trust::Validity;

/// A certificate that ends sooner is warned of (seconds).
const SOON: i64 = 30 * 24 * 3600;

/// Judges the certificate `what` at the time `now` (seconds since 1970).
pub fn judge(check: &'static Check, what: &str, validity: Validity, now: i64) -> Finding {
    let Validity { not_before, not_after } = validity;
    if now > not_after {
        return Finding::fail(check, format!("{what} has expired at {}", time(not_after)));
    }
    if now < not_before {
        return Finding::fail(
            check,
            format!(
                "{what} is not valid before {}, and this host's clock says {}",
                time(not_before),
                time(now)
            ),
        );
    }
    let text = format!("{what} is valid until {}", time(not_after));
    match not_after - now < SOON {
        true => Finding::warn(check, format!("{text}, which is less than 30 days")),
        false => Finding::ok(check, text),
    }
}

fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::{Verdict, table::GRPC_CERTIFICATE};

    #[test]
    fn what_ends_within_thirty_days_is_warned_of_and_what_has_ended_fails() {
        const DAY: i64 = 86_400;
        let validity = Validity {
            not_before: 100 * DAY,
            not_after: 200 * DAY,
        };
        for (now, verdict, text) in [
            (99 * DAY, Verdict::Fail, "not valid before 1970-04-11T00:00:00Z"),
            (100 * DAY, Verdict::Ok, "valid until 1970-07-20T00:00:00Z"),
            (170 * DAY, Verdict::Ok, "valid until"),
            (170 * DAY + 1, Verdict::Warn, "less than 30 days"),
            (200 * DAY, Verdict::Warn, "less than 30 days"),
            (200 * DAY + 1, Verdict::Fail, "has expired at 1970-07-20T00:00:00Z"),
        ] {
            let found = judge(&GRPC_CERTIFICATE, "/tls.crt", validity, now);
            assert_eq!(found.verdict, verdict, "{now}: {found:?}");
            assert!(
                found.text.starts_with("/tls.crt ") && found.text.contains(text),
                "{found:?}"
            );
        }
    }
}
