//! The formats of `/metrics`, and which of them a client gets.
//!
//! Protobuf, the only one with native histograms, is written by the library. For the two text formats the registry is
//! encoded once, as OpenMetrics; [`render`] converts that into the requested one. Bucket bounds are written as Go
//! programs write them (`le="1e+06"`): a sum over `le` must not fall apart where narthex and Thanos run side by side.
//! All functions here are pure.

use std::borrow::Cow;

/// A form of the metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The classic text format, 0.0.4: what a client gets that does not ask for more.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// `MetricFamily` messages, each behind its length: what Prometheus asks for first when it takes native histograms.
    Protobuf,
}

impl Format {
    /// The `Content-Type` of this form.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// The form for a client that sent `accept`: the one of higher weight, else the one named first. A wildcard, an unknown
/// type or no header at all get the classic text, as from Thanos.
pub(super) fn negotiate(accept: Option<&str>) -> Format {
    let mut best = (0.0, Format::Text);
    for range in accept.unwrap_or_default().split(',') {
        let range = MediaRange::of(range);
        let weight = range.weight;
        let format = match (range.name.as_str(), range.parameter("version")) {
            ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => Format::OpenMetrics,
            ("text/plain", None | Some("0.0.4")) => Format::Text,
            ("application/vnd.google.protobuf", _)
                if range.parameter("proto") == Some("io.prometheus.client.MetricFamily")
                    && range.parameter("encoding") == Some("delimited") =>
            {
                Format::Protobuf
            }
            _ => continue,
        };
        if weight > best.0 {
            best = (weight, format);
        }
    }
    best.1
}

/// Whether a client that sent `accept_encoding` reads gzip.
pub(super) fn accepts_gzip(accept_encoding: Option<&str>) -> bool {
    accept_encoding.unwrap_or_default().split(',').any(|range| {
        let coding = MediaRange::of(range);
        coding.name == "gzip" && coding.weight > 0.0
    })
}

/// A member of a list of what a client takes.
struct MediaRange<'a> {
    /// In lower case.
    name: String,
    weight: f64,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaRange<'a> {
    fn of(range: &'a str) -> Self {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters = parts.filter_map(|parameter| parameter.split_once('='));
        let parameters: Vec<_> = parameters
            .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
            .collect();
        let mut range = Self {
            name,
            weight: 1.0,
            parameters,
        };
        if let Some(weight) = range.parameter("q") {
            range.weight = weight.parse().unwrap_or(0.0);
        }
        range
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters
            .iter()
            .find(|(is, _)| *is == name)
            .map(|(_, value)| *value)
    }
}

/// Turns the OpenMetrics text of a registry into `format`, one of the two of text. Exemplars are dropped from the classic text, which has none.
pub(super) fn render(openmetrics: &str, format: Format) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    // In the classic text a counter's comments carry the name of its samples; HELP comes before the type is known.
    let mut help: Option<(&str, &str)> = None;
    for line in openmetrics.lines() {
        if !line.starts_with('#') {
            push_sample(&mut out, line, format);
        } else if format == Format::OpenMetrics {
            push_line(&mut out, &[line]);
        } else if let Some((name, text)) = comment(line, "# HELP ") {
            help = Some((name, text));
        } else if let Some((name, kind)) = comment(line, "# TYPE ") {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "gauge" | "histogram" | "summary" => ("", kind),
                _ => ("", "untyped"),
            };
            if let Some((_, text)) = help.take().filter(|(helped, _)| *helped == name) {
                push_line(&mut out, &["# HELP ", name, suffix, " ", text]);
            }
            push_line(&mut out, &["# TYPE ", name, suffix, " ", kind]);
        }
    }
    out
}

fn comment<'a>(line: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(keyword)?.split_once(' ')
}

fn push_line(out: &mut String, parts: &[&str]) {
    for part in parts {
        out.push_str(part);
    }
    out.push('\n');
}

fn push_sample(out: &mut String, line: &str, format: Format) {
    let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
    let (labels, mut value) = rest.split_at(labels_end(rest));
    if format == Format::Text {
        value = value.split(" # ").next().unwrap_or(value);
    }
    let labels = match name.ends_with("_bucket").then(|| bound(labels)).flatten() {
        Some((start, end)) => {
            let bound = go_float(&labels[start..end], format);
            Cow::Owned(format!("{}{bound}{}", &labels[..start], &labels[end..]))
        }
        None => Cow::Borrowed(labels),
    };
    push_line(out, &[name, &labels, value]);
}

/// The length of the label set that `rest` starts with, braces included; 0 if there is none.
fn labels_end(rest: &str) -> usize {
    if !rest.starts_with('{') {
        return 0;
    }
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Where the value of the label `le` is in the label set `labels`.
fn bound(labels: &str) -> Option<(usize, usize)> {
    let (mut start, mut escaped, mut value_from) = (1, false, None);
    for (at, byte) in labels.bytes().enumerate() {
        match (byte, value_from) {
            _ if escaped => escaped = false,
            (b'\\', Some(_)) => escaped = true,
            (b'"', None) => value_from = Some(at + 1),
            (b'"', Some(from)) if &labels[start..from] == "le=\"" => return Some((from, at)),
            (b'"', Some(_)) => value_from = None,
            (b',', None) => start = at + 1,
            _ => {}
        }
    }
    None
}

/// A number as Go's libraries write it in a label of this format: the shortest digits that read back as the same number,
/// with an exponent of two digits or more outside of 1e-4 to 1e6.
fn go_float(text: &str, format: Format) -> String {
    let Some(number) = text.parse::<f64>().ok().filter(|number| number.is_finite()) else {
        return text.to_owned();
    };
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific
        .split_once('e')
        .and_then(|(d, e)| Some((d, e.parse::<i32>().ok()?)))
    else {
        return text.to_owned();
    };
    if number != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    match format {
        Format::OpenMetrics if number.fract() == 0.0 => format!("{number:.1}"),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{
        encoding::text::encode,
        metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
        registry::{Registry, Unit},
    };

    use super::*;

    fn sample() -> String {
        let mut registry = Registry::default();
        let requests = Family::<Vec<(String, String)>, Counter>::default();
        requests
            .get_or_create(&vec![("path".to_owned(), "a}\" # b,le=\"2.0\"\\\n".to_owned())])
            .inc();
        registry.register("requests", "Requests", requests);
        registry.register("up", "Whether up", Gauge::<i64>::default());
        registry.register("app", "What runs", Info::new(vec![("version", "1")]));
        registry.register_with_unit("sent", "Bytes sent", Unit::Bytes, Counter::<u64>::default());
        let sizes = Family::<Vec<(String, String)>, Histogram>::new_with_constructor(|| {
            Histogram::new([0.00001, 0.25, 1.0, 100_000.0, 1_048_576.0])
        });
        sizes
            .get_or_create(&vec![("le_like".to_owned(), "x,le=\"1.0\"".to_owned())])
            .observe(2.0);
        registry.register("size", "Sizes", sizes);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn classic_text_names_counters_by_their_samples_and_knows_no_eof() {
        let text = render(&sample(), Format::Text);
        let wanted = r#"# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{path="a}\" # b,le=\"2.0\"\\\n"} 1
# HELP up Whether up.
# TYPE up gauge
up 0
# HELP app_info What runs.
# TYPE app_info gauge
app_info{version="1"} 1
# HELP sent_bytes_total Bytes sent.
# TYPE sent_bytes_total counter
sent_bytes_total 0
# HELP size Sizes.
# TYPE size histogram
size_sum{le_like="x,le=\"1.0\""} 2.0
size_count{le_like="x,le=\"1.0\""} 1
size_bucket{le="1e-05",le_like="x,le=\"1.0\""} 0
size_bucket{le="0.25",le_like="x,le=\"1.0\""} 0
size_bucket{le="1",le_like="x,le=\"1.0\""} 0
size_bucket{le="100000",le_like="x,le=\"1.0\""} 1
size_bucket{le="1.048576e+06",le_like="x,le=\"1.0\""} 1
size_bucket{le="+Inf",le_like="x,le=\"1.0\""} 1
"#;
        assert_eq!(text, wanted);
    }

    #[test]
    fn openmetrics_changes_in_nothing_but_the_bounds() {
        let encoded = sample();
        let rendered = render(&encoded, Format::OpenMetrics);
        assert!(rendered.ends_with("# EOF\n"));
        let changed: Vec<_> = encoded
            .lines()
            .zip(rendered.lines())
            .filter(|(a, b)| a != b)
            .map(|(_, b)| b)
            .collect();
        assert_eq!(
            changed,
            [
                r#"size_bucket{le="1e-05",le_like="x,le=\"1.0\""} 0"#,
                r#"size_bucket{le="1.048576e+06",le_like="x,le=\"1.0\""} 1"#
            ]
        );
    }

    #[test]
    fn an_exemplar_is_dropped_from_the_classic_text_only() {
        let line = "a_bucket{le=\"2.0\"} 7 # {trace_id=\"x\"} 1.5\n";
        assert_eq!(render(line, Format::Text), "a_bucket{le=\"2\"} 7\n");
        assert_eq!(render(line, Format::OpenMetrics), line);
    }

    #[test]
    fn bounds_are_written_as_go_writes_them() {
        for (text, classic, openmetrics) in [
            ("0.0", "0", "0.0"),
            ("1.0", "1", "1.0"),
            ("-1.0", "-1", "-1.0"),
            ("0.1", "0.1", "0.1"),
            ("0.0001", "0.0001", "0.0001"),
            ("0.00001", "1e-05", "1e-05"),
            ("123456.0", "123456", "123456.0"),
            ("1000000.0", "1e+06", "1e+06"),
            ("1e100", "1e+100", "1e+100"),
            ("+Inf", "+Inf", "+Inf"),
        ] {
            assert_eq!(go_float(text, Format::Text), classic);
            assert_eq!(go_float(text, Format::OpenMetrics), openmetrics);
        }
    }

    #[test]
    fn the_client_gets_the_format_that_it_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let protobuf_first = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
            q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;q=0.3";
        for (accept, wanted) in [
            (None, Format::Text),
            (Some(""), Format::Text),
            (Some("*/*"), Format::Text),
            (Some("application/json"), Format::Text),
            (Some("text/plain"), Format::Text),
            (Some("text/plain;version=0.0.4;q=1,*/*;q=0.1"), Format::Text),
            (Some("text/plain, application/openmetrics-text"), Format::Text),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (
                Some("Application/OpenMetrics-Text; version=\"1.0.0\""),
                Format::OpenMetrics,
            ),
            (Some("application/openmetrics-text;q=0"), Format::Text),
            (
                Some("application/openmetrics-text;version=2.0.0,text/plain;q=0.1"),
                Format::Text,
            ),
            (
                Some("text/plain;q=0.2,application/openmetrics-text;q=0.3"),
                Format::OpenMetrics,
            ),
            (Some(prometheus), Format::OpenMetrics),
            (Some(protobuf_first), Format::Protobuf),
            (
                Some("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text"),
                Format::Text,
            ),
        ] {
            assert_eq!(negotiate(accept), wanted, "{accept:?}");
        }
    }

    #[test]
    fn gzip_only_for_those_who_ask() {
        for (accept, wanted) in [
            (None, false),
            (Some("gzip"), true),
            (Some("deflate, gzip;q=0.5"), true),
            (Some("gzip;q=0"), false),
            (Some("br"), false),
        ] {
            assert_eq!(accepts_gzip(accept), wanted, "{accept:?}");
        }
    }
}
