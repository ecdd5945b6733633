//! What the image says it is made of is what is locked, and every crate's licence is among the texts.

use std::{collections::BTreeSet, path::Path, process::Command};

use fs_err as fs;
use serde_json::Value;

use crate::rig::{one_shot, tools::temp_dir};

/// Every `name version` that `Cargo.lock` names with a checksum: those that come from a registry.
fn locked(text: &str) -> BTreeSet<String> {
    let packages = text
        .split("[[package]]")
        .filter(|package| package.contains("\nchecksum = "));
    let field = |package: &str, key: &str| {
        let start = format!("\n{key} = \"");
        let value = package.split(&start).nth(1).unwrap();
        value.split('"').next().unwrap().to_owned()
    };
    packages
        .map(|package| format!("{} {}", field(package, "name"), field(package, "version")))
        .collect()
}

#[test]
fn the_list_of_parts_and_the_licences_are_whole() {
    let (root, out) = (Path::new(env!("CARGO_MANIFEST_DIR")), temp_dir("licenses"));
    one_shot::run(Command::new(root.join("scripts/licenses")).arg(out.path())).ended(0);
    let parts: Value = serde_json::from_slice(&fs::read(out.path().join("sbom.cdx.json")).unwrap()).unwrap();
    assert_eq!(
        (&parts["bomFormat"], &parts["specVersion"]),
        (&"CycloneDX".into(), &"1.5".into())
    );
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(parts["metadata"]["component"]["version"], version);
    let locked = locked(&fs::read_to_string(root.join("Cargo.lock")).unwrap());
    let texts = fs::read_to_string(out.path().join("third-party.txt")).unwrap();
    let listed: BTreeSet<String> = parts["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| {
            let text = |key: &str| part[key].as_str().unwrap().to_owned();
            let (name, version) = (text("name"), text("version"));
            assert_eq!(
                text("purl"),
                format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
            );
            let licence = part["licenses"][0]["expression"].as_str().unwrap();
            assert!(!licence.is_empty() && !licence.contains('/'), "{name}: {licence}");
            let line = format!("\n{name} {version}: {licence}\n");
            assert!(texts.contains(&line), "no line {line:?}");
            format!("{name} {version}")
        })
        .collect();
    let unlocked: Vec<_> = listed.difference(&locked).collect();
    assert!(unlocked.is_empty(), "{unlocked:?}");
    // Some of what it cannot be without, and none of what only tests it.
    for name in ["tokio ", "aws-sdk-s3 ", "rustls ", "tonic "] {
        assert!(listed.iter().any(|part| part.starts_with(name)), "{name}");
    }
    for name in ["proptest ", "criterion ", "tempfile "] {
        assert!(!listed.iter().any(|part| part.starts_with(name)), "{name}");
    }
    for text in ["Permission is hereby granted, free of charge", "Apache License"] {
        assert!(texts.contains(text), "{text}");
    }
}
