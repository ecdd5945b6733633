//! No two files import each other, directly or by way of others: what one does can be read without the other.
//!
//! A module and the files below it are one thing, whose parts may name each other: such an import is not counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use fs_err as fs;

use super::{
    files,
    imports::{self, Module},
    source,
};

/// The module that a file of `src` is.
fn module(inside: &Path) -> Module {
    let path = inside.with_extension("");
    path.iter().map(|part| part.to_str().unwrap().to_owned()).collect()
}

/// The code of a file, without comments and without the tests at its end, which may import what they like.
fn code(text: &str) -> String {
    imports::without_comments(text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default())
}

/// The paths that a file names from the crate's root or from a module above it, as paths from the crate's root.
fn paths(text: &str, module: &Module) -> Vec<Module> {
    let code = code(text);
    let found = ["crate::", "super::"].map(|root| imports::paths(&code, root)).concat();
    let absolute = |path: Module| {
        let up = path.iter().take_while(|part| *part == "super").count();
        match path.first().map(String::as_str) {
            Some("crate") => path[1..].to_vec(),
            _ => [&module[..module.len().saturating_sub(up)], &path[up..]].concat(),
        }
    };
    found.into_iter().map(absolute).collect()
}

/// Which files each file imports: those of the paths that it names, as far as they lead to a file of their own.
fn imports(texts: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let of = |module: &Module, text: &String| -> BTreeSet<Module> {
        let named = paths(text, module).into_iter().filter_map(|path| {
            let prefixes = (1..=path.len()).rev().map(|len| path[..len].to_vec());
            prefixes.into_iter().find(|prefix| texts.contains_key(prefix))
        });
        named
            .filter(|other| !other.starts_with(module) && !module.starts_with(other))
            .collect()
    };
    texts
        .iter()
        .map(|(module, text)| (module.clone(), of(module, text)))
        .collect()
}

/// Each way from a file back to itself, the shortest for each file that has one.
fn circles(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<String> {
    let mut found = BTreeMap::new();
    for start in imports.keys() {
        let mut ways: Vec<Vec<&Module>> = vec![vec![start]];
        let mut seen = BTreeSet::new();
        while !ways.is_empty() {
            let next = ways.iter().flat_map(|way| {
                let last = *way.last().expect("a way has its start");
                imports[last]
                    .iter()
                    .map(move |module| [way.as_slice(), &[module]].concat())
            });
            let next: Vec<Vec<&Module>> = next.collect();
            if let Some(circle) = next.iter().find(|way| way.last() == Some(&start)) {
                let members: BTreeSet<&Module> = circle.iter().copied().collect();
                let names: Vec<String> = circle.iter().map(|module| module.join("/")).collect();
                found.entry(members).or_insert_with(|| names.join(" -> "));
                break;
            }
            ways = next
                .into_iter()
                .filter(|way| seen.insert(*way.last().expect("a way has its start")))
                .collect();
        }
    }
    found.into_values().collect()
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    let mut texts = BTreeMap::new();
    for path in files(&source()) {
        let inside = path.strip_prefix(source()).unwrap();
        // Modules of tests are told by their names.
        let tests = inside.iter().any(|part| part == "tests" || part == "tests.rs");
        if !tests && inside != Path::new("main.rs") && inside != Path::new("lib.rs") {
            texts.insert(module(inside), fs::read_to_string(&path).unwrap());
        }
    }
    let circles = circles(&imports(&texts));
    assert!(
        circles.is_empty(),
        "files import each other; move what both need into a file of its own:\n{}",
        circles.join("\n")
    );
}

#[test]
fn circles_are_found_in_every_form_of_import() {
    let texts = [
        ("a/x", "use crate::{a::y::Thing, b};"),
        ("a/y", "use std::fmt;\nfn f() { super::z::g() }"),
        ("a/z", "use super::{\n    x::{self, Other as Renamed},\n    A,\n};"),
        (
            "b",
            "// use crate::a::x;\nmod c;\nuse c::D;\n#[cfg(test)]\nmod tests {\nuse crate::a::x;\n}",
        ),
        ("b/c", "use super::{E, d::F};"),
        ("b/d", "use crate::b::E;"),
    ];
    let texts: BTreeMap<Module, String> = texts
        .iter()
        .map(|(path, text)| (module(Path::new(path)), (*text).to_owned()))
        .collect();
    assert_eq!(circles(&imports(&texts)), ["a/x -> a/y -> a/z -> a/x"]);
}
