//! The flags of the Prometheus that narthex runs beside, or takes external labels from.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use url::Url;

use super::label_set;
use crate::{
    cli::{
        content::{ContentError, content},
        value::{self, InlineYaml},
    },
    model::{Label, Labels},
};

/// How a Prometheus is talked to.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
pub struct PrometheusClient {
    /// Passwords, TLS and proxy for talking to Prometheus, as YAML
    ///
    /// Environment variables in it are not replaced.
    #[arg(
        long = "prometheus.http-client", value_name = "yaml", value_parser = value::inline_yaml, default_value = "",
        hide_default_value = true
    )]
    pub http_client: InlineYaml,

    /// File with passwords, TLS and proxy for talking to Prometheus
    #[arg(long = "prometheus.http-client-file", value_name = "file", value_parser = value::path_parser())]
    pub http_client_file: Option<PathBuf>,
}

impl PrometheusClient {
    /// The YAML of `--prometheus.http-client` or its file, empty if neither is given; variables are not replaced.
    pub fn yaml(&self) -> Result<String, ContentError> {
        content(
            "prometheus.http-client",
            self.http_client.as_str(),
            self.http_client_file.as_deref(),
            None,
        )
    }
}

/// The Prometheus that narthex runs beside.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Prometheus")]
#[group(skip)]
pub struct Prometheus {
    /// Where Prometheus answers; a path prefix is kept
    #[arg(
        long = "prometheus.url", value_name = "url", value_parser = value::url,
        default_value = "http://localhost:9090"
    )]
    pub url: Url,

    /// Log an error if external labels are not known after this time; uploads still start once they are
    #[arg(
        long = "prometheus.ready_timeout", value_name = "duration", value_parser = value::go_duration,
        default_value = "10m"
    )]
    pub ready_timeout: Duration,

    /// How often Prometheus is asked for its labels and flags
    ///
    /// Must be above 0.
    #[arg(
        long = "prometheus.get_config_interval", value_name = "duration", value_parser = value::go_duration,
        default_value = "30s"
    )]
    pub get_config_interval: Duration,

    /// How long all requests of such a round together may take, a second attempt included
    ///
    /// Must be above 0.
    #[arg(
        long = "prometheus.get_config_timeout", value_name = "duration", value_parser = value::go_duration,
        default_value = "30s"
    )]
    pub get_config_timeout: Duration,

    /// How Prometheus is talked to.
    #[command(flatten)]
    pub client: PrometheusClient,

    /// Set this external label over those of Prometheus; may be repeated (narthex' own)
    ///
    /// The value may stand in double quotes. A label set here wins over one of the same name in Prometheus'
    /// configuration.
    #[arg(long = "label", value_name = "name=value", value_parser = value::label)]
    pub label: Vec<Label>,
}

impl Prometheus {
    /// The labels of `--label`, to be laid over those of Prometheus.
    pub fn labels(&self) -> Labels {
        label_set(&self.label)
    }
}
