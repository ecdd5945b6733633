//! Flag pairs `--x` (YAML on the command line) and `--x-file` (YAML in a file), and `$(NAME)` in such YAML.
//!
//! A file is read once, when asked for; nothing is cached or watched.

use std::path::Path;

use crate::model::variables;

/// Looks a variable of the environment up; `None` if it is not set.
pub type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The variables of this process; one that is not UTF-8 counts as not set.
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Why the content of a flag pair cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Both flags of a pair were given.
    #[error("--{flag} and --{flag}-file are both set: give only one of them")]
    Both {
        /// The first flag of the pair.
        flag: String,
    },
    /// The file cannot be read; the source names it.
    #[error("--{flag}-file cannot be read")]
    Read {
        /// The first flag of the pair.
        flag: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A variable is not set.
    #[error(
        "--{flag}{suffix} refers to $({name}), but the environment variable {name} is not set: set it (it may be empty)"
    )]
    Unset {
        /// The first flag of the pair.
        flag: String,
        /// `-file` if the text came from the file.
        suffix: &'static str,
        /// The variable's name.
        name: String,
    },
}

/// A path that is empty names nothing.
pub fn named(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| !path.as_os_str().is_empty())
}

/// The text of a flag pair: `inline` (the value of `--flag`) or what the file of `--flag-file` holds; empty if neither
/// is given. With `env`, each `$(NAME)` is replaced, once: a value that holds `$(OTHER)` is left as it is.
pub fn content(flag: &str, inline: &str, file: Option<&Path>, env: Option<&Env<'_>>) -> Result<String, ContentError> {
    let (text, suffix) = match named(file) {
        Some(_) if !inline.is_empty() => return Err(ContentError::Both { flag: flag.to_owned() }),
        Some(path) => {
            let read = fs_err::read_to_string(path);
            (
                read.map_err(|source| ContentError::Read {
                    flag: flag.to_owned(),
                    source,
                })?,
                "-file",
            )
        }
        None => (inline.to_owned(), ""),
    };
    let Some(env) = env else { return Ok(text) };
    let expanded = variables::expand(text.as_bytes(), env).map_err(|unset| ContentError::Unset {
        flag: flag.to_owned(),
        suffix,
        name: unset.into_iter().next().unwrap_or_default(),
    })?;
    // Texts in a text, between characters of ASCII, make a text.
    Ok(String::from_utf8_lossy(&expanded).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "KEY").then(|| "secret".to_owned())
    }

    #[test]
    fn names_the_variable_that_is_not_set() {
        let message = content("objstore.config", "a: $(NOPE)", None, Some(&env))
            .unwrap_err()
            .to_string();
        assert!(message.contains("--objstore.config refers to $(NOPE)"), "{message}");
    }

    #[test]
    fn without_an_environment_nothing_is_replaced() {
        assert_eq!(content("f", "$(NOPE)", None, None).unwrap(), "$(NOPE)");
    }

    #[test]
    fn takes_the_flag_or_the_file_but_not_both() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bucket.yml");
        fs_err::write(&path, "key: $(KEY)\n").unwrap();
        assert_eq!(content("f", "", Some(&path), Some(&env)).unwrap(), "key: secret\n");
        assert_eq!(content("f", "x", Some(Path::new("")), None).unwrap(), "x");
        assert_eq!(content("f", "", None, None).unwrap(), "");
        let both = content("f", "x", Some(&path), None).unwrap_err().to_string();
        assert!(both.contains("--f and --f-file are both set"), "{both}");
        let missing = content("f", "", Some(&dir.path().join("no.yml")), None).unwrap_err();
        assert_eq!(missing.to_string(), "--f-file cannot be read");
        let source = std::error::Error::source(&missing).unwrap().to_string();
        assert!(source.contains("no.yml"), "{source}");
    }
}
