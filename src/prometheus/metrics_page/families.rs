//! The same metrics as JSON: protobuf's JSON form of `io.prometheus.client.MetricFamily`, in which a number that JSON
//! cannot express is a text (`"NaN"`, `"Infinity"`, `"-Infinity"`).

use serde::Deserialize;

use super::{
    BLOCKS_BYTES, BLOCKS_LOADED, HEAD_MAX_TIME, HEAD_MIN_TIME, LOWEST_TIME, RELOAD_FAILURES, Storage, count, head_time,
    lowest_time,
};

/// What to ask for.
pub(in crate::prometheus) const NAMES: [&str; 6] = [
    LOWEST_TIME,
    HEAD_MIN_TIME,
    HEAD_MAX_TIME,
    BLOCKS_LOADED,
    BLOCKS_BYTES,
    RELOAD_FAILURES,
];

/// A metric with all its samples.
#[derive(Debug, Deserialize)]
pub(in crate::prometheus) struct Family {
    #[serde(default)]
    name: String,
    #[serde(default)]
    metric: Vec<Metric>,
}

#[derive(Debug, Deserialize)]
struct Metric {
    gauge: Option<Sample>,
    counter: Option<Sample>,
}

#[derive(Debug, Deserialize)]
struct Sample {
    value: Option<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Finite(f64),
    Other(String),
}

impl Sample {
    fn number(&self) -> Option<f64> {
        match self.value.as_ref()? {
            Number::Finite(number) => Some(*number),
            Number::Other(text) => match &**text {
                "NaN" => Some(f64::NAN),
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                _ => None,
            },
        }
    }
}

/// What these metrics report, by the rules of the page: of several samples the first counts, and the lowest time is only
/// believed of a gauge.
pub(in crate::prometheus) fn storage(families: &[Family]) -> Storage {
    let first = |name: &str| {
        let family = families.iter().find(|family| family.name == name);
        family.and_then(|family| family.metric.first())
    };
    let gauge = |name: &str| first(name)?.gauge.as_ref()?.number();
    let counter = |name: &str| first(name)?.counter.as_ref()?.number();
    Storage {
        lowest_time_ms: gauge(LOWEST_TIME).map_or(0, lowest_time),
        head_min_time_ms: gauge(HEAD_MIN_TIME).and_then(head_time),
        head_max_time_ms: gauge(HEAD_MAX_TIME).and_then(head_time),
        blocks_loaded: gauge(BLOCKS_LOADED).and_then(count),
        blocks_bytes: gauge(BLOCKS_BYTES).and_then(count),
        reload_failures: counter(RELOAD_FAILURES).and_then(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: serde_json::Value) -> Storage {
        storage(&serde_json::from_value::<Vec<Family>>(data).unwrap())
    }

    #[test]
    fn reads_what_prometheus_3_14_answers() {
        let answer = include_bytes!("../../../testdata/prometheus/self_metrics-3.14.json");
        let families: Vec<Family> = crate::prometheus::answer::data(answer, "metrics in data").unwrap();
        let want = Storage {
            lowest_time_ms: 1_795_865_004_000,
            head_min_time_ms: Some(1_795_865_004_219),
            reload_failures: Some(0),
            // It was not asked for the others.
            ..Storage::default()
        };
        assert_eq!(storage(&families), want);
    }

    #[test]
    fn reads_numbers_that_json_does_not_know_and_does_without_what_is_not_there() {
        use serde_json::json;
        let one = |name: &str, kind: &str, value| json!([{"name": name, "metric": [{kind: {"value": value}}]}]);
        let lowest = |value| read(one(LOWEST_TIME, "gauge", value)).lowest_time_ms;
        // Its answer while it holds nothing.
        assert_eq!(lowest(json!(9_223_372_036_854_776_u64)), i64::MIN);
        assert_eq!(lowest(json!(1.5)), 1500);
        assert_eq!(lowest(json!("NaN")), 0);
        assert_eq!(lowest(json!("Infinity")), i64::MAX);
        assert_eq!(lowest(json!("hello")), 0);
        assert_eq!(read(one(LOWEST_TIME, "counter", json!(7))).lowest_time_ms, 0);
        let head = |value| read(one(HEAD_MIN_TIME, "gauge", value)).head_min_time_ms;
        assert_eq!(
            (head(json!(9_223_372_036_854_776_000_u64)), head(json!("NaN"))),
            (Some(i64::MAX), None)
        );
        let failures = |value| read(one(RELOAD_FAILURES, "counter", value)).reload_failures;
        assert_eq!(
            (failures(json!(3)), failures(json!(-1)), failures(json!("Infinity"))),
            (Some(3), None, None)
        );
        let newest = |value| read(one(HEAD_MAX_TIME, "gauge", value)).head_max_time_ms;
        // The head is empty.
        assert_eq!(newest(json!(-9_223_372_036_854_775_808_i64)), Some(i64::MIN));
        assert_eq!(
            (newest(json!(1_795_865_034_219_u64)), newest(json!("NaN"))),
            (Some(1_795_865_034_219), None)
        );
        let loaded = |value| read(one(BLOCKS_LOADED, "gauge", value)).blocks_loaded;
        assert_eq!((loaded(json!(13)), loaded(json!("Infinity"))), (Some(13), None));
        let bytes = |value| read(one(BLOCKS_BYTES, "gauge", value)).blocks_bytes;
        assert_eq!(
            (bytes(json!(1_234_567_891)), bytes(json!(-1))),
            (Some(1_234_567_891), None)
        );
        assert_eq!(read(one(BLOCKS_LOADED, "counter", json!(7))), Storage::default());
        for nothing in [
            json!([]),
            json!([{}]),
            json!([{"name": LOWEST_TIME}]),
            json!([{"name": LOWEST_TIME, "metric": [{}]}]),
        ] {
            assert_eq!(read(nothing), Storage::default());
        }
    }
}
