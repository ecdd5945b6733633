//! How long Prometheus keeps its blocks, from its flags and its configuration; pure.
//!
//! From 3.11 on its configuration has a section `storage.tsdb.retention` with what is in effect, also where nobody wrote one;
//! a limit that it does not name is none. Before that the flags say it: `--storage.tsdb.retention.time`, of which
//! `--storage.tsdb.retention` is an older name (2.x), and `--storage.tsdb.retention.size`; without either it is 15 days.
//! (Read in Prometheus 2.42 to 3.14.)

use std::collections::BTreeMap;

use super::configuration::{RetentionSettings, StorageSettings};
use crate::model::{duration::parse_prometheus, retention::Retention};

/// Prometheus' own default, in ms.
const DEFAULT_MS: i64 = 15 * 24 * 60 * 60 * 1000;

/// The units of a size, in bytes: all of them are powers of 1024, whatever their names.
const UNITS: [(&str, u64); 13] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("EiB", 1 << 60),
    ("KB", 1 << 10),
    ("MB", 1 << 20),
    ("GB", 1 << 30),
    ("TB", 1 << 40),
    ("PB", 1 << 50),
    ("EB", 1 << 60),
];

/// How long blocks are kept, by these flags and settings; `None` where it cannot be made out.
pub(super) fn retention(flags: &BTreeMap<String, String>, settings: &StorageSettings) -> Option<Retention> {
    match &settings.retention {
        Some(section) => by_section(section),
        None => by_flags(flags),
    }
}

fn by_section(section: &RetentionSettings) -> Option<Retention> {
    let percentage: f64 = section.percentage.as_deref().unwrap_or("0").parse().ok()?;
    Some(Retention {
        time_ms: read(section.time.as_ref(), time)?,
        bytes: read(section.size.as_ref(), size)?,
        disk_millionths: (0.0 < percentage && percentage <= 100.0).then_some((percentage * 10_000.0) as u32),
    })
}

fn by_flags(flags: &BTreeMap<String, String>) -> Option<Retention> {
    if flags.is_empty() {
        return None;
    }
    let of_time = |name: &str| read(flags.get(name), time);
    let given = of_time("storage.tsdb.retention.time")?.or(of_time("storage.tsdb.retention")?);
    let bytes = read(flags.get("storage.tsdb.retention.size"), size)?;
    Some(Retention {
        time_ms: given.or(bytes.is_none().then_some(DEFAULT_MS)),
        bytes,
        disk_millionths: None,
    })
}

/// A limit, where one is given that is not 0; nothing at all if it cannot be read.
fn read<T: Default + PartialEq>(text: Option<&String>, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    text.map_or(Some(None), |text| {
        parse(text).map(|limit| (limit != T::default()).then_some(limit))
    })
}

fn time(text: &str) -> Option<i64> {
    i64::try_from(parse_prometheus(text).ok()?.as_millis()).ok()
}

/// A number of bytes as Prometheus writes and reads it: numbers with units, one after another (`1GiB512MiB`).
fn size(text: &str) -> Option<u64> {
    let (mut rest, mut bytes) = (text.trim(), 0_u64);
    if rest.is_empty() || rest == "0" {
        return (rest == "0").then_some(0);
    }
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let (number, behind) = rest.split_at(digits);
        let end = behind
            .find(|char: char| !char.is_ascii_alphabetic())
            .unwrap_or(behind.len());
        let (unit, next) = behind.split_at(end);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let number: f64 = number.parse().ok()?;
        // A conversion that does not fit ends at the highest number.
        bytes = bytes.saturating_add((number * *factor as f64) as u64);
        rest = next;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    fn flags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (format!("storage.tsdb.{name}"), (*value).to_owned()))
            .collect()
    }

    fn limits(time_ms: Option<i64>, bytes: Option<u64>, disk_millionths: Option<u32>) -> Option<Retention> {
        Some(Retention {
            time_ms,
            bytes,
            disk_millionths,
        })
    }

    #[test]
    fn flags_say_it_and_without_a_limit_it_is_fifteen_days() {
        let none = StorageSettings::default();
        // As Prometheus 2.42 and 3.5 report them when nothing is given.
        let stock = [("retention.time", "0s"), ("retention.size", "0B"), ("retention", "0s")];
        for (given, wanted) in [
            (&stock[..], limits(Some(15 * DAY), None, None)),
            (&[("path", "data/")], limits(Some(15 * DAY), None, None)),
            (&[("retention.time", "2h")], limits(Some(7_200_000), None, None)),
            (&[("retention.time", "1w2d")], limits(Some(9 * DAY), None, None)),
            (
                &[("retention.time", "0s"), ("retention", "6h")],
                limits(Some(6 * 3_600_000), None, None),
            ),
            (
                &[("retention.time", "0s"), ("retention.size", "512MiB")],
                limits(None, Some(512 << 20), None),
            ),
            (
                &[("retention.time", "15d"), ("retention.size", "1GiB512MiB")],
                limits(Some(15 * DAY), Some(1536 << 20), None),
            ),
            (&[("retention.size", "a lot")], None),
            (&[("retention.time", "soon")], None),
            (&[], None),
        ] {
            assert_eq!(retention(&flags(given), &none), wanted, "{given:?}");
        }
    }

    #[test]
    fn a_section_of_the_configuration_says_all_of_it() {
        let flags = flags(&[("retention.time", "2h"), ("retention.size", "1GB")]);
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        for ((time, size, percentage), wanted) in [
            (("15d", "", ""), limits(Some(15 * DAY), None, None)),
            (("", "512MB", ""), limits(None, Some(512 << 20), None)),
            (
                ("1d", "1.5GB", "12.5"),
                limits(Some(DAY), Some(1536 << 20), Some(125_000)),
            ),
            (("", "", "100"), limits(None, None, Some(1_000_000))),
            (("", "", "0"), limits(None, None, None)),
            (("0s", "0B", ""), limits(None, None, None)),
            (("", "", ""), limits(None, None, None)),
            (("", "", "half"), None),
            (("long", "", ""), None),
            (("", "1 parsec", ""), None),
        ] {
            let settings = StorageSettings {
                retention: Some(RetentionSettings {
                    time: text(time),
                    size: text(size),
                    percentage: text(percentage),
                }),
                ..StorageSettings::default()
            };
            assert_eq!(retention(&flags, &settings), wanted, "{time} {size} {percentage}");
        }
    }

    #[test]
    fn sizes_count_by_1024_whatever_the_unit_is_called() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("0B", Some(0)),
            ("1KB", Some(1 << 10)),
            ("1KiB", Some(1 << 10)),
            ("2.5MB", Some(2_621_440)),
            ("1EiB", Some(1 << 60)),
            ("99EiB", Some(u64::MAX)),
            ("1TiB2GiB3B", Some((1 << 40) + (2 << 30) + 3)),
            ("", None),
            ("5", None),
            ("KiB", None),
            ("1.2.3KiB", None),
            ("1 KiB", None),
            ("-1KiB", None),
            ("1kib", None),
        ] {
            assert_eq!(size(text), bytes, "{text:?}");
        }
    }
}
