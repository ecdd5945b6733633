//! The flags that every command has: logging, tracing and the process.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{
    content::{ContentError, Env, content},
    value::{self, InlineYaml, LogFormat, LogLevel},
};

/// Flags that every command has.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Logging and process")]
#[group(skip)]
pub struct Common {
    /// Write log lines of this level and above
    #[arg(long = "log.level", value_name = "level", default_value = "info")]
    pub log_level: LogLevel,

    /// How log lines are written
    ///
    /// logfmt and json go to stderr, journald to systemd's journal.
    #[arg(long = "log.format", value_name = "format", default_value = "logfmt")]
    pub log_format: LogFormat,

    /// Add this name to every log line
    #[arg(
        long = "debug.name",
        value_name = "name",
        default_value = "",
        hide_default_value = true,
        hide = true
    )]
    pub debug_name: String,

    /// Where spans of calls and blocks are sent, as YAML; without it there are none
    ///
    /// Type OTLP, with the keys that Thanos has. $(NAME) is replaced by the environment variable NAME, which must be set.
    #[arg(
        long = "tracing.config", value_name = "yaml", value_parser = value::inline_yaml, default_value = "",
        hide_default_value = true
    )]
    pub tracing_config: InlineYaml,

    /// File that says where spans of calls and blocks are sent; without one there are none
    ///
    /// Type OTLP, with the keys that Thanos has. $(NAME) is replaced by the environment variable NAME, which must be set.
    #[arg(long = "tracing.config-file", value_name = "file", value_parser = value::path_parser())]
    pub tracing_config_file: Option<PathBuf>,

    /// Accepted and without effect: there is no Go runtime to tune
    #[arg(long = "enable-auto-gomemlimit")]
    pub enable_auto_gomemlimit: bool,

    /// Checked and without effect; above 0, at most 1
    #[arg(
        long = "auto-gomemlimit.ratio", value_name = "ratio", value_parser = value::float, default_value = "0.9"
    )]
    pub auto_gomemlimit_ratio: f64,
}

impl Common {
    /// The YAML of `--tracing.config` or its file with `$(NAME)` replaced, empty if neither is given.
    pub fn tracing(&self, env: &Env<'_>) -> Result<String, ContentError> {
        content(
            "tracing.config",
            self.tracing_config.as_str(),
            self.tracing_config_file.as_deref(),
            Some(env),
        )
    }
}
