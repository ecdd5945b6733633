//! What is written is true: links lead somewhere, tests and metrics that are named exist, examples are taken by the
//! program, and the alerts fire when they should.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, also in its helpers")]

mod alerts;
mod dashboard;
mod decisions;
mod examples;
mod messages;
mod metrics;
mod parity;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use fs_err as fs;
use serde_json::Value;

/// The longest that the page about the design may get.
const ARCHITECTURE: usize = 180;

/// The longest that the first page may get: the rest has pages of its own.
const README: usize = 200;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of the repository whose names end so, by their paths from its root.
fn files(end: &str) -> BTreeMap<String, String> {
    let (mut found, mut dirs) = (BTreeMap::new(), vec![root().to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            let ours = !name.starts_with('.') && name != "target";
            if ours && entry.file_type().unwrap().is_dir() {
                dirs.push(path);
            } else if ours && name.ends_with(end) {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(!found.is_empty(), "no file {end}");
    found
}

/// Every page of documentation.
fn pages() -> BTreeMap<String, String> {
    files(".md")
}

/// The same, with the YAML and JSON that are there to be deployed.
fn pages_and_manifests() -> BTreeMap<String, String> {
    let mut texts = pages();
    let manifests = files(".yaml").into_iter().chain(files(".json"));
    texts.extend(manifests.filter(|(path, _)| path.starts_with("deploy")));
    texts
}

/// A piece of code between fences.
#[derive(Debug)]
struct Fence {
    /// What stands behind the opening fence, e.g. `yaml`.
    language: String,
    /// Its first line's number on the page.
    line: usize,
    text: String,
}

/// A page, divided into what is between fences and what is not.
fn divided(page: &str) -> (Vec<Fence>, String) {
    let (mut fences, mut prose, mut open): (Vec<Fence>, String, bool) = (Vec::new(), String::new(), false);
    for (at, line) in page.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), open) {
            (Some(_), true) => open = false,
            (Some(language), false) => {
                open = true;
                fences.push(Fence {
                    language: language.to_owned(),
                    line: at + 2,
                    text: String::new(),
                });
            }
            (None, true) => {
                let fence = fences.last_mut().expect("one is open");
                fence.text.push_str(line);
                fence.text.push('\n');
            }
            (None, false) => {
                prose.push_str(line);
                prose.push('\n');
            }
        }
    }
    assert!(!open, "a fence is not closed:\n{page}");
    (fences, prose)
}

/// The pieces of code within the text of a page.
fn spans(prose: &str) -> Vec<String> {
    let mut spans = Vec::new();
    for line in prose.lines() {
        // Every second piece is between two of them.
        spans.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    spans
}

/// The anchors of a page, as they are made of its headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let (_, prose) = divided(page);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| -> String {
        let kept = line
            .trim_start_matches('#')
            .trim()
            .chars()
            .filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
        kept.map(|char| if char == ' ' { '-' } else { char.to_ascii_lowercase() })
            .collect()
    };
    headings.map(anchor).collect()
}

/// Why a link on the page `name` leads nowhere.
fn broken(name: &str, target: &str) -> Option<String> {
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let page = root().join(name);
    let file: PathBuf = match path {
        "" => page,
        path => page.parent().unwrap().join(path),
    };
    let Ok(file) = fs::canonicalize(&file) else {
        return Some(format!("{name}: there is no {target}"));
    };
    if !file.starts_with(fs::canonicalize(root()).unwrap()) {
        return Some(format!("{name}: {target} is outside of the repository"));
    }
    let missing = |anchor: &&str| file.is_dir() || !anchors(&fs::read_to_string(&file).unwrap()).contains(*anchor);
    anchor
        .filter(missing)
        .map(|anchor| format!("{name}: {path} has no heading for #{anchor}"))
}

#[test]
fn every_link_leads_somewhere() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (name, page) in pages() {
        for link in divided(&page).1.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if !target.contains("://") {
                seen += 1;
                wrong.extend(broken(&name, target));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen >= 10, "only {seen} links were found");
}

#[test]
fn links_that_lead_nowhere_are_found() {
    assert_eq!(broken("docs/parity.md", "../README.md#install"), None);
    assert_eq!(broken("README.md", "#install"), None);
    for target in ["none.md", "#none", "docs/parity.md#none", "docs#none", "../../../etc"] {
        assert!(broken("README.md", target).is_some(), "{target}");
    }
}

#[test]
fn the_image_has_this_version_wherever_it_is_named() {
    let (mut seen, mut texts) = (0, pages_and_manifests());
    texts.insert(
        "Dockerfile".to_owned(),
        fs::read_to_string(root().join("Dockerfile")).unwrap(),
    );
    for (name, text) in texts {
        for tag in values(&text, "narthex:").filter(|tag| tag.starts_with(|char: char| char.is_ascii_digit())) {
            assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 10, "only {seen}");
}

#[test]
fn the_readme_stays_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines < README, "README.md has {lines} lines");
}

#[test]
fn the_page_about_the_design_stays_short() {
    let lines = fs::read_to_string(root().join("ARCHITECTURE.md"))
        .unwrap()
        .lines()
        .count();
    assert!(lines <= ARCHITECTURE, "ARCHITECTURE.md has {lines} lines");
}

/// All texts under `key`, wherever they are.
fn under<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| under(value, key, found)),
        Value::Object(map) => {
            found.extend(map.get(key).and_then(Value::as_str));
            map.values().for_each(|value| under(value, key, found));
        }
        _ => {}
    }
}

/// The targets of the Makefile.
fn targets() -> BTreeSet<String> {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let targets = makefile.lines().filter_map(|line| {
        let (name, help) = line.split_once(':')?;
        help.contains("## ").then(|| name.to_owned())
    });
    targets.collect()
}

#[test]
fn the_makefile_has_every_target_that_is_named() {
    let (targets, mut seen) = (targets(), BTreeSet::new());
    for (name, page) in pages() {
        let (fences, prose) = divided(&page);
        let lines = fences.iter().flat_map(|fence| fence.text.lines().map(str::to_owned));
        for code in lines.chain(spans(&prose)) {
            let mut words = code.split_whitespace();
            if words.next() == Some("make") {
                let target = words.next().unwrap_or_default().to_owned();
                assert!(targets.contains(&target), "{name}: there is no make {target}");
                seen.insert(target);
            }
        }
    }
    assert!(seen.contains("demo") && seen.contains("test"), "{seen:?}");
}

/// The values that follow a key in a file, each up to where it ends.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let name = |char: char| !(char.is_ascii_alphanumeric() || matches!(char, '_' | '.' | '/' | '-'));
    text.split(key).skip(1).filter_map(move |rest| rest.split(name).next())
}

#[test]
fn the_image_is_built_and_run_as_the_pages_say() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (docker, makefile, cargo) = (read("Dockerfile"), read("Makefile"), read("Cargo.toml"));
    for line in ["USER 1001:1001", "ENTRYPOINT [\"/bin/narthex\"]", "EXPOSE 10901 10902"] {
        assert!(docker.lines().any(|found| found == line), "{line}");
    }
    let known: BTreeSet<&str> = values(&docker, "\nARG ").collect();
    let given: BTreeSet<&str> = values(&makefile, "--build-arg ").collect();
    assert!(
        given.contains("VERSION") && given.is_subset(&known),
        "{given:?} of {known:?}"
    );
    let sources: String = files(".rs").into_values().collect();
    let asked: BTreeSet<&str> = values(&sources, "option_env!(\"")
        .filter(|name| name.starts_with("NARTHEX_"))
        .collect();
    let set: BTreeSet<&str> = docker
        .split_whitespace()
        .filter_map(|word| Some(word.split_once('=')?.0))
        .collect();
    assert!(asked.len() >= 3 && asked.is_subset(&set), "{asked:?} of {set:?}");
    let rust = values(&cargo, "rust-version = \"").next().unwrap();
    assert!(docker.contains(&format!("rust:{rust}-slim")), "{rust}");
    let ignore = read(".dockerignore");
    let copied: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let needed = values(&cargo, "\npath = \"").chain(["Cargo.lock", "LICENSE", "benches"]);
    for path in needed {
        assert!(
            copied.iter().any(|copied| path.starts_with(copied)),
            "{path} of {copied:?}"
        );
    }
}
