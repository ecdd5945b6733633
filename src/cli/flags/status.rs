//! The flags of `narthex status`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use url::Url;

use super::{Common, ResultFormat};
use crate::cli::{
    content::{ContentError, content},
    value::{self, InlineYaml},
};

/// The flags of `narthex status`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Status {
    /// Where the sidecar serves HTTP (its --http-address); a path prefix is kept
    #[arg(
        long = "url", value_name = "url", value_parser = value::url, default_value = "http://localhost:10902",
        help_heading = "Sidecar"
    )]
    pub url: Url,

    /// Passwords, TLS and proxy for talking to the sidecar, as YAML
    ///
    /// With the keys of --prometheus.http-client. Environment variables in it are not replaced.
    #[arg(
        long = "http-client", value_name = "yaml", value_parser = value::inline_yaml, default_value = "",
        hide_default_value = true, help_heading = "Sidecar"
    )]
    pub http_client: InlineYaml,

    /// File with passwords, TLS and proxy for talking to the sidecar
    #[arg(
        long = "http-client-file", value_name = "file", value_parser = value::path_parser(), help_heading = "Sidecar"
    )]
    pub http_client_file: Option<PathBuf>,

    /// Give up after this time
    #[arg(
        long = "timeout", value_name = "duration", value_parser = value::go_duration, default_value = "10s",
        help_heading = "Sidecar"
    )]
    pub timeout: Duration,

    /// How the result is printed.
    #[command(flatten)]
    pub result: ResultFormat,

    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
}

impl Status {
    /// The YAML of `--http-client` or its file, empty if neither is given; variables are not replaced.
    pub fn http_client_yaml(&self) -> Result<String, ContentError> {
        content(
            "http-client",
            self.http_client.as_str(),
            self.http_client_file.as_deref(),
            None,
        )
    }
}
