//! The inputs that the fuzzer has found worth keeping, each given to its target again.

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use fs_err as fs;

/// The most bytes that all inputs may have: they are in the repository.
const MOST: u64 = 1 << 20;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// What is in a directory.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The names of what is in a directory, without their extensions.
fn names(dir: &Path) -> BTreeSet<String> {
    let names = entries(dir)
        .into_iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    names.collect()
}

#[test]
fn every_kept_input_of_every_target_still_passes() {
    let (mut failed, mut bytes) = (Vec::new(), 0);
    for (name, target) in targets::ALL {
        let corpus = entries(&fuzz().join("corpus").join(name));
        assert!(!corpus.is_empty(), "{name} has no inputs: see fuzz/README.md");
        for path in corpus {
            let input = fs::read(&path).unwrap();
            bytes += input.len() as u64;
            if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "these inputs fail: {failed:#?}");
    assert!(bytes < MOST, "{bytes} bytes of inputs: see fuzz/README.md");
}

#[test]
fn every_target_has_its_program_and_its_inputs() {
    let known: BTreeSet<String> = targets::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz().join("fuzz_targets")), known);
    assert_eq!(names(&fuzz().join("corpus")), known);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in known {
        let program = format!("fuzz_targets/{name}.rs");
        let text = fs::read_to_string(fuzz().join(&program)).unwrap();
        assert!(text.contains(&format!("targets::{name}(data)")), "{program}: {text}");
        let bin = format!("name = \"{name}\"\npath = \"{program}\"\n");
        assert!(manifest.contains(&bin), "fuzz/Cargo.toml lacks {bin}");
    }
}
