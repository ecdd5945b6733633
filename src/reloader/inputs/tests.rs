use std::os::unix::fs::symlink;

use fs_err as fs;
use tempfile::TempDir;

use super::*;

/// A directory of rules, and a configuration beside it.
struct Place {
    _dir: TempDir,
    root: PathBuf,
    inputs: Inputs,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    fs::create_dir(root.join("rules")).unwrap();
    fs::write(root.join("in.yml"), "a: $(POD)\n").unwrap();
    let inputs = Inputs {
        config: Some(root.join("in.yml")),
        output: Some(root.join("out.yml")),
        rule_dirs: vec![root.join("rules")],
    };
    Place {
        _dir: dir,
        root,
        inputs,
    }
}

impl Place {
    /// Looks, and writes what is to be written.
    fn look(&self) -> Look {
        let lookup = |name: &str| (name == "POD").then(|| "p-0".to_owned());
        let look = self.inputs.look(lookup, &AtomicBool::new(false));
        if let Ok(Some(config)) = &look.config {
            self.inputs.write(config.rendered.as_deref().unwrap()).unwrap();
        }
        look
    }

    fn rules(&self) -> Fingerprint {
        self.look().rules.unwrap()
    }

    fn rule(&self, name: &str) -> PathBuf {
        self.root.join("rules").join(name)
    }
}

#[test]
fn names_and_content_are_told_apart_and_nothing_else() {
    let place = place();
    let mut seen = vec![place.rules()];
    let mut is_new = |place: &Place| {
        let now = place.rules();
        let new = !seen.contains(&now);
        seen.push(now);
        new
    };
    fs::write(place.rule("a.yml"), "x").unwrap();
    assert!(is_new(&place));
    fs::write(place.rule("a.yml"), "x").unwrap();
    assert!(!is_new(&place), "the same content again");
    fs::write(place.rule("a.yml"), "").unwrap();
    assert!(is_new(&place));
    fs::rename(place.rule("a.yml"), place.rule("b.yml")).unwrap();
    assert!(is_new(&place));
    fs::create_dir_all(place.rule("deep/er")).unwrap();
    assert!(!is_new(&place), "an empty directory");
    fs::write(place.rule("deep/er/a.yml"), "y").unwrap();
    assert!(is_new(&place));
    for name in [".b.yml.swp", ".b.yml.swx", "b.yml~", "..2026_08_22"] {
        fs::write(place.rule(name), "z").unwrap();
        assert!(!is_new(&place), "{name}");
    }
    symlink("nowhere", place.rule("c.yml")).unwrap();
    assert!(is_new(&place));
    symlink(".", place.rule("deep/circle")).unwrap();
    assert!(!is_new(&place), "a circle");
    let outside = place.root.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("d.yml"), "1").unwrap();
    symlink(&outside, place.rule("linked")).unwrap();
    assert!(is_new(&place), "a directory behind a link");
    fs::write(outside.join("d.yml"), "2").unwrap();
    assert!(is_new(&place));
}

#[test]
fn a_swapped_config_map_is_one_change() {
    let place = place();
    let mount = |name: &str, content: &str| {
        fs::create_dir(place.rule(name)).unwrap();
        fs::write(place.rule(name).join("a.yml"), content).unwrap();
        symlink(name, place.rule("..data_tmp")).unwrap();
        fs::rename(place.rule("..data_tmp"), place.rule("..data")).unwrap();
    };
    mount("..2026_01", "one");
    symlink("..data/a.yml", place.rule("a.yml")).unwrap();
    let look = place.look();
    let one = look.rules.unwrap();
    for name in ["a.yml", "..data", "..2026_01/a.yml"] {
        assert!(look.interest.names.contains(&place.rule(name)), "{name}");
    }
    mount("..2026_02", "one");
    assert_eq!(place.rules(), one, "the same content under another name");
    mount("..2026_03", "two");
    assert_ne!(place.rules(), one);
}

#[test]
fn the_configuration_is_written_and_what_is_written_is_no_rule() {
    let mut place = place();
    let first = place.look().config.unwrap().unwrap().fingerprint;
    assert_eq!(fs::read(place.root.join("out.yml")).unwrap(), b"a: p-0\n");
    fs::write(place.root.join("in.yml"), "a: $(NOT_SET)\n").unwrap();
    let error = place.look().config.unwrap_err();
    assert_eq!(error.unset(), 1);
    assert_eq!(fs::read(place.root.join("out.yml")).unwrap(), b"a: p-0\n", "it stays");
    fs::write(place.root.join("in.yml"), "a: b\n").unwrap();
    assert_ne!(place.look().config.unwrap().unwrap().fingerprint, first);
    fs::remove_file(place.root.join("out.yml")).unwrap();
    place.look().config.unwrap();
    assert_eq!(
        fs::read(place.root.join("out.yml")).unwrap(),
        b"a: b\n",
        "it is put back"
    );

    let rules = place.rules();
    place.inputs.output = Some(place.rule("out.yml"));
    assert_eq!(place.rules(), rules);
    assert_eq!(fs::read(place.rule("out.yml")).unwrap(), b"a: b\n");
    fs::write(place.root.join("in.yml"), "a: c\n").unwrap();
    assert_eq!(place.rules(), rules);
}

#[test]
fn what_is_missing_or_another_kind_is_told_and_its_coming_watched() {
    let place = place();
    fs::remove_file(place.root.join("in.yml")).unwrap();
    fs::remove_dir(place.root.join("rules")).unwrap();
    let look = place.look();
    let config = look.config.unwrap_err().to_string();
    assert!(
        config.ends_with("in.yml: there is nothing at this path (--reloader.config-file)"),
        "{config}"
    );
    let rules = look.rules.unwrap_err().to_string();
    assert!(
        rules.ends_with("rules: there is nothing at this path (--reloader.rule-dir)"),
        "{rules}"
    );
    assert_eq!(
        look.interest.names,
        BTreeSet::from([place.root.join("in.yml"), place.root.join("rules")])
    );
    fs::create_dir(place.root.join("in.yml")).unwrap();
    fs::write(place.root.join("rules"), "").unwrap();
    let look = place.look();
    let config = look.config.unwrap_err().to_string();
    assert!(
        config.ends_with("in.yml: this is no file (--reloader.config-file)"),
        "{config}"
    );
    let rules = look.rules.unwrap_err().to_string();
    assert!(
        rules.ends_with("rules: this is no directory (--reloader.rule-dir)"),
        "{rules}"
    );
}

#[test]
fn what_cannot_be_read_among_the_rules_is_told_and_holds_up_nothing() {
    let place = place();
    fs::write(place.rule("a.yml"), "x").unwrap();
    let before = place.rules();
    symlink("loop", place.rule("loop")).unwrap();
    let large = fs::File::create(place.rule("z.yml")).unwrap();
    large.set_len(LARGEST + 1).unwrap();
    let look = place.look();
    let with_both = look.rules.unwrap();
    assert_ne!(with_both, before);
    assert_eq!(look.passed_over.len(), 2, "{:?}", look.passed_over);
    assert!(look.passed_over[0].contains("loop: more than 40 symbolic links"));
    assert!(look.passed_over[1].contains("z.yml: larger than"));
    fs::write(place.rule("a.yml"), "y").unwrap();
    assert_ne!(place.rules(), with_both);
}

#[test]
fn a_look_that_nobody_waits_for_stops() {
    let place = place();
    fs::write(place.rule("a.yml"), "x").unwrap();
    let look = place.inputs.look(|_| None, &AtomicBool::new(true));
    assert!(matches!(look.rules, Err(Problem::Stopped)), "{look:?}");
}

#[test]
fn what_is_read_is_not_overwritten_by_whatever_path_it_is_named() {
    let mut place = place();
    symlink(&place.root, place.root.join("same")).unwrap();
    for output in ["rules/../in.yml", "same/in.yml"] {
        place.inputs.output = Some(place.root.join(output));
        let error = place.look().config.unwrap_err();
        assert!(matches!(error, Problem::Overwrites(_)), "{error}");
        assert_eq!(fs::read(place.root.join("in.yml")).unwrap(), b"a: $(POD)\n");
    }
}
