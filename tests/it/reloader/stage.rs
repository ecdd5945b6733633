//! A Prometheus whose configuration and rules are mounted as Kubernetes mounts them, and a sidecar that follows them.

use std::{cell::Cell, path::PathBuf, time::Duration};

use fs_err as fs;
use serde_json::Value;
use tempfile::TempDir;

use crate::rig::{Leg, Prometheus, Sidecar, Tools, http, prometheus::Options, tools::temp_dir};

/// How long anything may take. It mostly comes within half a second; the rest is for busy machines.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// How a stage begins.
pub(super) struct Start {
    pub(super) leg: Leg,
    /// Further flags of the sidecar.
    pub(super) flags: Vec<String>,
    /// Whether Prometheus may be reloaded by HTTP.
    pub(super) lifecycle: bool,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            leg: Tools::oldest(),
            flags: Vec::new(),
            lifecycle: true,
        }
    }
}

/// A directory as Kubernetes mounts a ConfigMap: `name -> ..data/name`, and `..data -> ..<version>`.
#[derive(Debug)]
pub(super) struct Mount {
    dir: PathBuf,
    name: &'static str,
    versions: Cell<u64>,
}

impl Mount {
    fn new(dir: PathBuf, name: &'static str, content: &str) -> Self {
        fs::create_dir(&dir).unwrap();
        let mount = Self {
            dir,
            name,
            versions: Cell::new(0),
        };
        mount.swap(content);
        fs::os::unix::fs::symlink(format!("..data/{name}"), mount.path()).unwrap();
        mount
    }

    /// The path that is given to programs.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(self.name)
    }

    /// Replaces all by renaming one link, as the kubelet does.
    pub(super) fn swap(&self, content: &str) {
        let version = self.versions.get();
        self.versions.set(version + 1);
        let new = format!("..2026_08_22_{version}");
        fs::create_dir(self.dir.join(&new)).unwrap();
        fs::write(self.dir.join(&new).join(self.name), content).unwrap();
        let link = self.dir.join("..data_tmp");
        fs::os::unix::fs::symlink(&new, &link).unwrap();
        fs::rename(&link, self.dir.join("..data")).unwrap();
        if let Some(old) = version.checked_sub(1) {
            fs::remove_dir_all(self.dir.join(format!("..2026_08_22_{old}"))).unwrap();
        }
    }

    /// Writes into the file as it is.
    pub(super) fn write(&self, content: &str) {
        fs::write(self.path(), content).unwrap();
    }

    /// Renames another file to its name.
    pub(super) fn rename(&self, content: &str) {
        let new = self.dir.join("..data").join("new");
        fs::write(&new, content).unwrap();
        fs::rename(&new, self.dir.join("..data").join(self.name)).unwrap();
    }
}

pub(super) struct Stage {
    pub(super) prometheus: Prometheus,
    pub(super) sidecar: Sidecar,
    pub(super) config: Mount,
    pub(super) rules: Mount,
    rules_dir: PathBuf,
    _dir: TempDir,
}

impl Stage {
    pub(super) async fn start(start: Start) -> Stage {
        let options = Options {
            scrape: false,
            lifecycle: start.lifecycle,
            ..Options::default()
        };
        let prometheus = Prometheus::start(&start.leg, options).await;
        let dir = temp_dir("reloader");
        let rules_dir = dir.path().join("rules");
        let config = Mount::new(
            dir.path().join("config"),
            "prometheus.yml",
            &config("first", &rules_dir),
        );
        let rules = Mount::new(rules_dir.clone(), "rules.yml", &rule("first"));
        let mut args = vec![
            format!("--prometheus.url={}", prometheus.url()),
            format!("--reloader.config-file={}", config.path().display()),
            format!("--reloader.config-envsubst-file={}", prometheus.config_file().display()),
            format!("--reloader.rule-dir={}", rules_dir.display()),
            "--reloader.retry-interval=200ms".to_owned(),
        ];
        // What is found is told by the kernel.
        if !start
            .flags
            .iter()
            .any(|flag| flag.starts_with("--reloader.watch-interval"))
        {
            args.push("--reloader.watch-interval=1h".to_owned());
        }
        args.extend(start.flags);
        let env = vec![("RELOADER_CLUSTER".to_owned(), "from the environment".to_owned())];
        Stage {
            sidecar: Sidecar::start_in(args, env),
            prometheus,
            config,
            rules,
            rules_dir,
            _dir: dir,
        }
    }

    /// The configuration with this label `edit`.
    pub(super) fn config_text(&self, edit: &str) -> String {
        config(edit, &self.rules_dir)
    }

    /// Writes the configuration with this label `edit`.
    pub(super) fn write_config(&self, edit: &str) {
        self.config.write(&self.config_text(edit));
    }

    /// Writes a configuration as it is.
    pub(super) fn write_raw(&self, text: &str) {
        self.config.write(text);
    }

    /// Waits until Prometheus has this external label.
    pub(super) async fn wait_for_label(&self, name: &str, value: &str) {
        let wanted = format!("{name}: {value}");
        let shown = async || {
            let config = self.ask("/api/v1/status/config").await?;
            let yaml = config["data"]["yaml"].as_str()?;
            yaml.lines().any(|line| line.trim() == wanted).then_some(())
        };
        self.sidecar.wait_until(PATIENCE, &wanted, shown).await;
    }

    /// Waits until Prometheus has a rule of this name.
    pub(super) async fn wait_for_rule(&self, name: &str) {
        let shown = async || {
            let rules = self.ask("/api/v1/rules").await?;
            let groups = rules["data"]["groups"].as_array()?;
            let all = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
            all.into_iter()
                .any(|rule| rule["name"] == format!("rule:{name}"))
                .then_some(())
        };
        self.sidecar.wait_until(PATIENCE, format!("rule {name}"), shown).await;
    }

    /// Waits until so many reloads were successful.
    pub(super) async fn wait_for_reloads(&self, count: u64) {
        let reached = async || {
            let metrics = self.sidecar.metrics().await?;
            let value = |name: &str| metrics.value(&format!("thanos_sidecar_reloader_{name}"), &[]);
            (value("reloads_total")? - value("reloads_failed_total")? >= count as f64).then_some(())
        };
        self.sidecar
            .wait_until(PATIENCE, format!("{count} reloads"), reached)
            .await;
    }

    pub(super) async fn wait_for_log(&self, parts: &[&str]) {
        let found = async || {
            let log = self.sidecar.log();
            let line = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            line.map(|_| ())
        };
        self.sidecar
            .wait_until(PATIENCE, format!("{parts:?} in the log"), found)
            .await;
    }

    pub(super) async fn metric(&self, name: &str) -> f64 {
        let name = format!("thanos_sidecar_reloader_{name}");
        self.sidecar.metric(&name).await.unwrap_or_else(|| panic!("no {name}"))
    }

    async fn ask(&self, path: &str) -> Option<Value> {
        let (_, body) = http::get(&format!("{}{path}", self.prometheus.url())).await?;
        serde_json::from_slice(&body).ok()
    }
}

fn config(edit: &str, rules: &std::path::Path) -> String {
    format!(
        "global:\n  external_labels:\n    cluster: $(RELOADER_CLUSTER)\n    edit: {edit}\nrule_files: ['{}/*.yml']\n",
        rules.display()
    )
}

/// A file of rules with one of this name.
pub(super) fn rule(name: &str) -> String {
    format!("groups:\n- name: edits\n  interval: 1h\n  rules:\n  - record: rule:{name}\n    expr: vector(1)\n")
}
