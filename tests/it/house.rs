//! The code is built as the map in `src/lib.rs` says: which modules there are, who imports whom, and how large a file may
//! get.

mod circles;
mod imports;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use fs_err as fs;

/// The most lines that a file may have; generated ones are free.
const LINES: usize = 500;

/// Which modules a module may import.
#[derive(Debug)]
enum May {
    Everything,
    Only(BTreeSet<String>),
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The table of the map: `| [`room`] | what is in it | may import |`.
fn map(text: &str) -> BTreeMap<String, May> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | [`"));
    let row = |row: &str| {
        let (room, rest) = row.split_once("`]").expect("a module is a link");
        let imports = rest
            .trim_end_matches([' ', '|'])
            .rsplit('|')
            .next()
            .unwrap_or_default()
            .trim();
        let may = match imports {
            "everything" => May::Everything,
            "nothing" => May::Only(BTreeSet::new()),
            list => May::Only(
                list.split(',')
                    .map(|room| room.trim().trim_matches('`').to_owned())
                    .collect(),
            ),
        };
        (room.to_owned(), may)
    };
    rows.map(row).collect()
}

/// Every Rust file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries {
        let path = entry.expect("the sources can be read").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The modules that a text names by `crate::module` or `crate::{module, module::thing}`, outside of comments.
fn named(text: &str, root: &str) -> BTreeSet<String> {
    let paths = imports::paths(&imports::without_comments(text), root);
    paths.into_iter().filter_map(|path| path.into_iter().nth(1)).collect()
}

#[test]
fn rooms_import_only_what_the_map_allows() {
    let map = map(&fs::read_to_string(source().join("lib.rs")).unwrap());
    assert!(
        map.len() >= 5,
        "the table in src/lib.rs is not what this test can read: {map:?}"
    );
    let mut wrong = Vec::new();
    for path in files(&source()) {
        let inside = path.strip_prefix(source()).unwrap();
        let room = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        let text = fs::read_to_string(&path).unwrap();
        let (names, may) = match room {
            "lib" => continue,
            "main" => (
                named(&text, "narthex::"),
                &May::Only(BTreeSet::from(["cli".to_owned(), "cmd".to_owned()])),
            ),
            _ => (
                named(&text, "crate::"),
                map.get(room).unwrap_or_else(|| panic!("{room} is not on the map")),
            ),
        };
        for name in names {
            let good = match may {
                May::Everything => true,
                May::Only(rooms) => name == room || rooms.contains(&name) || !map.contains_key(&name),
            };
            if !good {
                wrong.push(format!("src/{} imports {name}", inside.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "the map in src/lib.rs does not allow:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_map_shows_every_room() {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    let rooms: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned))
        .collect();
    let map = map(&text);
    assert_eq!(
        map.keys().cloned().collect::<BTreeSet<_>>(),
        rooms,
        "the map and the modules of src/lib.rs differ"
    );
    for (room, may) in &map {
        if let May::Only(others) = may {
            let unknown: Vec<_> = others.iter().filter(|other| !map.contains_key(*other)).collect();
            assert!(
                unknown.is_empty(),
                "{room} may import modules that are not there: {unknown:?}"
            );
        }
    }
}

#[test]
fn files_stay_small() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut large = Vec::new();
    for dir in ["src", "tests", "examples", "benches"] {
        for path in files(&root.join(dir)) {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            if lines > LINES && !path.starts_with(source().join("pb")) {
                large.push(format!(
                    "{} has {lines} lines",
                    path.strip_prefix(root).unwrap().display()
                ));
            }
        }
    }
    assert!(large.is_empty(), "more than {LINES} lines:\n{}", large.join("\n"));
}

#[test]
fn names_are_found_in_every_form() {
    let text = "use crate::{\n    b::{self, x, y},\n    c,\n};\nuse crate::a::z;\nlet d = crate::d::new();\n// crate::e\n\
                mycrate::f::g(); $crate::h!();\npub(in crate::i) fn j() {}";
    let found: Vec<String> = named(text, "crate::").into_iter().collect();
    assert_eq!(found, ["a", "b", "c", "d", "i"]);
}
