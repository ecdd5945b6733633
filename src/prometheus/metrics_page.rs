//! Reads what Prometheus reports of its storage from its metrics page, in memory that does not grow with the page.
//!
//! The page can have many megabytes, of which a few lines are needed. So it is scanned once, while it arrives, and
//! never held; of each line only the beginning is.

pub(super) mod families;

use super::error::ErrorKind;

/// Largest page that is looked through, in bytes.
pub(super) const LIMIT: usize = 256 << 20;

/// How much of a line is kept, in bytes; the wanted ones are far shorter.
const LINE: usize = 4 << 10;

const LOWEST_TIME: &str = "prometheus_tsdb_lowest_timestamp_seconds";
const HEAD_MIN_TIME: &str = "prometheus_tsdb_head_min_time";
const HEAD_MAX_TIME: &str = "prometheus_tsdb_head_max_time";
const BLOCKS_LOADED: &str = "prometheus_tsdb_blocks_loaded";
const BLOCKS_BYTES: &str = "prometheus_tsdb_storage_blocks_bytes";
const RELOAD_FAILURES: &str = "prometheus_tsdb_reloads_failures_total";

/// What Prometheus reports of its storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// The oldest time that it holds, in ms since 1970 and cut to whole seconds; `i64::MIN` if it holds nothing, 0 if it does
    /// not report it.
    pub lowest_time_ms: i64,
    /// The oldest time that its head holds, in ms since 1970; `i64::MAX` if the head is empty, `None` if it does not report it.
    pub head_min_time_ms: Option<i64>,
    /// The newest time that its head holds, in ms since 1970; `i64::MIN` if the head is empty, `None` if it does not report it.
    pub head_max_time_ms: Option<i64>,
    /// How many blocks it has loaded; `None` if it does not report it.
    pub blocks_loaded: Option<u64>,
    /// What the files of these blocks take, in bytes, as of its last reload; `None` if it does not report it.
    pub blocks_bytes: Option<u64>,
    /// How often it could not reload its blocks since it was started; `None` if it does not report it.
    pub reload_failures: Option<u64>,
}

/// The page while it arrives.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The beginning of the line that is being read.
    line: Vec<u8>,
    /// The lowest time is declared to be a gauge.
    gauge: bool,
    lowest_time_ms: Option<i64>,
    head_min_time_ms: Option<i64>,
    head_max_time_ms: Option<i64>,
    blocks_loaded: Option<u64>,
    blocks_bytes: Option<u64>,
    reload_failures: Option<u64>,
}

impl Scan {
    /// Takes the next piece.
    ///
    /// # Errors
    /// When the lowest time is no number.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), ErrorKind> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.keep(&rest[..end]);
            self.end_line()?;
            rest = &rest[end + 1..];
        }
        self.keep(rest);
        Ok(())
    }

    /// What the page reported, when it is complete. Of several samples of a metric the first counts. The lowest time is
    /// not believed unless it is declared to be a gauge.
    ///
    /// # Errors
    /// When the lowest time is no number.
    pub(super) fn finish(mut self) -> Result<Storage, ErrorKind> {
        self.end_line()?;
        Ok(Storage {
            lowest_time_ms: self.lowest_time_ms.unwrap_or(0),
            head_min_time_ms: self.head_min_time_ms,
            head_max_time_ms: self.head_max_time_ms,
            blocks_loaded: self.blocks_loaded,
            blocks_bytes: self.blocks_bytes,
            reload_failures: self.reload_failures,
        })
    }

    fn keep(&mut self, bytes: &[u8]) {
        let left = LINE - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(left)]);
    }

    fn end_line(&mut self) -> Result<(), ErrorKind> {
        let line = std::mem::take(&mut self.line);
        self.read_line(line.trim_ascii())?;
        // The next line uses the same memory.
        self.line = line;
        self.line.clear();
        Ok(())
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), ErrorKind> {
        if line.starts_with(b"#") {
            let mut words = words(line);
            if words.next() == Some(b"#")
                && words.next() == Some(b"TYPE")
                && words.next() == Some(LOWEST_TIME.as_bytes())
                && self.lowest_time_ms.is_none()
            {
                self.gauge = words.next() == Some(b"gauge");
            }
        } else if let Some(value) = sample(line, LOWEST_TIME).filter(|_| self.lowest_time_ms.is_none()) {
            let wrong = || ErrorKind::NotUnderstood(format!("expected a number as {LOWEST_TIME} of its metrics"));
            self.lowest_time_ms = Some(match self.gauge {
                true => lowest_time(number(value).ok_or_else(wrong)?),
                false => 0,
            });
        } else if let Some(value) = sample(line, HEAD_MIN_TIME).filter(|_| self.head_min_time_ms.is_none()) {
            self.head_min_time_ms = number(value).and_then(head_time);
        } else if let Some(value) = sample(line, HEAD_MAX_TIME).filter(|_| self.head_max_time_ms.is_none()) {
            self.head_max_time_ms = number(value).and_then(head_time);
        } else if let Some(value) = sample(line, BLOCKS_LOADED).filter(|_| self.blocks_loaded.is_none()) {
            self.blocks_loaded = number(value).and_then(count);
        } else if let Some(value) = sample(line, BLOCKS_BYTES).filter(|_| self.blocks_bytes.is_none()) {
            self.blocks_bytes = number(value).and_then(count);
        } else if let Some(value) = sample(line, RELOAD_FAILURES).filter(|_| self.reload_failures.is_none()) {
            self.reload_failures = number(value).and_then(count);
        }
        Ok(())
    }
}

/// What follows the name and the labels, if this line is a sample of `name`.
fn sample<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name.as_bytes())?;
    match rest.first() {
        None | Some(b' ' | b'\t') => Some(rest),
        // A number holds no brace, so that the last one ends the labels whatever is in them.
        Some(b'{') => rest.rsplit(|&byte| byte == b'}').next(),
        _ => None,
    }
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// The value of a sample, with a timestamp behind it or not.
fn number(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(words(text).next()?).ok()?.parse().ok()
}

/// The lowest time in ms, of one in seconds.
fn lowest_time(seconds: f64) -> i64 {
    let time = seconds * 1000.0;
    // The value of a storage without any block or sample: the largest time, rounded to seconds.
    if time == i64::MAX as f64 { i64::MIN } else { time as i64 }
}

/// The head's lowest or highest time: whole milliseconds, which a float holds exactly for some 285,000 years.
fn head_time(milliseconds: f64) -> Option<i64> {
    (!milliseconds.is_nan()).then_some(milliseconds as i64)
}

/// A count; `None` for what cannot be one. Without it we are only more careful, so that the rest of the page is used.
fn count(number: f64) -> Option<u64> {
    (number.is_finite() && number >= 0.0).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::{LOWEST_TIME as NAME, *};

    fn scan(page: &str) -> Result<Storage, ErrorKind> {
        let mut whole = Scan::default();
        whole.push(page.as_bytes())?;
        let whole = whole.finish();
        let mut bytewise = Scan::default();
        for byte in page.as_bytes() {
            bytewise.push(&[*byte])?;
        }
        assert_eq!(bytewise.finish().ok(), whole.as_ref().ok().copied(), "{page}");
        whole
    }

    fn gauge(sample: &str) -> Result<i64, ErrorKind> {
        let page = format!("# HELP {NAME} Lowest.\n# TYPE {NAME} gauge\n{NAME}{sample}\nup 1\n");
        Ok(scan(&page)?.lowest_time_ms)
    }

    #[test]
    fn reads_the_first_sample_of_a_gauge() {
        for (sample, want) in [
            (" 1.7e+09", 1_700_000_000_000),
            ("\t1700000000.1239 1700000001000", 1_700_000_000_123),
            ("{a=\"}\",b=\"x y\"} 12", 12_000),
            (" -1.5", -1_500),
            (" 9.223372036854776e+15", i64::MIN),
            (" 9.223372036854774e+15", 9_223_372_036_854_773_760),
            (" -9.3e+15", i64::MIN),
            (" +Inf", i64::MAX),
            (" 0", 0),
            (&format!(" 7\n{NAME} 8"), 7_000),
        ] {
            assert_eq!(gauge(sample).unwrap(), want, "{sample}");
        }
    }

    #[test]
    fn a_page_that_does_not_tell_gives_zero() {
        for page in [
            String::new(),
            "<html>".to_owned(),
            format!("{NAME} 7\n"),
            format!("# TYPE {NAME} counter\n{NAME} 7\n"),
            format!("#TYPE {NAME} gauge\n{NAME} 7"),
            format!("# TYPE {NAME}_more gauge\n{NAME}_more 7\n"),
            format!("# TYPE {NAME} gauge\n"),
        ] {
            assert_eq!(scan(&page).unwrap(), Storage::default(), "{page}");
        }
        assert_eq!(
            scan(&format!("  #  TYPE {NAME}   gauge\r\n  {NAME}  7  \r\n"))
                .unwrap()
                .lowest_time_ms,
            7_000
        );
    }

    #[test]
    fn a_value_that_is_no_number_is_an_error() {
        for sample in [" x", " ", "{a=\"b\"}", "{a=\"b\" 7"] {
            assert!(matches!(gauge(sample), Err(ErrorKind::NotUnderstood(_))), "{sample}");
        }
    }

    #[test]
    fn reads_how_often_a_reload_has_failed() {
        let time = format!("# TYPE {NAME} gauge\n{NAME} 7\n");
        let failures = |sample: &str| format!("# TYPE {RELOAD_FAILURES} counter\n{RELOAD_FAILURES}{sample}\n");
        for (sample, want) in [
            (" 0", Some(0)),
            ("\t12 1700000001000", Some(12)),
            ("{a=\"}\"} 1e+06", Some(1_000_000)),
            (&format!(" 3\n{RELOAD_FAILURES} 4"), Some(3)),
            (" NaN", None),
            (" +Inf", None),
            (" -1", None),
            (" x", None),
            ("", None),
            ("_more 5", None),
        ] {
            let sample = failures(sample);
            // Before the other metric and behind it, on one and the same page.
            for page in [format!("{time}{sample}"), format!("{sample}{time}")] {
                let want = Storage {
                    lowest_time_ms: 7_000,
                    reload_failures: want,
                    ..Storage::default()
                };
                assert_eq!(scan(&page).unwrap(), want, "{page}");
            }
        }
    }

    #[test]
    fn reads_how_far_the_head_is_emptied() {
        for (sample, want) in [
            (" 1.795855780524e+12", Some(1_795_855_780_524)),
            (" 9.223372036854775807e+18", Some(i64::MAX)),
            (" 0", Some(0)),
            (" NaN", None),
            ("_seconds 7", None),
        ] {
            let page = format!("# TYPE {HEAD_MIN_TIME} gauge\n{HEAD_MIN_TIME}{sample}\n");
            assert_eq!(scan(&page).unwrap().head_min_time_ms, want, "{sample}");
        }
    }

    #[test]
    fn reads_which_blocks_are_loaded_and_how_far_the_head_reaches() {
        // As Prometheus 2.42 writes them, with neighbours whose names begin alike.
        let page = format!(
            "# HELP {BLOCKS_LOADED} Number of currently loaded data blocks\n# TYPE {BLOCKS_LOADED} gauge\n\
             {BLOCKS_LOADED} 13\n# TYPE {HEAD_MAX_TIME} gauge\n{HEAD_MAX_TIME} 1.795855795524e+12\n\
             # TYPE {HEAD_MAX_TIME}_seconds gauge\n{HEAD_MAX_TIME}_seconds 1.795855795e+09\n\
             # TYPE {BLOCKS_BYTES} gauge\n{BLOCKS_BYTES} 1.234567891e+09\n{BLOCKS_BYTES} 7\n"
        );
        let want = Storage {
            head_max_time_ms: Some(1_795_855_795_524),
            blocks_loaded: Some(13),
            blocks_bytes: Some(1_234_567_891),
            ..Storage::default()
        };
        assert_eq!(scan(&page).unwrap(), want);
        for (page, want) in [
            (format!("{HEAD_MAX_TIME} -9.223372036854775808e+18\n"), Some(i64::MIN)),
            (format!("{HEAD_MAX_TIME} NaN\n"), None),
            (format!("{HEAD_MAX_TIME}_seconds 7\n"), None),
        ] {
            assert_eq!(scan(&page).unwrap().head_max_time_ms, want, "{page}");
        }
        for odd in ["NaN", "-1", "+Inf", "x", ""] {
            let page = format!("{BLOCKS_LOADED} {odd}\n{BLOCKS_BYTES} {odd}\n");
            assert_eq!(scan(&page).unwrap(), Storage::default(), "{odd}");
        }
    }

    #[test]
    fn keeps_little_of_a_long_line() {
        let mut scan = Scan::default();
        scan.push(format!("# TYPE {NAME} gauge\n").as_bytes()).unwrap();
        for _ in 0..1000 {
            scan.push(&[b'x'; 1000]).unwrap();
            assert!(scan.line.capacity() <= 2 * LINE);
        }
        scan.push(format!("\n{NAME} 7").as_bytes()).unwrap();
        assert_eq!(scan.finish().unwrap().lowest_time_ms, 7_000);
    }
}
