//! The oldest time that Prometheus holds, out of its own metrics page, in memory that does not grow with the page.
//!
//! The page can be many megabytes, of which one line is wanted. So it is looked through while it arrives and never held;
//! of each line only the beginning is.

use super::error::ErrorKind;

/// Largest page that is looked through, in bytes.
pub(super) const LIMIT: usize = 256 << 20;

/// How much of a line is kept, in bytes; the wanted ones are far shorter.
const LINE: usize = 4 << 10;

const NAME: &str = "prometheus_tsdb_lowest_timestamp_seconds";

/// The page while it arrives.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The beginning of the line that is being read.
    line: Vec<u8>,
    /// The metric is declared to be a gauge.
    gauge: bool,
    found: Option<i64>,
}

impl Scan {
    /// Takes the next piece.
    ///
    /// # Errors
    /// When the metric's value is no number.
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

    /// The time in ms since 1970 when the page is complete: `i64::MIN` if Prometheus holds nothing, 0 if the page does
    /// not tell, or does not declare the metric as a gauge.
    ///
    /// # Errors
    /// When the metric's value is no number.
    pub(super) fn finish(mut self) -> Result<i64, ErrorKind> {
        self.end_line()?;
        Ok(self.found.unwrap_or(0))
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self) -> Result<(), ErrorKind> {
        let line = std::mem::take(&mut self.line);
        if self.found.is_none() {
            self.look_at(line.trim_ascii())?;
        }
        // The next line uses the same memory.
        self.line = line;
        self.line.clear();
        Ok(())
    }

    fn look_at(&mut self, line: &[u8]) -> Result<(), ErrorKind> {
        if line.starts_with(b"#") {
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            if words.next() == Some(b"#") && words.next() == Some(b"TYPE") && words.next() == Some(NAME.as_bytes()) {
                self.gauge = words.next() == Some(b"gauge");
            }
            return Ok(());
        }
        let Some(rest) = line.strip_prefix(NAME.as_bytes()) else {
            return Ok(());
        };
        let value = match rest.first() {
            None | Some(b' ' | b'\t') => rest,
            // A number holds no brace, so that the last one ends the labels whatever is in them.
            Some(b'{') => rest.rsplit(|&byte| byte == b'}').next().unwrap_or_default(),
            _ => return Ok(()),
        };
        self.found = Some(if self.gauge { milliseconds(value)? } else { 0 });
        Ok(())
    }
}

/// The value of a sample, with a timestamp behind it or not, in ms.
fn milliseconds(text: &[u8]) -> Result<i64, ErrorKind> {
    let number = text
        .split(u8::is_ascii_whitespace)
        .find(|word| !word.is_empty())
        .and_then(|word| std::str::from_utf8(word).ok()?.parse::<f64>().ok())
        .ok_or_else(|| ErrorKind::NotUnderstood(format!("expected a number as {NAME} of its metrics")))?;
    let time = number * 1000.0;
    // How a storage without any block or sample says so: the largest time, rounded to seconds.
    Ok(if time == i64::MAX as f64 { i64::MIN } else { time as i64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(page: &str) -> Result<i64, ErrorKind> {
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
        scan(&format!(
            "# HELP {NAME} Lowest.\n# TYPE {NAME} gauge\n{NAME}{sample}\nup 1\n"
        ))
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
            assert_eq!(scan(&page).unwrap(), 0, "{page}");
        }
        assert_eq!(
            scan(&format!("  #  TYPE {NAME}   gauge\r\n  {NAME}  7  \r\n")).unwrap(),
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
    fn keeps_little_of_a_long_line() {
        let mut scan = Scan::default();
        scan.push(format!("# TYPE {NAME} gauge\n").as_bytes()).unwrap();
        for _ in 0..1000 {
            scan.push(&[b'x'; 1000]).unwrap();
            assert!(scan.line.capacity() <= 2 * LINE);
        }
        scan.push(format!("\n{NAME} 7").as_bytes()).unwrap();
        assert_eq!(scan.finish().unwrap(), 7_000);
    }
}
