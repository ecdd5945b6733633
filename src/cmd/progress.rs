//! placeholder
#[derive(Debug)]
pub(super) struct Progress;
impl Progress {
    pub(super) fn start(
        _total: impl Fn() -> u64 + Send + 'static,
        _counter: impl Fn() -> u64 + Send + 'static,
        _what: &'static str,
    ) -> Self {
        Self
    }
}
