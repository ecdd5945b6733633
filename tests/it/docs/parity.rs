//! `docs/parity.md`: every row has a state and the test that shows it, and the metrics are those that are served.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use fs_err as fs;

use super::{files, pages_and_manifests, root};
use crate::{
    bad_blocks::stage::{PATIENCE, Stage, seal, sound},
    rig::http,
};

const STATES: [&str; 4] = ["same", "better", "different on purpose", "not yet"];

/// A line of one of the tables.
#[derive(Debug)]
struct Row {
    line: usize,
    item: String,
    state: String,
    test: String,
}

/// The rows of all tables with a column of tests.
fn rows() -> Vec<Row> {
    let page = fs::read_to_string(root().join("docs/parity.md")).unwrap();
    let (mut rows, mut inside) = (Vec::new(), false);
    for (at, line) in page.lines().enumerate().filter(|(_, line)| !line.starts_with("|---")) {
        let cells = cells(line);
        if cells.last().is_some_and(|cell| cell == "Test") {
            inside = true;
        } else if cells.is_empty() {
            inside = false;
        } else if inside {
            let [item, state, _, test] = &cells[..] else {
                panic!("line {} has not four cells: {line}", at + 1)
            };
            rows.push(Row {
                line: at + 1,
                item: item.clone(),
                state: state.clone(),
                test: test.clone(),
            });
        }
    }
    assert!(rows.len() > 150, "only {} rows were found", rows.len());
    rows
}

/// The cells of a line of a table; none if it is no such line.
fn cells(line: &str) -> Vec<String> {
    let Some(inner) = line.strip_prefix("| ").and_then(|line| line.strip_suffix('|')) else {
        return Vec::new();
    };
    // A bar that belongs to the text is written behind a backslash.
    let inner = inner.replace("\\|", "\u{1}");
    inner.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

/// The tests of the library (`tsdb::scan::tests::name`) and of this binary (`it::docs::parity::name`), found in their
/// sources.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, text) in files(".rs") {
        let module = match path.strip_prefix("tests/") {
            Some(inside) => inside,
            None => path.strip_prefix("src/").unwrap_or_default(),
        };
        if !module.is_empty() {
            let module = Path::new(module).with_extension("").display().to_string();
            let module = module.trim_end_matches("/mod").trim_end_matches("/main");
            found.extend(tests_in(&text, &module.replace('/', "::")));
        }
    }
    found
}

/// The tests of one file.
fn tests_in(text: &str, module: &str) -> Vec<String> {
    let (mut found, mut inner, mut marked): (Vec<String>, Vec<(usize, &str)>, bool) = (Vec::new(), Vec::new(), false);
    for line in text.lines() {
        let code = line.trim_start();
        let depth = line.len() - code.len();
        if let Some(name) = code.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(" {")) {
            inner.push((depth, name));
        } else if code == "}" && inner.last().is_some_and(|(outer, _)| *outer == depth) {
            inner.pop();
        } else if code.starts_with("#[test]") || code.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some(rest) = code.trim_start_matches("async ").strip_prefix("fn ") {
            let name = rest.split('(').next().unwrap_or_default();
            let path = [module].into_iter().chain(inner.iter().map(|(_, name)| *name));
            if std::mem::take(&mut marked) {
                found.push(path.chain([name]).collect::<Vec<_>>().join("::"));
            }
        }
    }
    found
}

#[test]
fn every_row_has_a_state_and_names_tests_that_exist() {
    let (tests, mut wrong) = (tests(), Vec::new());
    for row in rows() {
        let mut complain = |what: String| wrong.push(format!("line {}, {}: {what}", row.line, row.item));
        if !STATES.contains(&row.state.as_str()) {
            complain(format!("{:?} is no state", row.state));
        }
        if row.test == "-" {
            if row.state != "not yet" {
                complain("no test".to_owned());
            }
            continue;
        }
        for name in row.test.split(", ") {
            match name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) {
                Some(name) if tests.contains(name) => {}
                _ => complain(format!("there is no test {name}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tests_are_found_where_they_are() {
    let text = "mod tests {\n    mod deep {\n        #[test]\n        #[ignore]\n        fn a() {\n        }\n    }\n\
                \x20   #[tokio::test(start_paused = true)]\n    async fn b() {}\n    fn no() {}\n}\n#[test]\nfn c() {}\n";
    assert_eq!(
        tests_in(text, "x::y"),
        ["x::y::tests::deep::a", "x::y::tests::b", "x::y::c"]
    );
    let found = tests();
    for name in [
        "it::docs::parity::tests_are_found_where_they_are",
        "tsdb::scan::tests::the_real_block_is_read",
        "ops::probe::tests::starts_neither_ready_nor_healthy",
    ] {
        assert!(found.contains(name), "{name}");
    }
}

/// The names of metrics in a text: all words that begin so, `*` at the end of one included.
fn metrics(text: &str) -> BTreeSet<String> {
    let part = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '*' | '-' | ':');
    text.split(|char| !part(char))
        .filter(|word| word.starts_with("narthex_") || word.starts_with("thanos_"))
        .map(str::to_owned)
        .collect()
}

/// The page of metrics that the program serves.
pub(super) async fn metrics_page() -> String {
    let stage = Stage::start(&[]).await;
    // This family is only there when it has something to tell.
    seal(&sound(0), stage.dir(), |dir| {
        fs::remove_file(dir.join("index")).unwrap()
    });
    stage
        .wait_for_metric("narthex_quarantined_blocks", &[("reason", "index")], |count| {
            count == 1.0
        })
        .await;
    let url = format!("{}/metrics", stage.sidecar.url());
    let page = async || {
        let (_, page) = http::get(&url).await?;
        Some(String::from_utf8(page.to_vec()).unwrap())
    };
    stage.sidecar.wait_until(PATIENCE, "metrics", page).await
}

/// What the program serves: families by name, with the names of their lines.
async fn served() -> BTreeMap<String, BTreeSet<String>> {
    let page = metrics_page().await;
    let (mut families, mut family): (BTreeMap<String, BTreeSet<String>>, String) = (BTreeMap::new(), String::new());
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            families.entry(family.clone()).or_default().insert(family.clone());
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap().to_owned();
            families.entry(family.clone()).or_default().insert(name);
        }
    }
    families
}

fn is_of(name: &str, names: &BTreeSet<String>) -> bool {
    match name.strip_suffix('*').or_else(|| name.ends_with('_').then_some(name)) {
        Some(start) => names.iter().any(|name| name.starts_with(start)),
        None => names.contains(name),
    }
}

#[tokio::test]
async fn metrics_that_are_named_are_served_and_those_that_are_served_have_a_row() {
    let families = served().await;
    let all: BTreeSet<String> = families.values().flatten().cloned().collect();
    let (mut in_rows, mut not_yet) = (BTreeSet::new(), BTreeSet::new());
    for row in rows() {
        let names = row
            .item
            .split(|char: char| !(char.is_ascii_alphanumeric() || matches!(char, '_' | '*')));
        let names: Vec<String> = names.filter(|word| word.contains('_')).map(str::to_owned).collect();
        match row.state.as_str() {
            "not yet" => not_yet.extend(names),
            _ => in_rows.extend(names),
        }
    }
    let mut wrong = Vec::new();
    for (path, text) in pages_and_manifests() {
        for name in metrics(&text) {
            if is_of(&name, &all) == not_yet.contains(&name) {
                wrong.push(format!("{path}: {name} is not served, or is and should not be yet"));
            }
        }
    }
    for family in families.keys() {
        let here = in_rows.contains(family);
        let many = in_rows
            .iter()
            .any(|row| row.strip_suffix('*').is_some_and(|start| family.starts_with(start)));
        if !here && !many {
            wrong.push(format!("{family} is served and has no row in docs/parity.md"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
