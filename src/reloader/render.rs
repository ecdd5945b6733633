//! From the configuration as it is written to what Prometheus reads: unpacked, with variables replaced, and looked at
//! before Prometheus is shown it. Pure.

use std::{
    io::{self, Read as _},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use granit_parser::{ErrorKind, Event, Parser};

use super::problem::Problem;
use crate::model::variables;

/// Larger than this, in bytes, is no configuration of Prometheus; those of very large installations have a few MiB.
pub(super) const LARGEST: u64 = 64 << 20;

/// How gzip begins, with the one method of compression that there is.
const GZIP: &[u8] = &[0x1f, 0x8b, 8];

/// The configuration at `path`, whose content is `raw`, for Prometheus: unpacked, if it is packed with gzip, and each
/// `$(NAME)` replaced by what `lookup` has.
///
/// # Errors
/// It cannot be unpacked, a variable is not set, or it is nothing that Prometheus could load.
pub(super) fn rendered(path: &Path, raw: &[u8], lookup: impl Fn(&str) -> Option<String>) -> Result<Vec<u8>, Problem> {
    let unpacked;
    let plain = match raw.starts_with(GZIP) {
        true => {
            unpacked = unpack(path, raw)?;
            &unpacked
        }
        false => raw,
    };
    let rendered = variables::expand(plain, lookup).map_err(|names| Problem::Unset {
        path: path.to_owned(),
        names,
    })?;
    check(path, &rendered)?;
    Ok(rendered)
}

/// Looks at a configuration that Prometheus reads as it is.
///
/// # Errors
/// It is packed, or nothing that Prometheus could load.
pub(super) fn check_plain(path: &Path, raw: &[u8]) -> Result<(), Problem> {
    match raw.starts_with(GZIP) {
        true => Err(Problem::Packed(path.to_owned())),
        false => check(path, raw),
    }
}

fn unpack(path: &Path, raw: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut plain = Vec::new();
    let read = MultiGzDecoder::new(raw).take(LARGEST + 1).read_to_end(&mut plain);
    read.map_err(|cause| Problem::Unpack {
        path: path.to_owned(),
        cause,
    })?;
    match plain.len() as u64 > LARGEST {
        true => Err(Problem::TooLarge {
            path: path.to_owned(),
            limit: LARGEST,
        }),
        false => Ok(plain),
    }
}

/// Only what is cut short or broken for every YAML parser is wrong here, and only in the first document, which is the one
/// that Prometheus reads; whether the rest is right is for Prometheus to say.
fn check(path: &Path, text: &[u8]) -> Result<(), Problem> {
    let utf16 = text.starts_with(&[0xfe, 0xff]) || text.starts_with(&[0xff, 0xfe]);
    if utf16 {
        return Ok(());
    }
    let not_yaml = |line, column, what: &str| Problem::NotYaml {
        path: path.to_owned(),
        line,
        column,
        what: what.to_owned(),
    };
    let text = std::str::from_utf8(text).map_err(|error| {
        let good = &text[..error.valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = good.rsplit(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len) + 1;
        not_yaml(line, column, "a byte that is no UTF-8")
    })?;
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        match event {
            Ok((Event::DocumentEnd, _)) => break,
            Ok((Event::DocumentStart(..), _)) => documents += 1,
            // The first node of the first document, which is the one that Prometheus reads.
            Ok((Event::MappingStart(..), _)) if documents == 1 => documents = 2,
            Ok((Event::Scalar(..) | Event::SequenceStart(..) | Event::Alias(..), at)) if documents == 1 => {
                if is_nothing(text) {
                    break;
                }
                let (line, column) = (at.start.line(), at.start.col() + 1);
                return Err(not_yaml(line, column, "expected keys with values at the top"));
            }
            Ok(_) => {}
            Err(error) if is_certain(error.kind()) => {
                let at = error.marker();
                return Err(not_yaml(at.line(), at.col() + 1, &error.info()));
            }
            Err(_) => return Ok(()),
        }
    }
    match documents < 2 {
        true => Err(Problem::Empty(path.to_owned())),
        false => Ok(()),
    }
}

/// Whether there is nothing but comments and white space.
fn is_nothing(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}');
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#') || line.trim_end() == "---";
    text.lines().all(blank)
}

/// What every parser refuses. The one of Prometheus takes some that the standard does not: tabs between brackets, comments
/// without a space before them.
fn is_certain(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof
            | ErrorKind::UnexpectedEofFlowSequence
            | ErrorKind::UnexpectedEofFlowMapping
            | ErrorKind::UnexpectedEofImplicitFlowMapping
            | ErrorKind::UnexpectedEofBlockSequence
            | ErrorKind::UnexpectedEofBlockMapping
            | ErrorKind::ExpectedBlockMappingKey
            | ErrorKind::ExpectedBlockSequenceEntry
            | ErrorKind::ExpectedFlowSequenceSeparator
            | ErrorKind::UnknownAnchor
            | ErrorKind::SimpleKeyExpected
            | ErrorKind::MisplacedFlowCollectionEnd
            | ErrorKind::MismatchedFlowCollectionEnd { .. }
            | ErrorKind::UnclosedFlowCollection { .. }
            | ErrorKind::UnclosedQuotedScalar
            | ErrorKind::UnknownQuotedScalarEscape
    )
}

/// As much of a file as a configuration may have, and one byte more.
pub(super) fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs_err::File::open(path)?.take(LARGEST + 1).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn path() -> &'static Path {
        Path::new("/etc/prometheus.yml")
    }

    fn env(name: &str) -> Option<String> {
        (name == "POD").then(|| "prometheus-0".to_owned())
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_is_packed_is_unpacked_and_variables_are_replaced() {
        let text = b"global:\n  external_labels: {replica: $(POD)}\n";
        let expected = b"global:\n  external_labels: {replica: prometheus-0}\n";
        assert_eq!(rendered(path(), text, env).unwrap(), expected);
        assert_eq!(rendered(path(), &gzip(text), env).unwrap(), expected);
        let two = [gzip(&text[..9]), gzip(&text[9..])].concat();
        assert_eq!(rendered(path(), &two, env).unwrap(), expected);
    }

    #[test]
    fn what_no_parser_takes_is_told_with_its_line_and_without_its_content() {
        let table: [(&[u8], &str); 9] = [
            (
                b"",
                "/etc/prometheus.yml: the file is empty; it is not passed on, since Prometheus would end all that it does",
            ),
            (b"# nothing\n\n", "the file is empty"),
            (b"---\n", "the file is empty"),
            (
                b"global: {a: $(POD), b: $(HUNTER), c: $(SEEKER)}",
                "it refers to $(HUNTER), $(SEEKER), which the environment",
            ),
            (b"global: {\n", "line 1, column 9: this is no YAML ("),
            (b"a: \"b\nsecret: c\n", "this is no YAML ("),
            (
                b"secret\n",
                "line 1, column 1: this is no YAML (expected keys with values at the top)",
            ),
            (
                b"a: b\nb: \xff\n",
                "line 2, column 4: this is no YAML (a byte that is no UTF-8)",
            ),
            (b"\x1f\x8b\x08\x00", "it begins as gzip does and cannot be unpacked"),
        ];
        for (text, expected) in table {
            let error = rendered(path(), text, env).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let error = check_plain(path(), &gzip(b"a: b")).unwrap_err().to_string();
        assert!(
            error.contains("packed with gzip, which Prometheus does not read"),
            "{error}"
        );
        check_plain(path(), b"a: $(NOT_SET)\n").unwrap();
    }

    #[test]
    fn what_prometheus_may_take_is_not_refused() {
        let deep = format!("a: {}1{}\n", "[".repeat(300), "]".repeat(300));
        // The first four were tried on Prometheus 3.5.3.
        let table: [&[u8]; 10] = [
            b"global: {\n\texternal_labels: {replica: t}\n}\n",
            b"global: {external_labels: {\"replica\": 'u'}}#x\n",
            b"a: b\n---\nc: [\n",
            b"a: b\n...\n]\n",
            b"scrape_configs:\n- job_name: a\n  relabel_configs:\n  - regex: (.+):(?:\\d+)\n    replacement: ${1}:$2\n",
            b"a: &x {b: c}\nd: *x\ne: {<<: *x}\n",
            b"%YAML 1.1\n---\na: b\n...\n",
            b"\xef\xbb\xbfa: b\n",
            b"\xff\xfea\x00:\x00 \x00b\x00",
            deep.as_bytes(),
        ];
        for text in table {
            check(path(), text).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
