//! How long the benches measure.
//!
//! Owns: the settings of criterion that they share, so that all of them together take about a minute.
//! Does not own: what is measured, and inputs.

use criterion::Criterion;
use std::time::Duration;

/// Criterion with these settings, and with what the command line says.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(50)
        // The default, 100,000, takes longer than the measurement.
        .nresamples(10_000)
        .configure_from_args()
}
