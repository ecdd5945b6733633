//! Listings of Azure's store, page by page.

use std::sync::atomic::Ordering;

use serde::Deserialize;

use super::{Store, query};
use crate::objstore::{Error, ErrorKind, NameFilter, Object};

/// The document by its name: no other one is an empty listing.
#[derive(Deserialize)]
enum Document {
    EnumerationResults(Page),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    blobs: Entries,
    #[serde(default)]
    next_marker: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Entries {
    blob: Vec<Blob>,
    blob_prefix: Vec<Directory>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Directory {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blob {
    name: String,
    #[serde(default)]
    properties: Properties,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Properties {
    #[serde(rename = "Content-Length")]
    size: u64,
    /// `directory`, in accounts that have such.
    #[serde(rename = "ResourceType")]
    kind: String,
}

impl Store {
    /// All objects below `dir`.
    pub(super) async fn list_below(&self, dir: &str) -> Result<Vec<Object>, Error> {
        let mut objects = Vec::new();
        let prefix = self.rest.below(dir);
        self.pages(dir, &[("prefix", &prefix)], |page| {
            objects.extend(page.blobs.blob.into_iter().filter_map(|blob| self.object(blob)));
        })
        .await?;
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        objects.dedup_by(|a, b| a.key == b.key);
        Ok(objects)
    }

    /// The directories at the top that sort after `after` and are `wanted`. The store cannot be told to begin there.
    pub(super) async fn list_dirs(&self, after: &str, wanted: NameFilter) -> Result<Vec<String>, Error> {
        let mut dirs = Vec::new();
        self.pages("", &[("prefix", &self.rest.prefix), ("delimiter", "/")], |page| {
            let names = page.blobs.blob_prefix.iter();
            let names = names.filter_map(|dir| self.rest.relative(&dir.name)?.strip_suffix('/'));
            let names = names.filter(|name| !name.is_empty() && *name > after && wanted(name));
            dirs.extend(names.map(str::to_owned));
        })
        .await?;
        dirs.sort_unstable();
        dirs.dedup();
        Ok(dirs)
    }

    /// Directories, and marks that some tools set for them, are no objects.
    fn object(&self, blob: Blob) -> Option<Object> {
        let key = self.rest.relative(&blob.name)?;
        let is_object = !key.is_empty() && !key.ends_with('/') && blob.properties.kind != "directory";
        is_object.then(|| Object {
            key: key.to_owned(),
            size: blob.properties.size,
        })
    }

    async fn pages(&self, dir: &str, about: &[(&str, &str)], mut each: impl FnMut(Page) + Send) -> Result<(), Error> {
        let at = |marker: Option<&str>| {
            let mut parts = vec![("restype", "container"), ("comp", "list")];
            parts.extend_from_slice(about);
            parts.extend(marker.map(|marker| ("marker", marker)));
            format!("{}?{}", self.rest.dialect.container, query(&parts))
        };
        let mut is_there = false;
        let take = |body: &[u8]| {
            is_there = true;
            let mut page = read(&String::from_utf8_lossy(body))
                .map_err(|error| format!("the listing is not that of Azure's blob storage: {error}"))?;
            let next = page.next_marker.take();
            each(page);
            Ok(next)
        };
        match self.rest.pages(dir, at, take).await {
            // The first object makes it.
            Err(error) if error.kind == ErrorKind::NoBucket && self.rest.dialect.create_container && !is_there => {
                if !self.told_missing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        container = self.rest.identity,
                        "there is no such container yet: the first upload makes it"
                    );
                }
                Ok(())
            }
            listed => listed,
        }
    }
}

fn read(text: &str) -> Result<Page, quick_xml::DeError> {
    let Document::EnumerationResults(page) = quick_xml::de::from_str(text.trim_start_matches('\u{feff}'))?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Microsoft's documentation of "List Blobs", shortened.
    const PAGE: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<EnumerationResults ServiceEndpoint="https://myaccount.blob.core.windows.net/" ContainerName="mycontainer">
  <Prefix>metrics/</Prefix><Delimiter>/</Delimiter>
  <Blobs>
    <Blob><Name>metrics/a.txt</Name><Properties><Last-Modified>Wed, 09 Sep 2009 09:20:03 GMT</Last-Modified>
      <Etag>0x8CBFF45D8B4A212</Etag><Content-Length>8</Content-Length><Content-MD5/><BlobType>BlockBlob</BlobType>
      </Properties><Metadata><Color>blue</Color></Metadata></Blob>
    <BlobPrefix><Name>metrics/01HX/</Name></BlobPrefix>
    <Blob><Name>metrics/dir</Name><Properties><ResourceType>directory</ResourceType><Content-Length>0</Content-Length>
      </Properties></Blob>
    <BlobPrefix><Name>metrics/01HY/</Name></BlobPrefix>
  </Blobs>
  <NextMarker>2!72!abc</NextMarker>
</EnumerationResults>"#;

    #[test]
    fn pages_are_read_with_what_is_interleaved() {
        let page = read(PAGE).unwrap();
        let blobs: Vec<(&str, u64, &str)> = page
            .blobs
            .blob
            .iter()
            .map(|blob| (blob.name.as_str(), blob.properties.size, blob.properties.kind.as_str()))
            .collect();
        assert_eq!(blobs, [("metrics/a.txt", 8, ""), ("metrics/dir", 0, "directory")]);
        let dirs: Vec<&str> = page.blobs.blob_prefix.iter().map(|dir| dir.name.as_str()).collect();
        assert_eq!(dirs, ["metrics/01HX/", "metrics/01HY/"]);
        assert_eq!(page.next_marker.as_deref(), Some("2!72!abc"));
        let empty = read("\u{feff}<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>").unwrap();
        assert!(empty.blobs.blob.is_empty() && empty.next_marker.unwrap_or_default().is_empty());
    }

    #[test]
    fn another_document_is_no_empty_listing() {
        for text in [
            "<html><body>a portal</body></html>",
            "<Error><Code>x</Code></Error>",
            "<EnumerationResults/>",
            "<html><Blobs/><NextMarker/></html>",
            "",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
