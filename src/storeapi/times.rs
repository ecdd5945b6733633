//! Times as messages have them.

use jiff::Timestamp;

/// A time with all its nanoseconds; none is the year 1, as Go writes it.
pub(super) fn timestamp(time: Option<Timestamp>) -> prost_types::Timestamp {
    let Some(time) = time else {
        return prost_types::Timestamp {
            seconds: -62_135_596_800,
            nanos: 0,
        };
    };
    // Both parts have the sign of the whole, where the message wants nanoseconds that count forward.
    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        let nanos = nanos + 1_000_000_000;
        return prost_types::Timestamp {
            seconds: seconds - 1,
            nanos,
        };
    }
    prost_types::Timestamp { seconds, nanos }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn keeps_nanoseconds_and_writes_no_time_as_the_year_1() {
        let parts = |text: &str| {
            let time = timestamp(Some(text.parse().unwrap()));
            (time.seconds, time.nanos)
        };
        assert_eq!(
            parts("2023-11-14T23:13:20.123456789+01:00"),
            (1_700_000_000, 123_456_789)
        );
        assert_eq!(parts("1969-12-31T23:59:59.25Z"), (-1, 250_000_000));
        assert_eq!(parts("0001-01-01T00:00:00Z"), (-62_135_596_800, 0));
        let bytes = timestamp(None).encode_to_vec();
        assert_eq!(bytes, b"\x08\x80\x92\xb8\xc3\x98\xfe\xff\xff\xff\x01");
    }
}
