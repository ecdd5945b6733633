//! Rewritten blocks as a real promtool reads them, which knows none of the newer encodings: they hold what the same samples
//! hold that Prometheus' own code wrote with the old ones (`testdata/rewrite`).

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::AtomicBool,
};

use fs_err as fs;
use narthex::tsdb::{
    Pinned,
    rewrite::{self, Options, OutFile, Output},
    scan,
};

use crate::rig::{
    Leg, Tools,
    tools::{target_dir, temp_dir},
};

/// Puts the files into the directory of a block.
struct Dir(PathBuf);

impl Output for Dir {
    fn write(&mut self, file: OutFile, bytes: &[u8]) -> io::Result<()> {
        let path = self.0.join(file.rel_path());
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(bytes)
    }

    fn finish(&mut self, _: OutFile) -> io::Result<()> {
        Ok(())
    }
}

/// A data directory with a copy of the block in `source`, and the copy.
fn place(source: &Path) -> (tempfile::TempDir, PathBuf) {
    let meta: serde_json::Value = serde_json::from_slice(&fs::read(source.join("meta.json")).unwrap()).unwrap();
    let data = temp_dir("rewritten");
    let block = data.path().join(meta["ulid"].as_str().unwrap());
    fs::create_dir_all(block.join("chunks")).unwrap();
    for segment in fs::read_dir(source.join("chunks")).unwrap() {
        let segment = segment.unwrap();
        fs::copy(segment.path(), block.join("chunks").join(segment.file_name())).unwrap();
    }
    for name in ["index", "meta.json"] {
        fs::copy(source.join(name), block.join(name)).unwrap();
    }
    (data, block)
}

/// A data directory with the rewritten block of another one.
fn rewrite(data: &Path, segment_limit: u64) -> tempfile::TempDir {
    let source = scan(data).unwrap().blocks.remove(0);
    let out = temp_dir("rewritten");
    let dir = out.path().join(source.id.to_string());
    fs::create_dir_all(dir.join("chunks")).unwrap();
    fs::copy(source.dir.join("meta.json"), dir.join("meta.json")).unwrap();
    let options = Options {
        segment_limit,
        sha256: false,
        stop: &AtomicBool::new(false),
    };
    rewrite::block(&Pinned::open(&source).unwrap(), &options, &mut Dir(dir)).unwrap();
    out
}

/// What promtool says, which must end well.
fn promtool(leg: &Leg, arguments: &[&str], data: &Path) -> String {
    // Without a WAL there is no dump.
    fs::create_dir_all(data.join("wal")).unwrap();
    let done = Command::new(&leg.promtool)
        .args(["tsdb"])
        .args(arguments)
        .arg(data)
        .current_dir(target_dir())
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn promtool_reads_rewritten_blocks_as_those_that_had_the_old_encodings() {
    let leg = Tools::newest();
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/rewrite");
    for name in ["floats", "histograms", "labels", "segments"] {
        let (source, _) = place(&testdata.join(name).join("source"));
        let (plain, _) = place(&testdata.join(name).join("plain"));
        let expected = promtool(&leg, &["dump"], plain.path());
        assert!(expected.lines().count() > 100, "{name}: {expected}");
        for segment_limit in [0, 5000, rewrite::SEGMENT_LIMIT] {
            let ours = rewrite(source.path(), segment_limit);
            assert!(
                promtool(&leg, &["dump"], ours.path()) == expected,
                "{name}, {segment_limit}"
            );
            let analysis = promtool(&leg, &["analyze"], ours.path());
            assert!(analysis.contains("Total Series: "), "{analysis}");
        }
    }
}

/// Blocks of promtool 2.42 have label indices and a table of them, those of later ones have none.
#[test]
fn a_block_of_any_promtool_is_rewritten_as_it_is() {
    let legs = Tools::find().legs;
    let newest = legs.last().unwrap();
    for leg in &legs {
        let dir = temp_dir("rewritten");
        let text = dir.path().join("text");
        let lines: String = (0..2000)
            .map(|i| {
                format!(
                    "metric{{n=\"{}\",m=\"{}\"}} {} {}\n",
                    i % 100,
                    i % 7,
                    i * i,
                    1_767_225_600 + i
                )
            })
            .collect();
        fs::write(&text, format!("# TYPE metric gauge\n{lines}# EOF\n")).unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        let text = text.to_str().unwrap();
        promtool(leg, &["create-blocks-from", "openmetrics", "-q", text], &data);
        let block = scan(&data).unwrap().blocks.remove(0);
        let same = rewrite(&data, rewrite::SEGMENT_LIMIT);
        for file in Pinned::open(&block).unwrap().files {
            let ours = fs::read(same.path().join(block.id.to_string()).join(&file.rel_path)).unwrap();
            assert!(
                ours == fs::read(&file.path).unwrap(),
                "{}: {}",
                leg.version,
                file.rel_path
            );
        }
        // In a segment of its own each chunk has another reference, and series and lists move.
        let apart = rewrite(&data, 0);
        let expected = promtool(newest, &["dump"], &data);
        assert_eq!(expected.lines().count(), 2000);
        assert_eq!(promtool(newest, &["dump"], apart.path()), expected, "{}", leg.version);
    }
}
