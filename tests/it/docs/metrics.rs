//! `docs/metrics.md`: the table of metrics is what the program serves, with its own help texts.

use std::collections::BTreeMap;

use super::parity::metrics_page;
use crate::cli::docs::between_markers;

/// One family.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
}

/// The families of a page in the text format, by the names of their lines.
fn families(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        }
    }
    families
}

/// A table of the families whose names are `ours`, or of the others.
fn table(families: &BTreeMap<String, Family>, ours: bool) -> String {
    let mut table = "| Metric | Type | Meaning |\n|---|---|---|\n".to_owned();
    for (name, Family { kind, help }) in families {
        if name.starts_with("narthex_") == ours {
            let help = help.trim_end_matches('.').replace('|', "\\|");
            table.push_str(&format!("| `{name}` | {kind} | {help} |\n"));
        }
    }
    table
}

#[tokio::test]
async fn the_page_of_metrics_is_made_from_what_is_served() {
    let families = families(&metrics_page().await);
    assert!(families.len() > 90, "only {:?}", families.keys());
    for (name, family) in &families {
        assert!(!family.kind.is_empty() && !family.help.is_empty(), "{name}: {family:?}");
    }
    let text = format!(
        "## narthex' own\n\n{}\n## As in Thanos\n\n{}",
        table(&families, true),
        table(&families, false)
    );
    between_markers("docs/metrics.md", "metrics", &text);
}
