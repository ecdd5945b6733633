//! Whole numbers, as people and Helm spell them.

use super::*;

#[test]
fn a_whole_number_in_any_spelling_is_that_number() {
    let config = |lines: &str| s3(&with(lines)).0;
    assert_eq!(config("part_size: 0").part_size, 16 << 20);
    assert_eq!(config("part_size:").part_size, 16 << 20);
    assert_eq!(config("max_retries: 1").attempts, 1);
    assert_eq!(config("max_retries: -4").attempts, 10);
    assert_eq!(config("part_size: 1.34217728e+08").part_size, 128 << 20);
    assert_eq!(config("part_size: 6.7108864e7").part_size, 64 << 20);
    assert_eq!(config("part_size: '67108864'").part_size, 64 << 20);
    assert_eq!(config("part_size: 0x4000000").part_size, 64 << 20);
    assert_eq!(config("max_retries: 3e0").attempts, 3);
    let http =
        config("http_config: {max_idle_conns: 1e+06, max_idle_conns_per_host: 2.5e1, max_conns_per_host: 7.0}").http;
    assert_eq!(
        (http.max_idle_per_host, http.max_conns_per_host),
        (25, NonZeroUsize::new(7))
    );
}

#[test]
fn what_is_no_whole_number_is_refused_with_its_key_and_the_reason() {
    for (lines, line, key, reason) in [
        ("part_size: 64MB", 5, "config.part_size", "whole number"),
        ("part_size: 5242879", 5, "config.part_size", "5 MiB"),
        ("part_size: 5368709121", 5, "config.part_size", "5 GiB"),
        ("part_size: 1.5e7.0", 5, "config.part_size", "whole number"),
        ("part_size: 67108864.5", 5, "config.part_size", "has a fraction"),
        ("part_size: 1e30", 5, "config.part_size", "at most 64 bits"),
        ("part_size: -1e7", 5, "config.part_size", "5 MiB"),
        ("part_size: true", 5, "config.part_size", "whole number"),
        ("part_size: [1]", 5, "part_size", "not a list"),
        ("max_retries: many", 5, "config.max_retries", "whole number"),
        ("max_retries: 2.5", 5, "config.max_retries", "has a fraction"),
        (
            "http_config:\n  max_idle_conns: 1.5",
            6,
            "config.http_config.max_idle_conns",
            "has a fraction",
        ),
        (
            "http_config: {max_conns_per_host: few}",
            5,
            "config.http_config.max_conns_per_host",
            "whole number",
        ),
    ] {
        fails(&with(lines), line, key, reason);
    }
}
