//! How the series that a selector wants are found: by lists of the labels that few series have, the others by a look at
//! each.
//!
//! A list that is long beside another is not worth being read: whether the series of the shorter one have that label, too,
//! their own labels tell. Values are only matched one by one, for their lists, where there are fewer than series to look at.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    super::check::{Broken, index::bad},
    Selector,
    filter::Filter,
    index::IndexReader,
    postings::{List, Postings},
    selector::Condition,
};

/// Of more values than this the lists are not joined.
const LISTS: usize = 1024;
/// What all lists of one selector are read with (bytes).
const BUFFERS: usize = 256 << 10;
/// No list is read with less (bytes).
const SMALLEST_BUFFER: usize = 256;
/// A list with more than so many times the series of the shortest one is not read.
const WORTH: u64 = 16;

/// How series are found.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) postings: Postings,
    pub(super) filters: Vec<Filter>,
}

/// Lists whose series, together, have all series that a condition takes.
struct Lists<'a> {
    condition: &'a Arc<Condition>,
    /// Where they are.
    places: Vec<u64>,
    /// How many series they have.
    series: u64,
}

/// Finds out how to find the series of `selector`; none if there are none.
pub(super) fn choose(index: &mut IndexReader, selector: &Selector) -> Result<Option<Choice>, Broken> {
    let (mut known, mut others) = (Vec::new(), Vec::new());
    for condition in &selector.conditions {
        if index.tables.name(condition.name.as_bytes()).is_none() {
            match condition.takes_empty {
                true => continue,
                false => return Ok(None),
            }
        }
        match (condition.takes_empty, condition.texts()) {
            (false, Some(texts)) if texts.len() <= LISTS => known.push(of_texts(index, condition, texts)?),
            _ => others.push(condition),
        }
    }
    let all = index.tables.all;
    let all = all.ok_or_else(|| bad("index is damaged: it has no list of all series"))?;
    let most = match known.is_empty() {
        true => count(index, all)?,
        false => u64::MAX,
    };
    let shortest = |known: &[Lists<'_>]| known.iter().map(|lists| lists.series).min().unwrap_or(most);
    let mut filtered = Vec::new();
    for condition in others {
        match by_values(index, condition, shortest(&known))? {
            Some(lists) => known.push(lists),
            None => filtered.push(condition),
        }
    }
    let shortest = shortest(&known);
    if shortest == 0 {
        return Ok(None);
    }
    let (used, long): (Vec<_>, Vec<_>) = known.into_iter().partition(|lists| lists.series <= shortest * WORTH);
    filtered.extend(long.iter().map(|lists| lists.condition));
    let postings = match used.is_empty() {
        true => open(index, &[all], BUFFERS)?,
        false => intersection(index, &used)?,
    };
    let filters = filtered
        .into_iter()
        .map(|condition| Filter::new(index, condition))
        .collect::<Result<_, _>>()?;
    Ok(Some(Choice { postings, filters }))
}

fn intersection(index: &mut IndexReader, used: &[Lists<'_>]) -> Result<Postings, Broken> {
    let lists: usize = used.iter().map(|lists| lists.places.len()).sum();
    let width = (BUFFERS / lists.max(1)).max(SMALLEST_BUFFER);
    let mut all = used
        .iter()
        .map(|lists| open(index, &lists.places, width))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(match all.len() {
        1 => all.swap_remove(0),
        _ => Postings::Intersection(all),
    })
}

fn open(index: &mut IndexReader, places: &[u64], width: usize) -> Result<Postings, Broken> {
    let mut lists = Vec::with_capacity(places.len());
    for place in places {
        index.progress.step();
        lists.push(List::open(&mut index.lists, *place, width)?);
    }
    Postings::union(lists)
}

/// How many series the list at `place` has. Only a sound list is believed to have none: it is not looked at any more.
fn count(index: &mut IndexReader, place: u64) -> Result<u64, Broken> {
    let count = List::count(&mut index.lists, place)?;
    if count == 0 {
        List::open(&mut index.lists, place, SMALLEST_BUFFER)?;
    }
    Ok(count.into())
}

/// The lists of the values that are `texts`.
fn of_texts<'a>(index: &mut IndexReader, condition: &'a Arc<Condition>, texts: Vec<&str>) -> Result<Lists<'a>, Broken> {
    let mut places = Vec::new();
    for text in texts.into_iter().collect::<BTreeSet<_>>() {
        places.extend(index.postings_table.find(condition.name.as_bytes(), text.as_bytes())?);
    }
    Lists::new(index, condition, places)
}

/// The lists of the values that pass, if it is less work to look at those than at so many series.
fn by_values<'a>(
    index: &mut IndexReader,
    condition: &'a Arc<Condition>,
    series: u64,
) -> Result<Option<Lists<'a>>, Broken> {
    let name = condition.name.as_bytes();
    let values = index.tables.name(name).map_or(0, |(name, _)| u64::from(name.values));
    if condition.takes_empty || values >= series {
        return Ok(None);
    }
    let (prefix, mut places) = (condition.prefix(), Vec::new());
    let progress = index.progress.clone();
    index
        .postings_table
        .each_value(name, prefix.as_bytes(), |value, list| {
            if !value.starts_with(prefix.as_bytes()) || !progress.step() {
                return Ok(false);
            }
            if condition.takes(value) {
                places.push(list);
            }
            Ok(places.len() <= LISTS)
        })?;
    match places.len() <= LISTS {
        true => Lists::new(index, condition, places).map(Some),
        false => Ok(None),
    }
}

impl<'a> Lists<'a> {
    fn new(index: &mut IndexReader, condition: &'a Arc<Condition>, places: Vec<u64>) -> Result<Self, Broken> {
        let mut series = 0;
        for place in &places {
            series += count(index, *place)?;
        }
        Ok(Self {
            condition,
            places,
            series,
        })
    }
}
