//! What a real Prometheus does not show on demand: old versions, odd answers, refusals, answers without an end.
