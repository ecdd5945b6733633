//! The files that Prometheus loads, as they are now: one fingerprint of the configuration and one of the rules, and what
//! has to be watched to see them change.
//!
//! What is told apart is content and names, not times: a file that is touched, or written anew with the same content, is
//! no change. Names that begin with `..` are passed over: they are Kubernetes' own, and what is in them is reached by
//! links. So are the files that editors leave beside the one that they write.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsStr,
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::fs::Access;
use sha2::{Digest as _, Sha256};

use super::{
    Settings, output,
    problem::Problem,
    render::{self, LARGEST},
    trail,
};

const CONFIG_FLAG: &str = "--reloader.config-file";
const RULES_FLAG: &str = "--reloader.rule-dir";

/// More files and directories than this in one rule directory are a mistake.
const MOST_ENTRIES: usize = 100_000;

/// So many of those that are passed over are named.
const MOST_TOLD: usize = 3;

/// Directories within directories, at most.
const DEEPEST: usize = 32;

/// What is read of a file at once, in bytes.
const PIECE: usize = 64 << 10;

/// Tells two states of files apart.
pub(super) type Fingerprint = [u8; 32];

/// Looks up a variable of the environment.
pub type Variables = fn(&str) -> Option<String>;

/// The files to follow.
#[derive(Clone, Debug, Default)]
pub(super) struct Inputs {
    /// The configuration.
    pub(super) config: Option<PathBuf>,
    /// Where it is written with variables replaced; without it Prometheus reads the configuration itself.
    pub(super) output: Option<PathBuf>,
    /// Directories of rules.
    pub(super) rule_dirs: Vec<PathBuf>,
}

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// Names whose change matters.
    pub(super) names: BTreeSet<PathBuf>,
    /// Directories in which each change matters.
    pub(super) dirs: BTreeSet<PathBuf>,
    /// Files to be watched themselves: what is mounted on a name changes without an event in the name's directory.
    pub(super) files: BTreeSet<PathBuf>,
    /// What we write ourselves: its changes are none.
    pub(super) ours: BTreeSet<PathBuf>,
}

/// What one look has shown.
#[derive(Debug)]
pub(super) struct Look {
    /// What to watch from now on.
    pub(super) interest: Interest,
    /// The configuration; `None` if there is none to follow.
    pub(super) config: Result<Option<Config>, Problem>,
    /// The rules.
    pub(super) rules: Result<Fingerprint, Problem>,
    /// What in the rule directories could not be read and was passed over, each with its reason; the first few.
    pub(super) passed_over: Vec<String>,
}

/// A configuration that Prometheus may have.
#[derive(Debug)]
pub(super) struct Config {
    /// Of the file as it is.
    pub(super) fingerprint: Fingerprint,
    /// With its variables replaced, if it is to be written.
    pub(super) rendered: Option<Vec<u8>>,
}

impl Inputs {
    /// Those that `settings` name.
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            config: settings.config_file.clone(),
            output: settings.output_file.clone().filter(|_| settings.config_file.is_some()),
            rule_dirs: settings.rule_dirs.clone(),
        }
    }

    /// Why what a look has rendered could not be written, as far as that can be seen without writing.
    pub(super) fn unwritable(&self) -> Option<Problem> {
        let dir = self.output.as_deref()?.parent()?;
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        let allowed = rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK);
        let problem = |error| io::Error::new(io::Error::from(error).kind(), format!("{}: {error}", dir.display()));
        allowed.err().map(|error| Problem::Write(problem(error)))
    }

    /// Whether there is nothing to follow.
    pub(super) fn is_empty(&self) -> bool {
        self.config.is_none() && self.rule_dirs.is_empty()
    }

    /// Reads all files; of the rules no more once `stop` is set.
    pub(super) fn look(&self, lookup: Variables, stop: &AtomicBool) -> Look {
        let mut interest = Interest::default();
        if let Some(written) = &self.output {
            interest.ours = ours(written);
        }
        let config = self
            .config
            .as_deref()
            .map(|path| self.config(path, lookup, &mut interest));
        let mut passed_over = Vec::new();
        let rules = self.rules(&mut interest, &mut passed_over, stop);
        Look {
            config: config.transpose(),
            rules,
            interest,
            passed_over,
        }
    }

    /// Writes what a look has rendered.
    pub(super) fn write(&self, rendered: &[u8]) -> Result<(), Problem> {
        let to = self.output.as_deref().map(|to| output::write(to, rendered));
        to.transpose().map(|_| ()).map_err(Problem::Write)
    }

    fn config(&self, path: &Path, lookup: Variables, interest: &mut Interest) -> Result<Config, Problem> {
        let found = found(CONFIG_FLAG, path, interest)?;
        if !fs_err::metadata(&found).map_err(Problem::Read)?.is_file() {
            return Err(Problem::Kind {
                flag: CONFIG_FLAG,
                wanted: "file",
                path: path.to_owned(),
            });
        }
        if interest.ours.contains(&found) {
            return Err(Problem::Overwrites(found));
        }
        interest.files.insert(found);
        let raw = render::read_limited(path).map_err(Problem::Read)?;
        if raw.len() as u64 > LARGEST {
            return Err(Problem::TooLarge {
                path: path.to_owned(),
                limit: LARGEST,
            });
        }
        let rendered = match &self.output {
            None => {
                render::check_plain(path, &raw)?;
                None
            }
            Some(_) => Some(render::rendered(path, &raw, lookup)?),
        };
        Ok(Config {
            fingerprint: Sha256::digest(&raw).into(),
            rendered,
        })
    }

    fn rules(
        &self,
        interest: &mut Interest,
        passed_over: &mut Vec<String>,
        stop: &AtomicBool,
    ) -> Result<Fingerprint, Problem> {
        let mut all = Sha256::new();
        for dir in &self.rule_dirs {
            let found = found(RULES_FLAG, dir, interest)?;
            if !fs_err::metadata(&found).map_err(Problem::Read)?.is_dir() {
                return Err(Problem::Kind {
                    flag: RULES_FLAG,
                    wanted: "directory",
                    path: dir.clone(),
                });
            }
            let mut walk = Walk {
                all: &mut all,
                interest,
                passed_over,
                stop,
                entered: HashSet::new(),
                entries: 0,
            };
            walk.enter(&found, Path::new(""), 0).map_err(Problem::Read)?;
            if stop.load(Ordering::Relaxed) {
                return Err(Problem::Stopped);
            }
            if walk.entries > MOST_ENTRIES {
                return Err(Problem::TooMany {
                    path: dir.clone(),
                    limit: MOST_ENTRIES,
                });
            }
            // The next one is another directory, also where it holds the same.
            all.update([0xff]);
        }
        Ok(all.finalize().into())
    }
}

/// The names of what is written to `path`: as it is given, and where links in its directory lead.
fn ours(path: &Path) -> BTreeSet<PathBuf> {
    let dir = path.parent().and_then(|dir| fs_err::canonicalize(dir).ok());
    let real = dir.zip(path.file_name()).map(|(dir, name)| dir.join(name));
    let names = [Some(path.to_owned()), real];
    let both = |name: PathBuf| [output::temporary(&name), name];
    names.into_iter().flatten().flat_map(both).collect()
}

/// What `path` leads to.
fn found(flag: &'static str, path: &Path, interest: &mut Interest) -> Result<PathBuf, Problem> {
    let trail = trail::follow(path).map_err(Problem::Read)?;
    interest.names.extend(trail.names);
    trail.end.ok_or(Problem::Missing {
        flag,
        path: path.to_owned(),
    })
}

/// A walk through one rule directory.
struct Walk<'a> {
    all: &'a mut Sha256,
    interest: &'a mut Interest,
    passed_over: &'a mut Vec<String>,
    stop: &'a AtomicBool,
    /// Directories by device and inode: each is entered once, also where links make a circle.
    entered: HashSet<(u64, u64)>,
    entries: usize,
}

impl Walk<'_> {
    /// Takes in the directory at `real`, a path without links; `shown` is its path within the rule directory. What is in it
    /// and cannot be read holds up nothing else: its name counts, with the reason as its content.
    fn enter(&mut self, real: &Path, shown: &Path, depth: usize) -> io::Result<()> {
        let identity = fs_err::metadata(real)?;
        if depth > DEEPEST || !self.entered.insert((identity.dev(), identity.ino())) {
            return Ok(());
        }
        self.interest.dirs.insert(real.to_owned());
        let mut names = Vec::new();
        for entry in fs_err::read_dir(real)? {
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                return Ok(());
            }
            names.push(entry?.file_name());
        }
        names.sort_unstable();
        for name in names.iter().filter(|name| !is_passed_over(name)) {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let shown = shown.join(name);
            if let Err(error) = self.take(&real.join(name), &shown, depth) {
                let why = error.to_string();
                self.add(&shown, why.as_bytes());
                if self.passed_over.len() < MOST_TOLD {
                    self.passed_over.push(why);
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &Path, shown: &Path, depth: usize) -> io::Result<()> {
        // What we write ourselves is no rule.
        if self.interest.ours.contains(path) {
            return Ok(());
        }
        let trail = trail::follow(path)?;
        let links = trail.names.len() > 1;
        if links {
            self.interest.names.extend(trail.names);
        }
        // What went away meanwhile shows as an event; a link that leads nowhere is a name without content.
        let Some(end) = trail.end else {
            self.add(shown, &[]);
            return Ok(());
        };
        let found = match fs_err::metadata(&end) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        if found.is_dir() {
            return self.enter(&end, shown, depth + 1);
        }
        if !found.is_file() {
            return Ok(());
        }
        if found.len() > LARGEST {
            let text = format!("{}: larger than {LARGEST} bytes, which no rules are", end.display());
            return Err(io::Error::other(text));
        }
        match content(&end, self.stop) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(content) => self.add(shown, &content),
        }
        Ok(())
    }

    fn add(&mut self, shown: &Path, content: &[u8]) {
        self.all.update(shown.as_os_str().as_bytes());
        self.all.update([0]);
        self.all.update(content);
    }
}

/// Whether a name is none of a rule file.
fn is_passed_over(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let swap = |end: &[u8]| name.starts_with(b".") && name.ends_with(end);
    name.starts_with(b"..") || name.ends_with(b"~") || swap(b".swp") || swap(b".swx")
}

/// The fingerprint of a file's content, of as much as rules may have.
fn content(path: &Path, stop: &AtomicBool) -> io::Result<Fingerprint> {
    let mut file = fs_err::File::open(path)?.take(LARGEST);
    let (mut digest, mut piece) = (Sha256::new(), vec![0; PIECE]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(digest.finalize().into()),
            _ if stop.load(Ordering::Relaxed) => return Err(io::Error::other("stopped")),
            read => digest.update(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests;
