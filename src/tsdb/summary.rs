//! What of a `meta.json` is needed to hold other blocks against it, read without keeping the document.
//!
//! A bucket has as many of these files as blocks, they are other people's, and most of each (the list of files) is of no
//! interest: the document is walked through once, nothing of it is copied but what is kept, and what is kept is at most as
//! large as the text. The same documents are good, and mean the same, as for [`Meta::parse`]; only in the parts that are
//! passed over it does not look for what is nested too deeply, or for names that are no text.
//!
//! [`Meta::parse`]: super::Meta::parse

use std::{fmt, str::FromStr};

use serde::{
    Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{BlockId, MetaError, json};
use crate::model::Labels;

/// What a `meta.json` says of a block, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The block's name.
    pub ulid: BlockId,
    /// Start of the time range (ms since 1970), inclusive.
    pub min_time: i64,
    /// End of the time range (ms since 1970), exclusive.
    pub max_time: i64,
    /// How often the samples were compacted.
    pub level: u64,
    /// The blocks of level 1 that are in it, as they stand there.
    pub sources: Vec<BlockId>,
    /// `thanos.labels`: `None` when there is no `thanos` section.
    pub thanos_labels: Option<Labels>,
    /// How far apart the samples are (ms): 0 unless the block was downsampled.
    pub resolution: i64,
}

impl Summary {
    /// Reads the first JSON value of `bytes`; what follows it is ignored.
    ///
    /// # Errors
    /// As for `Meta::parse`.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetaError> {
        let document = json::first_value(bytes)?.trim_start();
        let [version, ulid, min_time, max_time, stats, compaction, thanos] = members(
            "the document",
            Some(document),
            ["version", "ulid", "minTime", "maxTime", "stats", "compaction", "thanos"],
        )?;
        known_version("version", version, &[1])?;
        let names = ["numSamples", "numSeries", "numChunks", "numTombstones"];
        for (name, token) in names.iter().zip(members("stats", stats, names)?) {
            number::<u64>(&format!("stats.{name}"), token)?;
        }
        let [level, sources, hints] = members("compaction", compaction, ["level", "sources", "hints"])?;
        items("compaction.hints", hints, |hint| text("compaction.hints", hint))?;
        let (thanos_labels, resolution) = thanos_section(thanos)?;
        Ok(Self {
            ulid: block_id("ulid", ulid.ok_or(MetaError::NoUlid)?)?,
            min_time: number("minTime", min_time)?,
            max_time: number("maxTime", max_time)?,
            level: number("compaction.level", level)?,
            sources: items("compaction.sources", sources, |id| block_id("compaction.sources", id))?,
            thanos_labels,
            resolution,
        })
    }
}

fn thanos_section(thanos: Option<&str>) -> Result<(Option<Labels>, i64), MetaError> {
    let names = ["version", "labels", "downsample", "index_stats"];
    let [version, labels, downsample, index_stats] = members("thanos", thanos, names)?;
    known_version("thanos.version", version, &[0, 1])?;
    members("thanos.index_stats", index_stats, [])?;
    let mut pairs = Vec::new();
    each_member("thanos.labels", labels, &mut |name, value| {
        pairs.push((name.to_owned(), text(&format!("thanos.labels.{name}"), value)?));
        Ok(())
    })?;
    let [resolution] = members("thanos.downsample", downsample, ["resolution"])?;
    let resolution = number("thanos.downsample.resolution", resolution)?;
    Ok((thanos.map(|_| Labels::from_pairs(pairs)), resolution))
}

fn known_version(key: &'static str, token: Option<&str>, known: &[i64]) -> Result<(), MetaError> {
    let found = number(key, token)?;
    match known.contains(&found) {
        true => Ok(()),
        false => Err(MetaError::Version { key, found, known: "1" }),
    }
}

/// The whole number that `token` is: 0 if it is missing.
fn number<T: FromStr + Default>(path: &str, token: Option<&str>) -> Result<T, MetaError> {
    let Some(token) = token else { return Ok(T::default()) };
    let number = token.parse().ok();
    number.ok_or_else(|| wrong_type(path, "a whole number of at most 64 bits", token))
}

fn text(path: &str, token: &str) -> Result<String, MetaError> {
    serde_json::from_str(token).map_err(|_| wrong_type(path, "a string", token))
}

fn block_id(path: &str, token: &str) -> Result<BlockId, MetaError> {
    let id = serde_json::from_str(token)
        .ok()
        .and_then(|name: String| BlockId::parse(&name));
    id.ok_or_else(|| wrong_type(path, "a block's name (a ULID in upper case)", token))
}

fn wrong_type(path: &str, expected: &'static str, token: &str) -> MetaError {
    MetaError::Type {
        key: path.to_owned(),
        expected,
        found: match token.as_bytes().first() {
            Some(b'{') => "an object".to_owned(),
            Some(b'[') => "an array".to_owned(),
            _ => json::beginning(token),
        },
    }
}

/// The members of these names of an object: `None` for those that are missing or `null`, and for all if the object is. Of
/// two of one name the later counts.
fn members<'a, const N: usize>(
    path: &str,
    object: Option<&'a str>,
    names: [&str; N],
) -> Result<[Option<&'a str>; N], MetaError> {
    let mut found = [None; N];
    each_member(path, object, &mut |name, token| {
        if let Some(at) = names.iter().position(|known| *known == name) {
            found[at] = (token != "null").then_some(token);
        }
        Ok(())
    })?;
    Ok(found)
}

/// What is done with each member of an object: its name, and the text of its value.
type OnMember<'f, 'a> = &'f mut dyn FnMut(&str, &'a str) -> Result<(), MetaError>;

fn each_member<'a>(path: &str, object: Option<&'a str>, on_member: OnMember<'_, 'a>) -> Result<(), MetaError> {
    let Some(object) = object else { return Ok(()) };
    if !object.starts_with('{') {
        return Err(wrong_type(path, "an object", object));
    }
    let mut refused = None;
    let walk = Members {
        on_member,
        refused: &mut refused,
    };
    let walked = serde_json::Deserializer::from_str(object).deserialize_map(walk);
    outcome(walked, refused)
}

/// The items of an array: none if it is missing.
fn items<T>(
    path: &str,
    array: Option<&str>,
    mut item: impl FnMut(&str) -> Result<T, MetaError>,
) -> Result<Vec<T>, MetaError> {
    let Some(array) = array else { return Ok(Vec::new()) };
    if !array.starts_with('[') {
        return Err(wrong_type(path, "an array", array));
    }
    let (mut found, mut refused) = (Vec::new(), None);
    let mut on_item = |token: &str| item(token).map(|item| found.push(item));
    let walk = Items {
        on_item: &mut on_item,
        refused: &mut refused,
    };
    let walked = serde_json::Deserializer::from_str(array).deserialize_seq(walk);
    outcome(walked, refused).map(|()| found)
}

/// Why a walk ended: what it met says more than that it was stopped.
fn outcome(walked: Result<(), serde_json::Error>, refused: Option<MetaError>) -> Result<(), MetaError> {
    match (refused, walked) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(MetaError::NotJson(error.to_string())),
        (None, Ok(())) => Ok(()),
    }
}

struct Members<'f, 'a> {
    on_member: OnMember<'f, 'a>,
    refused: &'f mut Option<MetaError>,
}

impl<'a> Visitor<'a> for Members<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<String, &'a RawValue>()? {
            if let Err(error) = (self.on_member)(&name, value.get()) {
                *self.refused = Some(error);
                return Err(A::Error::custom("it is refused"));
            }
        }
        Ok(())
    }
}

struct Items<'f> {
    on_item: &'f mut dyn FnMut(&str) -> Result<(), MetaError>,
    refused: &'f mut Option<MetaError>,
}

impl<'a> Visitor<'a> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(item) = seq.next_element::<&'a RawValue>()? {
            if let Err(error) = (self.on_item)(item.get()) {
                *self.refused = Some(error);
                return Err(A::Error::custom("it is refused"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::{super::Meta, *};

    const ID: &str = "01K4ABCDEFGHJKMNPQRSTVWXYZ";

    fn of_meta(bytes: &[u8]) -> Result<Summary, String> {
        let meta = Meta::parse(bytes).map_err(|error| error.to_string())?;
        Ok(Summary {
            ulid: meta.ulid,
            min_time: meta.min_time,
            max_time: meta.max_time,
            level: meta.level,
            resolution: meta.resolution,
            sources: meta.block.sources,
            thanos_labels: meta.block.thanos_labels,
        })
    }

    fn of_summary(bytes: &[u8]) -> Result<Summary, String> {
        Summary::parse(bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn what_it_cannot_use_is_told_as_of_a_whole_document() {
        for text in [
            "",
            " \n",
            "{",
            "\0\0",
            "[]",
            "1 ",
            r#"{"ulid":"$ID"}"#,
            r#"{"version":1}"#,
            r#"{"ulid":"nope","version":1}"#,
            r#"{"ulid":"$ID","version":2}"#,
            r#"{"ulid":"$ID","version":1,"compaction":{"sources":["x"]}}"#,
            r#"{"ulid":"$ID","version":1,"compaction":{"hints":{}}}"#,
            r#"{"ulid":"$ID","version":1,"minTime":1.5}"#,
            r#"{"ulid":"$ID","version":1,"stats":{"numSamples":-1}}"#,
            r#"{"ulid":"$ID","version":1,"stats":[]}"#,
            r#"{"ulid":"$ID","version":1,"thanos":3}"#,
            r#"{"ulid":"$ID","version":1,"thanos":{"version":2}}"#,
            r#"{"ulid":"$ID","version":1,"thanos":{"labels":{"a":1}}}"#,
            r#"{"ulid":"$ID","version":1,"thanos":{"downsample":{"resolution":"5m"}}}"#,
        ] {
            let bytes = text.replace("$ID", ID).into_bytes();
            let told = of_summary(&bytes);
            assert!(told.is_err(), "{text}");
            assert_eq!(told, of_meta(&bytes), "{text}");
        }
    }

    /// What may stand anywhere: a value of each kind, the names of blocks, and numbers at the edges.
    fn token() -> impl Strategy<Value = String> {
        let own = format!("\"{ID}\"");
        let list = format!("[\"{ID}\", \"00000000000000000000000000\"]");
        let fixed = [
            "null",
            "true",
            "0",
            "1",
            "-1",
            "-0",
            "1.0",
            "1e3",
            "9223372036854775807",
            "18446744073709551615",
            "99999999999999999999",
            "\"\"",
            "\"\\u0061\"",
            "\"\\ud800\"",
            "[]",
            "[null]",
            "[1]",
            "{}",
            "{\"a\":\"b\"}",
            "{\"a\":null}",
            "{\"a\":\"1\",\"a\":\"2\"}",
            "{\"resolution\":300000}",
            "{\"resolution\":null}",
        ];
        let fixed: Vec<String> = fixed.iter().map(ToString::to_string).chain([own, list]).collect();
        select(fixed)
    }

    /// An object with some members of these names, in any order, some of them twice.
    fn object(names: &'static [&'static str]) -> impl Strategy<Value = String> {
        let member = (select(names), token()).prop_map(|(name, token)| format!("\"{name}\": {token}"));
        proptest::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(" ,\n")))
    }

    fn section(names: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop_oneof![8 => object(names), 1 => token()]
    }

    fn document() -> impl Strategy<Value = String> {
        let compaction = section(&["level", "sources", "hints", "parents", "failed"]);
        let thanos = section(&["version", "labels", "downsample", "index_stats", "files", "source"]);
        let stats = section(&[
            "numSamples",
            "numSeries",
            "numChunks",
            "numTombstones",
            "numFloatSamples",
        ]);
        let top = object(&["ulid", "minTime", "maxTime", "version", "other", "ul\\u0069d"]);
        (top, stats, compaction, thanos, any::<[bool; 3]>(), " |x|\\}|").prop_map(
            |(top, stats, compaction, thanos, has, tail)| {
                let mut members = vec![format!("\"ulid\":\"{ID}\",\"version\":1")];
                let sections = [("stats", stats), ("compaction", compaction), ("thanos", thanos)];
                let sections = sections.iter().zip(has).filter(|(_, has)| *has);
                members.extend(sections.map(|((name, section), _)| format!("\"{name}\":{section}")));
                members.extend(
                    top.strip_prefix("{")
                        .and_then(|top| top.strip_suffix("}"))
                        .map(str::to_owned),
                );
                members.retain(|members| !members.is_empty());
                format!(" {{{}}}{tail}", members.join(","))
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn means_the_same_as_the_whole_document(text in document()) {
            let (summary, meta) = (of_summary(text.as_bytes()), of_meta(text.as_bytes()));
            // Of several mistakes now this one and now that one is met first.
            prop_assert_eq!(summary.clone().ok(), meta.clone().ok(), "{:?} {:?}", summary, meta);
        }

        #[test]
        fn a_changed_byte_is_judged_alike(text in document(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(meta) = of_meta(&bytes) {
                prop_assert_eq!(of_summary(&bytes), Ok(meta));
            }
        }
    }
}
