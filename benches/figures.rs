//! How long is measured, the same for all benchmarks.

use std::time::Duration;

use criterion::Criterion;

/// Settings that give steady figures within a minute.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .without_plots()
        .configure_from_args()
}
