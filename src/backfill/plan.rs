//! What becomes of each block: pure functions of what was found and what is known, applied one after another. Each decides
//! only about blocks that are still to be sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Decision, Item, Overlaps, Settings,
    holdings::{Held, Holdings, NAMES, names},
};
use crate::{
    model::Labels,
    tsdb::{BlockId, Meta},
};

/// Whether a block is asked for, and which labels it gets. Touches neither disk nor bucket.
pub(super) fn sift(items: &mut [Item], settings: &Settings) {
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

fn asked_for(meta: &Meta, files: usize, settings: &Settings) -> Option<String> {
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

/// Passes over blocks whose samples are in the bucket in other blocks: merged by the compactor, or not yet merged. Returns
/// the places of the items that were decided upon, with the blocks that were relied on. What is in the bucket under its
/// own name, and stays there, is not looked for elsewhere.
pub(super) fn pass_over_merged(items: &mut [Item], holdings: &Holdings) -> Vec<(usize, BTreeSet<BlockId>)> {
    let origins = holdings.origins();
    let mut relied = Vec::new();
    for (i, item) in items.iter_mut().enumerate() {
        if let (Decision::Send(_), Some(block)) = (&item.decision, &item.block)
            && (!holdings.namesakes.contains_key(&item.id) || holdings.is_marked(item.id))
            && let Some(cover) = origins.cover(block, &item.labels)
        {
            item.decision = cover.decision;
            relied.push((i, cover.ids));
        }
    }
    relied
}

/// A block that is left out since its samples are in another one that is sent.
pub(super) struct Part {
    place: usize,
    within: usize,
}

/// Passes over blocks whose samples are in another block that is sent.
pub(super) fn pass_over_parts(items: &mut [Item]) -> Vec<Part> {
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
    let mut by_source: HashMap<BlockId, Vec<usize>> = HashMap::new();
    for (i, held) in whole.iter().enumerate() {
        for source in held.iter().flat_map(|held| &held.sources) {
            by_source.entry(*source).or_default().push(i);
        }
    }
    let rank = |held: &Held| (held.sources.len(), held.id);
    let mut parts = Vec::new();
    for (place, own) in whole.iter().enumerate() {
        let Some(own) = own else { continue };
        // Whoever has all sources has the first one.
        let others = own.sources.first().and_then(|source| by_source.get(source));
        let others = others.into_iter().flatten();
        // The largest one is itself part of none.
        let larger = others
            .filter_map(|i| Some((*i, whole[*i].as_ref()?)))
            .filter(|(_, other)| rank(own) < rank(other) && is_within(own, other))
            .max_by_key(|(_, other)| rank(other));
        if let Some((within, larger)) = larger {
            items[place].decision =
                Decision::LeftOut(format!("what it was made of is in {}, which is sent", larger.id));
            parts.push(Part { place, within });
        }
    }
    parts
}

fn is_within(part: &Held, other: &Held) -> bool {
    (&other.labels, other.resolution) == (&part.labels, part.resolution)
        && other.range.0 <= part.range.0
        && part.range.1 <= other.range.1
        && part.sources.is_subset(&other.sources)
}

/// Refuses parts of blocks that turned out not to be sent: their samples would be missing without a word.
pub(super) fn follow(items: &mut [Item], parts: &[Part]) {
    for part in parts {
        let larger = &items[part.within];
        if !matches!(larger.decision, Decision::Send(_)) {
            let why = format!(
                "what it was made of is in {0}, which is refused; see there, and if {0} is not to be sent, move it away \
                 to send this",
                larger.id
            );
            items[part.place].decision = Decision::Refused(why);
        }
    }
}

/// Refuses what would overlap, with another block that is sent or with one of the bucket, or notes it.
pub(super) fn refuse_overlaps(items: &mut [Item], holdings: &Holdings, policy: Overlaps) {
    let mut groups: BTreeMap<(Labels, i64), Vec<Place>> = BTreeMap::new();
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
    for group in groups.into_values() {
        meet(group, &mut with);
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

/// Notes for each item of a group whom it overlaps, and whether that is in the bucket: a few more than a reason names, but
/// one at least if there is any. How blocks of the bucket overlap each other is not asked, so that however many do, none
/// of ours is missed.
fn meet(mut group: Vec<Place>, with: &mut [Vec<(BlockId, bool)>]) {
    const ENOUGH: usize = NAMES + 1;
    group.retain(|place| place.range.0 < place.range.1);
    group.sort_by_key(|place| (place.range.0, place.id));
    // Those that began before the one in hand and end after its start, by their ends. Of ours there are those that have
    // still to hear of others, too.
    let [mut ours, mut theirs, mut hungry] = [const { BTreeSet::<(i64, usize)>::new() }; 3];
    for (at, place) in group.iter().enumerate() {
        for open in [&mut ours, &mut theirs, &mut hungry] {
            while open.first().is_some_and(|(end, _)| *end <= place.range.0) {
                open.pop_first();
            }
        }
        hungry.retain(|(_, other)| {
            let heard = group[*other].item.map(|i| &mut with[i]);
            heard.is_some_and(|heard| {
                heard.push((place.id, place.item.is_none()));
                heard.len() < ENOUGH
            })
        });
        let entry = (place.range.1, at);
        let Some(i) = place.item else {
            theirs.insert(entry);
            continue;
        };
        let before = theirs.iter().take(ENOUGH).chain(ours.iter().take(ENOUGH));
        with[i].extend(before.map(|(_, other)| (group[*other].id, group[*other].item.is_none())));
        ours.insert(entry);
        if with[i].len() < ENOUGH {
            hungry.insert(entry);
        }
    }
}

#[cfg(test)]
mod tests;
