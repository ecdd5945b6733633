//! The code under `src/pb/` is what `proto/` says: this test generates it anew and compares. `UPDATE=1` writes it
//! instead (`make proto`). Nothing but cargo is needed: the compiler for `.proto` files is a library.

#![allow(clippy::unwrap_used, reason = "a test: what fails is told by the panic")]

use std::{collections::BTreeMap, path::Path};

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// Every file of `proto/` that is compiled; [`every_proto_file_is_compiled`] keeps the list whole.
const FILES: [&str; 10] = [
    "grpc/health.proto",
    "prometheus/remote_read.proto",
    "thanos/exemplars.proto",
    "thanos/info.proto",
    "thanos/metadata.proto",
    "thanos/rules.proto",
    "thanos/status.proto",
    "thanos/store.proto",
    "thanos/targets.proto",
    "thanos/types.proto",
];

/// What reflection answers from: the descriptors of all files and of what they import.
const DESCRIPTORS: &str = "descriptors.bin";

fn proto_dir() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/proto"))
}

fn code_dir() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/pb"))
}

fn compile() -> FileDescriptorSet {
    match protox::compile(FILES, [proto_dir()]) {
        Ok(descriptors) => descriptors,
        Err(error) => panic!("proto/ does not compile: {error:?}"),
    }
}

fn generate(descriptors: FileDescriptorSet) -> BTreeMap<String, String> {
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        // Chunk data stays a slice of the message that it came in.
        .bytes(".")
        // The same message is the same bytes.
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .unwrap();
    rust_files(out.path())
}

fn rust_files(dir: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for entry in fs_err::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name == DESCRIPTORS {
            continue;
        }
        files.insert(name, fs_err::read_to_string(entry.path()).unwrap());
    }
    files
}

/// Without comments and positions, which only the generator reads.
fn descriptors() -> Vec<u8> {
    let mut descriptors = compile();
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    descriptors.encode_to_vec()
}

#[test]
fn descriptors_are_what_proto_says() {
    let (fresh, path) = (descriptors(), code_dir().join(DESCRIPTORS));
    if std::env::var_os("UPDATE").is_some() {
        fs_err::write(&path, &fresh).unwrap();
    }
    assert!(
        fs_err::read(&path).unwrap() == fresh,
        "src/pb/{DESCRIPTORS} is not what proto/ makes; run `make proto`"
    );
}

#[test]
fn generated_code_is_what_proto_says() {
    let fresh = generate(compile());
    if std::env::var_os("UPDATE").is_some() {
        for name in rust_files(code_dir()).keys().filter(|name| !fresh.contains_key(*name)) {
            fs_err::remove_file(code_dir().join(name)).unwrap();
        }
        for (name, text) in &fresh {
            fs_err::write(code_dir().join(name), text).unwrap();
        }
    }
    let kept = rust_files(code_dir());
    assert_eq!(
        kept.keys().collect::<Vec<_>>(),
        fresh.keys().collect::<Vec<_>>(),
        "src/pb/ holds other files than proto/ makes; run `make proto`"
    );
    for (name, text) in &fresh {
        assert!(
            kept[name] == *text,
            "src/pb/{name} is not what proto/ makes; run `make proto`"
        );
    }
}

#[test]
fn every_proto_file_is_compiled() {
    let mut found = Vec::new();
    for package in fs_err::read_dir(proto_dir()).unwrap() {
        let package = package.unwrap();
        for file in fs_err::read_dir(package.path()).unwrap() {
            let package = package.file_name().into_string().unwrap();
            found.push(format!(
                "{package}/{}",
                file.unwrap().file_name().into_string().unwrap()
            ));
        }
    }
    found.sort();
    assert_eq!(found, FILES);
}
