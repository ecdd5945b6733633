//! Where a path leads, link by link: what has to be watched to see that it leads elsewhere.
//!
//! Kubernetes shows a changed ConfigMap by renaming one symbolic link, which is in the middle of the path. Pure reading;
//! what changes meanwhile shows as an event of what is watched then.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
};

/// More links than this in one path are a circle, as in the kernel.
const LINKS: usize = 40;

/// What a path depends on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trail {
    /// Each link, and what is at the end or is missing there.
    pub(super) names: BTreeSet<PathBuf>,
    /// What it leads to, without links; `None` if there is nothing.
    pub(super) end: Option<PathBuf>,
}

enum Step {
    Root,
    Up,
    Into(OsString),
}

/// Follows `path` to its end.
///
/// # Errors
/// A directory that may not be searched, a circle of links.
pub(super) fn follow(path: &Path) -> io::Result<Trail> {
    let mut left = steps(&std::path::absolute(path)?);
    let mut at = PathBuf::from("/");
    let (mut trail, mut links) = (Trail::default(), 0);
    while let Some(step) = left.pop() {
        let name = match step {
            Step::Root => {
                at = PathBuf::from("/");
                continue;
            }
            Step::Up => {
                at.pop();
                continue;
            }
            Step::Into(name) => name,
        };
        let next = at.join(name);
        match fs_err::symlink_metadata(&next) {
            Ok(found) if found.is_symlink() => {
                links += 1;
                if links > LINKS {
                    let text = format!("{}: more than {LINKS} symbolic links, or a circle", path.display());
                    return Err(io::Error::other(text));
                }
                left.extend(steps(&fs_err::read_link(&next)?));
                trail.names.insert(next);
            }
            Ok(_) => at = next,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                trail.names.insert(next);
                return Ok(trail);
            }
            Err(error) => return Err(error),
        }
    }
    trail.names.insert(at.clone());
    trail.end = Some(at);
    Ok(trail)
}

/// The steps of a path, the last one first.
fn steps(path: &Path) -> Vec<Step> {
    let steps = path.components().filter_map(|component| match component {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Into(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    });
    let mut steps: Vec<Step> = steps.collect();
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use fs_err as fs;

    use super::*;

    fn names(dir: &Path, names: &[&str]) -> BTreeSet<PathBuf> {
        names.iter().map(|name| dir.join(name)).collect()
    }

    #[test]
    fn a_mounted_config_map_depends_on_its_link_in_the_middle() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(dir.join("..2026_08_22")).unwrap();
        fs::write(dir.join("..2026_08_22/a.yml"), "a").unwrap();
        symlink("..2026_08_22", dir.join("..data")).unwrap();
        symlink("..data/a.yml", dir.join("a.yml")).unwrap();
        let trail = follow(&dir.join("a.yml")).unwrap();
        assert_eq!(trail.names, names(&dir, &["a.yml", "..data", "..2026_08_22/a.yml"]));
        assert_eq!(trail.end, Some(dir.join("..2026_08_22/a.yml")));
    }

    #[test]
    fn what_is_missing_is_named_and_circles_end() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        symlink("b/../c", dir.join("a")).unwrap();
        let trail = follow(&dir.join("a")).unwrap();
        assert_eq!((trail.names, trail.end), (names(&dir, &["a", "b"]), None));
        fs::create_dir(dir.join("b")).unwrap();
        let trail = follow(&dir.join("a")).unwrap();
        assert_eq!((trail.names, trail.end), (names(&dir, &["a", "c"]), None));
        fs::write(dir.join("c"), "").unwrap();
        let trail = follow(&dir.join("b/../a")).unwrap();
        assert_eq!(
            (trail.names, trail.end),
            (names(&dir, &["a", "c"]), Some(dir.join("c")))
        );
        let trail = follow(&dir.join("c/d")).unwrap();
        assert_eq!((trail.names, trail.end), (names(&dir, &["c/d"]), None));
        symlink("e", dir.join("e")).unwrap();
        let error = follow(&dir.join("e")).unwrap_err().to_string();
        assert!(
            error.ends_with("/e: more than 40 symbolic links, or a circle"),
            "{error}"
        );
    }
}
