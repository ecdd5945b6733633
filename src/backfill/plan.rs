//! What becomes of each block: pure functions of what was found and what is known, applied one after another. Each decides
//! only about blocks that are still to be sent.

use std::collections::BTreeSet;

use super::{
    Decision, Item, Overlaps, Settings,
    holdings::{Held, Holdings, sources},
};
use crate::{
    audit::{Span, overlaps},
    model::Labels,
    tsdb::{BlockId, Meta},
};

/// How many names a reason lists.
const NAMES: usize = 5;

/// Whether a block is asked for, and which labels it gets. Touches neither disk nor bucket.
pub(super) fn sift(items: &mut [Item], settings: &Settings) {
    for item in items.iter_mut().filter(|item| item.decision == Decision::Send(None)) {
        let Some(block) = &item.block else { continue };
        item.decision = match asked_for(&block.meta, settings) {
            Some(why) => Decision::LeftOut(why),
            None => match labels(&block.meta, settings) {
                Ok(labels) => {
                    item.labels = labels;
                    continue;
                }
                Err(why) => Decision::Refused(why),
            },
        };
    }
}

fn asked_for(meta: &Meta, settings: &Settings) -> Option<String> {
    if meta.max_time <= settings.min_time {
        return Some("it ends before --min-time".into());
    }
    if meta.min_time > settings.max_time {
        return Some("it begins after --max-time".into());
    }
    if meta.num_samples == 0 {
        return Some("it holds no sample".into());
    }
    (meta.level > 1 && !settings.upload_compacted)
        .then(|| format!("it was compacted (level {}), and those are not asked for", meta.level))
}

fn labels(meta: &Meta, settings: &Settings) -> Result<Labels, String> {
    let own = meta.thanos_labels.clone().unwrap_or_default();
    let clash = settings
        .labels
        .iter()
        .find(|label| own.get(&label.name).is_some_and(|value| *value != *label.value));
    if let Some(label) = clash.filter(|_| !settings.accept_label_change) {
        return Err(format!(
            "it carries the labels {own} of its own, and {}={:?} is asked for; drop that label, or give \
             --accept-label-change to replace it",
            label.name, label.value
        ));
    }
    let labels = own.overlaid_with(&settings.labels);
    if labels.is_empty() {
        return Err("it would have no external labels, by which the bucket's readers tell blocks apart; give --label name=value".into());
    }
    Ok(labels)
}

/// Passes over blocks whose samples are in the bucket in other blocks: merged by the compactor, or not yet merged.
pub(super) fn pass_over_merged(items: &mut [Item], holdings: &Holdings) {
    for item in items
        .iter_mut()
        .filter(|item| matches!(item.decision, Decision::Send(_)))
    {
        let Some(block) = &item.block else { continue };
        let own = sources(&block.meta);
        let resolution = block.meta.resolution();
        let made_of = |held: &&Held| {
            held.id != item.id && !held.marked && held.resolution == resolution && !held.sources.is_disjoint(&own)
        };
        let with: Vec<&Held> = holdings.held.iter().filter(made_of).collect();
        let there: BTreeSet<BlockId> = with.iter().flat_map(|held| &held.sources).copied().collect();
        if own.is_subset(&there) {
            let names = names(with.iter().map(|held| held.id));
            item.decision = Decision::There(format!("what it was made of is in the bucket in {names}"));
        }
    }
}

/// Passes over blocks whose samples are in another block that is sent.
pub(super) fn pass_over_parts(items: &mut [Item]) {
    let whole: Vec<Option<Held>> = items
        .iter()
        .map(|item| match (&item.decision, &item.block) {
            (Decision::Send(_), Some(block)) => Some(Held {
                labels: item.labels.clone(),
                ..Held::new(&block.meta)
            }),
            _ => None,
        })
        .collect();
    for (item, own) in items.iter_mut().zip(&whole) {
        let Some(own) = own else { continue };
        let larger = whole.iter().flatten().find(|other| {
            let more = own.sources.len() < other.sources.len()
                || (own.sources.len() == other.sources.len() && own.id < other.id);
            more && (&other.labels, other.resolution) == (&own.labels, own.resolution)
                && own.sources.is_subset(&other.sources)
        });
        if let Some(larger) = larger {
            item.decision = Decision::LeftOut(format!("what it was made of is in {}, which is sent", larger.id));
        }
    }
}

/// Refuses what would overlap, with another block that is sent or with one of the bucket, or notes it.
pub(super) fn refuse_overlaps(items: &mut [Item], holdings: &Holdings, policy: Overlaps) {
    let mut groups: std::collections::BTreeMap<(Labels, i64), Vec<Place>> = Default::default();
    for (i, item) in items.iter().enumerate() {
        if let (Decision::Send(_), Some(block)) = (&item.decision, &item.block) {
            let range = (block.meta.min_time, block.meta.max_time);
            let group = groups
                .entry((item.labels.clone(), block.meta.resolution()))
                .or_default();
            group.push(Place {
                item: Some(i),
                id: item.id,
                range,
            });
        }
    }
    for held in holdings.held.iter().filter(|held| !held.marked) {
        if let Some(group) = groups.get_mut(&(held.labels.clone(), held.resolution)) {
            group.push(Place {
                item: None,
                id: held.id,
                range: held.range,
            });
        }
    }
    let mut with: Vec<Vec<(BlockId, bool)>> = vec![Vec::new(); items.len()];
    for group in groups.values() {
        let spans: Vec<Span> = group
            .iter()
            .map(|place| Span {
                min: place.range.0,
                max: place.range.1,
            })
            .collect();
        for (one, other) in overlaps(&spans) {
            for (own, foreign) in [(&group[one], &group[other]), (&group[other], &group[one])] {
                if let Some(i) = own.item.filter(|i| with[*i].len() <= NAMES) {
                    with[i].push((foreign.id, foreign.item.is_none()));
                }
            }
        }
    }
    for (item, with) in items.iter_mut().zip(with).filter(|(_, with)| !with.is_empty()) {
        let level = item.block.as_ref().map_or(0, |block| block.meta.level);
        let here = with.iter().filter(|(_, in_bucket)| !in_bucket).map(|(id, _)| *id);
        let there = with.iter().filter(|(_, in_bucket)| *in_bucket).map(|(id, _)| *id);
        let mut told = Vec::new();
        if with.iter().any(|(_, in_bucket)| *in_bucket) {
            told.push(format!("{} of the same labels in the bucket", names(there)));
        }
        if with.iter().any(|(_, in_bucket)| !in_bucket) {
            told.push(format!("{} here", names(here)));
        }
        let told = format!("it overlaps {}", told.join(", and "));
        match policy {
            Overlaps::Refuse => {
                item.decision = Decision::Refused(format!(
                    "{told}; a compactor halts on that unless it merges overlaps: leave one of them out, or give --allow-overlaps"
                ));
            }
            Overlaps::RefuseCompacted if level > 1 => {
                item.decision = Decision::Refused(format!(
                    "{told}, and was compacted; a compactor halts on that unless it merges overlaps"
                ));
            }
            _ => item.decision.note(told),
        }
    }
}

/// Where a block lies; one that is to be sent knows its item.
struct Place {
    item: Option<usize>,
    id: BlockId,
    range: (i64, i64),
}

/// Some names, and how many more.
fn names(ids: impl Iterator<Item = BlockId>) -> String {
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    match ids.len() {
        more if more > NAMES => format!("{} and others", ids[..NAMES].join(", ")),
        _ => ids.join(", "),
    }
}

#[cfg(test)]
mod tests;
