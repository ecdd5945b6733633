//! What becomes of each block: pure functions of what was found and what is known, applied one after another. Each decides
//! only about blocks that are still to be sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Decision, Item, Overlaps, Settings,
    bucket_blocks::{NAMES, names, to_send},
};
use crate::{
    lineage::Entry,
    model::Labels,
    tsdb::{BlockId, BlockMeta},
};

/// Whether a block is asked for, and which labels it gets. Touches neither disk nor bucket.
pub(super) fn select(items: &mut [Item], settings: &Settings) {
    for item in items.iter_mut().filter(|item| item.decision == Decision::Send(None)) {
        let Some(block) = &item.block else { continue };
        item.decision = match asked_for(&block.meta, item.files, settings) {
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

fn asked_for(meta: &BlockMeta, files: usize, settings: &Settings) -> Option<String> {
    if meta.max_time <= settings.min_time {
        return Some("it ends before --min-time".into());
    }
    if meta.min_time > settings.max_time {
        return Some("it begins after --max-time".into());
    }
    // A block with segments is looked at, whatever its meta.json says or does not say.
    if (meta.num_samples, meta.num_series, meta.num_chunks) == (0, 0, 0) && files < 2 {
        return Some("it holds no sample".into());
    }
    (meta.level > 1 && !settings.upload_compacted)
        .then(|| format!("it was compacted (level {}), and those are not asked for", meta.level))
}

fn labels(meta: &BlockMeta, settings: &Settings) -> Result<Labels, String> {
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

/// Passes over blocks whose samples are in another block that is to be sent.
pub(super) fn leave_out_parts(items: &mut [Item]) {
    let whole = entries(items);
    let mut by_source: HashMap<BlockId, Vec<usize>> = HashMap::new();
    for (i, held) in whole.iter().enumerate() {
        for source in held.iter().flat_map(|held| held.sources.iter()) {
            by_source.entry(*source).or_default().push(i);
        }
    }
    let rank = |held: &Entry| (held.sources.len(), held.id);
    for (place, own) in whole.iter().enumerate() {
        let Some(own) = own else { continue };
        // Whoever has all sources has the first one.
        let others = own.sources.first().and_then(|source| by_source.get(source));
        let others = others.into_iter().flatten();
        // The largest one is itself part of none.
        let larger = others
            .filter_map(|i| whole[*i].as_ref())
            .filter(|other| rank(own) < rank(other) && own.is_within(other))
            .max_by_key(|other| rank(other));
        if let Some(larger) = larger {
            let why = format!("what it was made of is in {}, which is to be sent", larger.id);
            items[place].decision = Decision::LeftOut(why);
            items[place].within = Some(larger.id);
        }
    }
}

/// The blocks that are to be sent, as they would be in the bucket, by their places.
fn entries(items: &[Item]) -> Vec<Option<Entry>> {
    let mut found = vec![None; items.len()];
    for (place, item, block) in to_send(items) {
        found[place] = Some(Entry::local(&block.meta, &item.labels));
    }
    found
}

/// Refuses parts of blocks that turned out not to be sent: their samples would be missing without a word.
pub(super) fn refuse_parts_of_refused(items: &mut [Item]) {
    let sent: BTreeSet<BlockId> = to_send(items).map(|(_, item, _)| item.id).collect();
    for item in items {
        if let Some(larger) = item.within.filter(|larger| !sent.contains(larger)) {
            item.decision = Decision::Refused(part_of_refused(larger));
        }
    }
}

/// Why a block is refused that was left out as a part of `larger`.
pub(super) fn part_of_refused(larger: BlockId) -> String {
    format!(
        "what it was made of is in {larger}, which is refused; see there, and if {larger} is not to be sent, move it away to \
         send this"
    )
}

/// Refuses what would overlap, with another block that is sent or with one of those that are `nearby` in the bucket; or only
/// remarks on it, as the policy is.
pub(super) fn refuse_overlaps(items: &mut [Item], nearby: &[Entry], policy: Overlaps) {
    let ours = entries(items);
    let mut groups: BTreeMap<(&Labels, i64), Vec<Place<'_>>> = BTreeMap::new();
    for (i, entry) in ours.iter().enumerate() {
        if let Some(entry) = entry {
            let group = groups.entry((&entry.labels, entry.resolution)).or_default();
            group.push(Place { item: Some(i), entry });
        }
    }
    for entry in nearby {
        if let Some(group) = groups.get_mut(&(&entry.labels, entry.resolution)) {
            group.push(Place { item: None, entry });
        }
    }
    let mut with: Vec<Vec<(BlockId, bool)>> = vec![Vec::new(); items.len()];
    for group in groups.into_values() {
        find_overlaps(group, &mut with);
    }
    for (item, with) in items.iter_mut().zip(with).filter(|(_, with)| !with.is_empty()) {
        let level = item.block.as_ref().map_or(0, |block| block.meta.level);
        let here = with.iter().filter(|(_, in_bucket)| !in_bucket).map(|(id, _)| *id);
        let there = with.iter().filter(|(_, in_bucket)| *in_bucket).map(|(id, _)| *id);
        let mut others = Vec::new();
        if with.iter().any(|(_, in_bucket)| *in_bucket) {
            others.push(format!("{} of the same labels in the bucket", names(there)));
        }
        if with.iter().any(|(_, in_bucket)| !in_bucket) {
            others.push(format!("{} here", names(here)));
        }
        let overlap = format!("it overlaps {}", others.join(", and "));
        match policy {
            Overlaps::Refuse => {
                item.decision = Decision::Refused(format!(
                    "{overlap}; a compactor halts on that unless it merges overlaps: leave one of them out, or give --allow-overlaps"
                ));
            }
            Overlaps::RefuseCompacted if level > 1 => {
                item.decision = Decision::Refused(format!(
                    "{overlap}, and was compacted; a compactor halts on that unless it merges overlaps"
                ));
            }
            _ => item.decision.add_remark(overlap),
        }
    }
}

/// Where a block lies; one that is to be sent knows its item.
struct Place<'a> {
    item: Option<usize>,
    entry: &'a Entry,
}

/// Notes for each item of a group whom it overlaps, and whether that is in the bucket: a few more than a reason names, but
/// one at least if there is any. How blocks of the bucket overlap each other is not asked, so that however many do, none
/// of ours is missed. What a compactor folds is no overlap.
fn find_overlaps(mut group: Vec<Place<'_>>, with: &mut [Vec<(BlockId, bool)>]) {
    const ENOUGH: usize = NAMES + 1;
    group.retain(|place| place.entry.range.0 < place.entry.range.1);
    group.sort_by_key(|place| (place.entry.range.0, place.entry.id));
    // Those that began before the one in hand and end after its start, by their ends. Of ours there are those that have
    // still to hear of others, too.
    let [mut ours, mut theirs, mut wanting] = [const { BTreeSet::<(i64, usize)>::new() }; 3];
    for (at, place) in group.iter().enumerate() {
        for open in [&mut ours, &mut theirs, &mut wanting] {
            while open.first().is_some_and(|(end, _)| *end <= place.entry.range.0) {
                open.pop_first();
            }
        }
        wanting.retain(|(_, other)| {
            let other = &group[*other];
            let heard = other.item.map(|i| &mut with[i]);
            heard.is_some_and(|heard| {
                if place.entry.overlaps(other.entry) {
                    heard.push((place.entry.id, place.item.is_none()));
                }
                heard.len() < ENOUGH
            })
        });
        let entry = (place.entry.range.1, at);
        let Some(i) = place.item else {
            theirs.insert(entry);
            continue;
        };
        for open in [&theirs, &ours] {
            let others = open.iter().map(|(_, other)| &group[*other]);
            let before = others.filter(|other| place.entry.overlaps(other.entry)).take(ENOUGH);
            with[i].extend(before.map(|other| (other.entry.id, other.item.is_none())));
        }
        ours.insert(entry);
        if with[i].len() < ENOUGH {
            wanting.insert(entry);
        }
    }
}

#[cfg(test)]
mod tests;
