//! Why the files are not passed on to Prometheus.

use std::{collections::BTreeSet, io, path::PathBuf};

/// What is wrong with the files, and what to do about it. Nothing of a file's content is in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// A file or directory cannot be read; the source names it.
    #[error("{0}")]
    Read(io::Error),
    /// The file with variables replaced cannot be written; the source names it.
    #[error("{0}: {hint}", hint = hint(.0))]
    Write(io::Error),
    /// What would be written is what is read.
    #[error("{}: --reloader.config-envsubst-file leads to the file of --reloader.config-file, which it would overwrite: name another file", .0.display())]
    Overwrites(PathBuf),
    /// There is nothing at a path.
    #[error("{}: there is nothing at this path ({flag})", .path.display())]
    Missing {
        /// Which flag named it.
        flag: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// It is no file, or no directory.
    #[error("{}: this is no {wanted} ({flag})", .path.display())]
    Kind {
        /// Which flag named it.
        flag: &'static str,
        /// What it should be.
        wanted: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The configuration is larger than is plausible.
    #[error("{}: larger than {limit} bytes (unpacked): this is no configuration of Prometheus", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A rule directory holds more than is plausible.
    #[error("{}: more than {limit} files and directories (--reloader.rule-dir): name the directories of rules only", .path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// There is nothing in it.
    #[error("{}: the file is empty; it is not passed on, since Prometheus would end all that it does", .0.display())]
    Empty(PathBuf),
    /// It is packed, and Prometheus reads it itself.
    #[error("{}: the file is packed with gzip, which Prometheus does not read: give --reloader.config-envsubst-file, too", .0.display())]
    Packed(PathBuf),
    /// It cannot be unpacked.
    #[error("{}: it begins as gzip does and cannot be unpacked ({cause})", .path.display())]
    Unpack {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Variables are not set.
    #[error("{}: it refers to $({}), which the environment does not have: set each (it may be empty)", .path.display(), list(.names))]
    Unset {
        /// The file.
        path: PathBuf,
        /// Their names.
        names: BTreeSet<String>,
    },
    /// It is no YAML.
    #[error("{}: line {line}, column {column}: this is no YAML ({what})", .path.display())]
    NotYaml {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What is wrong there.
        what: String,
    },
    /// Reading took too long.
    #[error("the files were not read within {0:?}: the file system that they are on does not respond, or is slow")]
    Slow(std::time::Duration),
    /// Rules that Prometheus has loaded cannot be read any more.
    #[error("{0}; nothing is passed on meanwhile, since Prometheus would forget the rules that it has")]
    RulesAway(Box<Problem>),
    /// Nobody waited for the look any more.
    #[error("reading was stopped")]
    Stopped,
    /// Reading did not come to an end.
    #[error(transparent)]
    Lost(#[from] crate::threads::Lost),
}

impl Problem {
    /// How many variables are not set.
    pub(super) fn unset(&self) -> usize {
        match self {
            Self::Unset { names, .. } => names.len(),
            _ => 0,
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ResourceBusy => {
            "something is mounted on the file of --reloader.config-envsubst-file itself, so that it cannot be replaced: mount its \
             directory instead"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space for --reloader.config-envsubst-file",
        _ => "see that the directory of --reloader.config-envsubst-file exists and may be written to",
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join("), $(")
}
