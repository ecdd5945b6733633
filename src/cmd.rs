//! One file per subcommand: flags -> configuration (everything checked) -> build (ports bound, addresses known) -> run.

pub mod sidecar;

use crate::{
    cli::{Common, LogFormat, LogLevel},
    ops::telemetry::{self, Format, InitError, Level},
};

/// Sets up the log as the flags say.
///
/// # Errors
/// When there is no journal to write to.
pub fn init_log(flags: &Common) -> Result<(), InitError> {
    let level = match flags.log_level {
        LogLevel::Error => Level::Error,
        LogLevel::Warn => Level::Warn,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
    };
    let format = match flags.log_format {
        LogFormat::Logfmt => Format::Logfmt,
        LogFormat::Json => Format::Json,
        LogFormat::Journald => Format::Journald,
    };
    telemetry::init(level, format, Some(&flags.debug_name))
}
