//! What the `meta.json` of a block in the bucket says beside Prometheus' own keys: who sent it, and which files it has.

use super::{
    BucketFile, Meta,
    json::{Node, Object},
    stamp::META,
};

impl Meta {
    /// `thanos.source`: who made this block, such as `sidecar` or `compactor`; empty if it does not say.
    pub fn source(&self) -> String {
        let source = self.thanos_section().and_then(|thanos| thanos.get("source"));
        source.and_then(Node::as_text).unwrap_or_default()
    }

    /// `thanos.files`: what belongs to the block beside `meta.json`. `None` if it does not say, as metas of old versions
    /// of Thanos do not.
    ///
    /// # Errors
    /// An entry that makes no sense, in words.
    pub fn files(&self) -> Result<Option<Vec<BucketFile>>, String> {
        let Some(files) = self.thanos_section().and_then(|thanos| thanos.get("files")) else {
            return Ok(None);
        };
        let Node::List(files) = files else {
            return Err(format!("thanos.files must be an array, and is {}", files.shown()));
        };
        let files: Result<Vec<BucketFile>, String> = files.iter().map(file).collect();
        Ok(Some(files?.into_iter().filter(|file| file.rel_path != META).collect()))
    }

    /// `thanos.segment_files`: the names of the chunk segments without their directory, as metas have them that do not
    /// list all files; empty if it does not say.
    pub fn segment_files(&self) -> Vec<String> {
        match self.thanos_section().and_then(|thanos| thanos.get("segment_files")) {
            Some(Node::List(names)) => names.iter().filter_map(Node::as_text).collect(),
            _ => Vec::new(),
        }
    }

    /// The document, as a file: indented by tabs, a newline at the end.
    pub fn to_json(&self) -> String {
        // What was read from a string is one.
        String::from_utf8_lossy(&Node::Object((*self.document).clone()).to_file()).into_owned()
    }

    fn thanos_section(&self) -> Option<&Object> {
        match self.document.get("thanos") {
            Some(Node::Object(thanos)) => Some(thanos),
            _ => None,
        }
    }
}

fn file(node: &Node) -> Result<BucketFile, String> {
    let bad = || format!("an entry of thanos.files makes no sense: {}", node.shown());
    let Node::Object(file) = node else { return Err(bad()) };
    let rel_path = file.get("rel_path").and_then(Node::as_text).ok_or_else(bad)?;
    // It becomes a key of the bucket and a path on disk.
    let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']);
    if !rel_path.split('/').all(sound) {
        return Err(format!("thanos.files names {rel_path:?}, which is no file of a block"));
    }
    let size = match file.get("size_bytes") {
        Some(Node::Leaf(size)) => Some(size.parse().map_err(|_| bad())?),
        Some(_) => return Err(bad()),
        // Zero is left out; of meta.json nobody knows the size beforehand.
        None if rel_path == META => None,
        None => Some(0),
    };
    let sha256 = match file.get("hash") {
        Some(Node::Object(hash)) if hash.get("hashFunc").and_then(Node::as_text).as_deref() == Some("SHA256") => {
            hash.get("value").and_then(Node::as_text)
        }
        _ => None,
    };
    Ok(BucketFile { rel_path, size, sha256 })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::{super::Stamp, *};
    use crate::model::Labels;

    const PLAIN: &str = r#"{"ulid":"01K4ABCDEFGHJKMNPQRSTVWXYZ","version":1}"#;

    fn with_files(files: &str) -> Result<Option<Vec<BucketFile>>, String> {
        let text = PLAIN.replace("\"version\"", &format!("\"thanos\":{{\"files\":{files}}},\"version\""));
        Meta::parse(text.as_bytes()).unwrap().files()
    }

    #[test]
    fn what_is_stamped_is_read_back() {
        let file = |rel_path: &str, size: u64, sha256: Option<&str>| BucketFile {
            rel_path: rel_path.into(),
            size: Some(size),
            sha256: sha256.map(Into::into),
        };
        let files = vec![file("chunks/000001", 0, None), file("index", u64::MAX, Some("ab12"))];
        let stamp = Stamp {
            labels: Labels::from_pairs([("a", "b")]),
            source: "bucket.upload".into(),
            files: files.clone(),
            rewritten_from: None,
            upload_time: UNIX_EPOCH,
        };
        let plain = Meta::parse(PLAIN.as_bytes()).unwrap();
        assert_eq!((plain.files(), plain.source()), (Ok(None), String::new()));
        let text = plain.for_bucket(&stamp);
        let meta = Meta::parse(&text).unwrap();
        assert_eq!((meta.files(), meta.source()), (Ok(Some(files)), "bucket.upload".into()));
        assert_eq!(meta.segment_files(), ["000001"]);
        assert_eq!(plain.segment_files(), [""; 0]);
        assert_eq!(meta.to_json().into_bytes(), text);
    }

    #[test]
    fn entries_that_make_no_sense_are_told() {
        for (files, said) in [
            ("3", "thanos.files must be an array, and is 3"),
            ("[3]", "an entry of thanos.files makes no sense: 3"),
            ("[{}]", "an entry of thanos.files makes no sense: an object"),
            (
                r#"[{"rel_path":"index","size_bytes":-1}]"#,
                "an entry of thanos.files makes no sense: an object",
            ),
            (
                r#"[{"rel_path":"../x"}]"#,
                "thanos.files names \"../x\", which is no file of a block",
            ),
            (
                r#"[{"rel_path":"/etc"}]"#,
                "thanos.files names \"/etc\", which is no file of a block",
            ),
        ] {
            assert_eq!(with_files(files).unwrap_err(), said);
        }
        assert_eq!(with_files("null"), Ok(None));
        assert_eq!(with_files("[]"), Ok(Some(Vec::new())));
    }
}
