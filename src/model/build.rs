//! What this program was built of; `unknown` for what the build was not given.

/// Its version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit (`NARTHEX_REVISION`).
pub const REVISION: &str = given(option_env!("NARTHEX_REVISION"));
/// The branch (`NARTHEX_BRANCH`).
pub const BRANCH: &str = given(option_env!("NARTHEX_BRANCH"));
/// The compiler (`NARTHEX_RUSTC`).
pub const RUSTC: &str = given(option_env!("NARTHEX_RUSTC"));

const fn given(value: Option<&'static str>) -> &'static str {
    match value {
        Some(value) => value,
        None => "unknown",
    }
}
