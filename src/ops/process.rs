//! Metrics of the process and its build: `process_*`, `thanos_build_info`, `narthex_build_info`; and the limit of open
//! files.
//!
//! The numbers are read from `/proc/self` for each scrape; one that cannot be read is left out. The `go_*` metrics of
//! Thanos have no meaning here and are not imitated.

use std::{
    fmt::Error,
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};
use rlimit::Resource;

use crate::model::build;

/// Ticks of the clock in `/proc/self/stat` a second: a constant of Linux' interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Raises the soft limit of open files to the hard one, as Go programs do on their own. Returns the new limit.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = Resource::NOFILE.get()?;
    if soft < hard {
        Resource::NOFILE.set(hard, hard)?;
    }
    Ok(hard)
}

/// How many files may be open at once; `None` if that is not known.
pub fn open_files() -> Option<u64> {
    Resource::NOFILE.get_soft().ok()
}

/// Registers the metrics of the process and of its build.
pub fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(Process));
    constant(
        registry,
        "thanos_build_info",
        "Build information with Thanos' labels; always 1",
        &[
            ("branch", build::BRANCH),
            ("goarch", goarch(std::env::consts::ARCH)),
            ("goos", std::env::consts::OS),
            ("goversion", "none"),
            ("revision", build::REVISION),
            ("tags", "none"),
            ("version", build::VERSION),
        ],
    );
    let labels = [
        ("version", build::VERSION),
        ("revision", build::REVISION),
        ("rustc", build::RUSTC),
    ];
    constant(registry, "narthex_build_info", "Build information; always 1", &labels);
}

type Pairs = Vec<(&'static str, &'static str)>;

/// Registers a gauge that is always 1.
fn constant(registry: &mut Registry, name: &str, help: &str, labels: &[(&'static str, &'static str)]) {
    let family = Family::<Pairs, Gauge>::default();
    family.get_or_create(&labels.to_vec()).set(1);
    registry.register(name, help, family);
}

/// Go's name of an architecture, which dashboards may select by.
fn goarch(arch: &'static str) -> &'static str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let stat = fs_err::read_to_string("/proc/self/stat")
            .ok()
            .and_then(|text| Stat::parse(&text));
        if let Some(stat) = &stat {
            let help = "CPU time spent by this process in user and system mode, in seconds.";
            let counter = ConstCounter::new(stat.cpu_seconds);
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?)?;
        }
        let (max_fds, max_memory) = (soft(Resource::NOFILE), soft(Resource::AS));
        let gauges = [
            ("open_fds", "Open file descriptors.", open_fds()),
            ("max_fds", "The limit of open file descriptors.", max_fds),
            (
                "virtual_memory_bytes",
                "Virtual memory, in bytes.",
                stat.as_ref().map(|stat| stat.virtual_bytes),
            ),
            (
                "virtual_memory_max_bytes",
                "The limit of virtual memory, in bytes.",
                max_memory,
            ),
            ("resident_memory_bytes", "Resident memory, in bytes.", resident_bytes()),
            (
                "start_time_seconds",
                "When the process started, in seconds since 1970.",
                stat.as_ref().and_then(|stat| started(stat.started_after_boot)),
            ),
            (
                "threads",
                "Threads of the operating system.",
                stat.as_ref().map(|stat| stat.threads),
            ),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            let name = format!("process_{name}");
            gauge.encode(encoder.encode_descriptor(&name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// The fields of `/proc/self/stat` that are used.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    started_after_boot: f64,
    virtual_bytes: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program comes second and may hold anything, blanks and brackets too; what counts follows it.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            threads: field(20)?,
            started_after_boot: field(22)? / TICKS_PER_SECOND,
            virtual_bytes: field(23)?,
        })
    }
}

/// When a process that was started `after_boot` seconds after the boot was started, in seconds since 1970.
fn started(after_boot: f64) -> Option<f64> {
    let stat = fs_err::read_to_string("/proc/stat").ok()?;
    let boot: f64 = stat
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    // A clock that was set back would make the process start in the future.
    Some((boot + after_boot).min(now))
}

/// From `status`, which counts in KiB: `stat` counts in pages, whose size differs between machines.
fn resident_bytes() -> Option<f64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

fn open_fds() -> Option<f64> {
    let entries = fs_err::read_dir("/proc/self/fd").ok()?;
    // One of them is the directory that is being read.
    Some(entries.count().saturating_sub(1) as f64)
}

/// A soft limit; none at all is the highest number, as in Go's process metrics.
fn soft(resource: Resource) -> Option<f64> {
    resource.get_soft().ok().map(|limit| limit as f64)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn page() -> String {
        let mut registry = Registry::default();
        register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    fn value(page: &str, name: &str) -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    #[test]
    fn tells_what_the_process_uses() {
        let file = tempfile::tempfile().unwrap();
        let page = page();
        drop(file);
        assert!(value(&page, "process_open_fds") >= 4.0);
        assert!(value(&page, "process_max_fds") >= value(&page, "process_open_fds"));
        assert!(value(&page, "process_threads") >= 1.0);
        assert!(value(&page, "process_cpu_seconds_total") >= 0.0);
        assert!(value(&page, "process_resident_memory_bytes") > 1e5);
        assert!(value(&page, "process_virtual_memory_bytes") > value(&page, "process_resident_memory_bytes"));
        assert!(value(&page, "process_virtual_memory_max_bytes") > 1e6);
        let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
            - value(&page, "process_start_time_seconds");
        assert!((0.0..86_400.0).contains(&age), "{age}");
    }

    #[test]
    fn tells_the_build() {
        let page = page();
        let thanos = page
            .lines()
            .find(|line| line.starts_with("thanos_build_info{"))
            .unwrap();
        for label in ["branch", "goarch", "goos", "goversion", "revision", "tags", "version"] {
            assert!(thanos.contains(&format!("{label}=\"")), "{thanos}");
        }
        assert!(
            thanos.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")),
            "{thanos}"
        );
        assert!(page.contains("narthex_build_info{version=\""));
        assert_eq!(
            (goarch("x86_64"), goarch("aarch64"), goarch("riscv64")),
            ("amd64", "arm64", "riscv64")
        );
    }

    #[test]
    fn a_program_named_to_mislead_is_read_right() {
        let text =
            "7 (a) b (c 1) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 12345 1048576 77 18446744073709551615";
        let wanted = Stat {
            cpu_seconds: 3.0,
            threads: 9.0,
            started_after_boot: 123.45,
            virtual_bytes: 1_048_576.0,
        };
        assert_eq!(Stat::parse(text), Some(wanted));
        assert_eq!(Stat::parse("7 (x) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn the_limit_of_open_files_ends_at_the_hard_one() {
        let raised = raise_open_files().unwrap();
        assert_eq!(Resource::NOFILE.get().unwrap(), (raised, raised));
    }
}
