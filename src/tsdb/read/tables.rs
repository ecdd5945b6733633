//! What is kept of an index between two calls: its table of contents, the label names, and where every so manieth symbol and
//! entry of the postings table stands. What lies between is read when it is needed.

use std::{cmp::Ordering, ops::Range, sync::Arc};

use super::{
    super::{
        PinnedFile,
        check::{
            Broken,
            index::{TOC, Toc, bad, section, toc, version},
        },
        window::{LONGEST_UVARINT, WIDTH, Window, uvarint},
    },
    table_entry::Entry,
};

/// One in so many symbols or entries is kept, or fewer.
const EVERY: u32 = 32;
/// So many symbols are kept: each label of each series is looked up by its number.
const SYMBOLS: u32 = 1 << 16;
/// So many entries are kept, and those which begin a name: they are only looked for when a reader begins.
const ENTRIES: u32 = 1 << 12;
/// The format that is read here. In format 1 symbols have no numbers.
const FORMAT: u8 = 2;

/// The tables of one index.
#[derive(Debug)]
pub struct Tables {
    pub(super) toc: Toc,
    pub(super) symbols: Samples,
    /// Sorted by name, and by the numbers of their symbols.
    names: Vec<Name>,
    pub(super) entries: Samples,
    /// Where the list of all series is.
    pub(super) all: Option<u64>,
}

/// Where every so manieth item of a section stands.
#[derive(Debug)]
pub(super) struct Samples {
    /// Where the section's content is in the file, behind the count of its items.
    pub(super) content: Range<u64>,
    /// How many items there are.
    pub(super) count: u32,
    /// Each `every`th item has an offset, for symbols.
    pub(super) every: u32,
    /// From the start of the content (bytes).
    pub(super) offsets: Vec<u32>,
}

/// A label name of the index.
#[derive(Debug)]
pub(super) struct Name {
    name: Box<[u8]>,
    /// The number of its symbol; `None` for one that is no symbol, as the empty name, which stands for the list of all series.
    pub(super) symbol: Option<u32>,
    /// The sample that is its first entry.
    first: u32,
    /// How many values it has.
    pub(super) values: u32,
}

impl Tables {
    /// The most that the tables of an index take (bytes).
    pub const LARGEST: usize = 2 << 20;

    /// Reads an index of format 2, of which both tables are read from end to end.
    ///
    /// # Errors
    /// An index that is damaged, of format 1, or has so many label names that the tables would be larger than they may be.
    pub fn read(index: &PinnedFile) -> Result<Self, Broken> {
        let mut window = Window::of_width(&Arc::new(index.clone()), WIDTH);
        let version = version(index, &mut window)?;
        if version != FORMAT {
            return Err(bad(format_args!(
                "index has the format {version}; only {FORMAT} can be queried"
            )));
        }
        let toc = toc(index, &mut window)?;
        let limit = index.len - TOC;
        let Entries {
            mut names,
            samples,
            all,
        } = Entries::read(&mut window, toc.postings_table, limit)?;
        let symbols = symbols(&mut window, toc.symbols, limit, &mut names)?;
        Ok(Self {
            toc,
            symbols,
            names,
            entries: samples,
            all,
        })
    }

    /// What they take, in bytes.
    pub fn bytes(&self) -> usize {
        let names: usize = self.names.iter().map(Name::bytes).sum();
        size_of::<Self>() + names + 4 * (self.symbols.offsets.len() + self.entries.offsets.len())
    }

    /// The name whose symbol has this number; `None` if it is that of no label.
    pub(super) fn name_of(&self, symbol: u32) -> Option<&[u8]> {
        let at = self
            .names
            .binary_search_by_key(&Some(symbol), |name| name.symbol)
            .ok()?;
        Some(&self.names[at].name)
    }

    /// The label `name` with the samples and the end of its entries; none if no series has it.
    pub(super) fn name(&self, name: &[u8]) -> Option<(&Name, NameEntries<'_>)> {
        let at = self.names.binary_search_by(|known| (*known.name).cmp(name)).ok()?;
        let first = self.names[at].first as usize;
        let next = self.names.get(at + 1).map(|next| next.first as usize);
        let samples = self
            .entries
            .offsets
            .get(first..next.unwrap_or(self.entries.offsets.len()))?;
        let end = match next {
            Some(next) => self.entries.place(next)?,
            None => self.entries.content.end,
        };
        let start = self.entries.content.start;
        Some((&self.names[at], NameEntries { start, samples, end }))
    }
}

/// Where the entries of a name are.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameEntries<'a> {
    start: u64,
    samples: &'a [u32],
    pub(super) end: u64,
}

impl NameEntries<'_> {
    pub(super) fn samples(&self) -> usize {
        self.samples.len()
    }

    pub(super) fn place(&self, sample: usize) -> Option<u64> {
        Some(self.start + u64::from(*self.samples.get(sample)?))
    }
}

impl Name {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.name.len()
    }
}

impl Samples {
    pub(super) fn place(&self, sample: usize) -> Option<u64> {
        Some(self.content.start + u64::from(*self.offsets.get(sample)?))
    }

    /// How long an item is on average (bytes).
    pub(super) fn average(&self) -> u64 {
        (self.content.end - self.content.start) / u64::from(self.count.max(1))
    }

    /// The section at `start`, of whose items none is noted yet.
    fn of(window: &mut Window, start: u64, limit: u64, name: &str, most: u32) -> Result<Self, Broken> {
        let content = section(window, start, limit, name)?;
        let count = window.at(content.start, 4)?.first_chunk().copied();
        let count = count.filter(|_| content.end - content.start >= 4);
        let count = count.ok_or_else(|| {
            bad(format_args!(
                "index is damaged: its {name} at byte {start} have no count"
            ))
        })?;
        let count = u32::from_be_bytes(count);
        Ok(Self {
            content: content.start + 4..content.end,
            count,
            every: EVERY.max((count / most).next_power_of_two()),
            offsets: Vec::new(),
        })
    }

    /// Notes that an item stands at `place`.
    fn push(&mut self, place: u64) {
        // A section is at most 4 GiB long.
        self.offsets.push((place - self.content.start) as u32);
    }
}

/// The symbols, among which those of `names` are found.
fn symbols(window: &mut Window, start: u64, limit: u64, names: &mut [Name]) -> Result<Samples, Broken> {
    let mut samples = Samples::of(window, start, limit, "symbols", SYMBOLS)?;
    let mut names = names.iter_mut().peekable();
    let (mut at, end) = (samples.content.start, samples.content.end);
    for number in 0..samples.count {
        if number % samples.every == 0 {
            samples.push(at);
        }
        let missing = || {
            bad(format_args!(
                "index is damaged: it has no symbol at byte {at}, where one is due"
            ))
        };
        let (len, head) = uvarint(window.at(at, LONGEST_UVARINT)?).ok_or_else(missing)?;
        let text = at + head as u64;
        let next = text.checked_add(len).filter(|next| *next <= end).ok_or_else(missing)?;
        // Both are in order.
        while let Some(name) = names.peek_mut() {
            let seen = len.min(name.name.len() as u64 + 1) as usize;
            let text = window.at(text, seen)?;
            match (*name.name).cmp(&text[..seen.min(text.len())]) {
                Ordering::Greater => break,
                Ordering::Equal => name.symbol = Some(number),
                Ordering::Less => {}
            }
            names.next();
        }
        at = next;
    }
    samples.offsets.shrink_to_fit();
    Ok(samples)
}

/// What is kept of the postings table.
struct Entries {
    names: Vec<Name>,
    samples: Samples,
    /// Where the list of all series is.
    all: Option<u64>,
}

impl Entries {
    fn read(window: &mut Window, start: u64, limit: u64) -> Result<Self, Broken> {
        let samples = Samples::of(window, start, limit, "postings table", ENTRIES)?;
        let (mut at, end, count) = (samples.content.start, samples.content.end, samples.count);
        let mut entries = Self {
            names: Vec::new(),
            samples,
            all: None,
        };
        let (mut bytes, mut since, mut value) = (0, 0, Vec::new());
        for _ in 0..count {
            let entry = Entry::read(window, at, end)?;
            let last = entries.names.last().map(|last| (&*last.name, &value[..]));
            if last.is_some_and(|last| last >= (entry.name, entry.value)) {
                return Err(bad(format_args!(
                    "index is damaged: the entry at byte {at} of its postings table is not in order"
                )));
            }
            value.clear();
            value.extend_from_slice(entry.value);
            if entries.add(&entry) {
                bytes += entries.names.last().map_or(0, Name::bytes) + size_of::<Name>();
                if bytes > Tables::LARGEST / 2 {
                    return Err(bad("index has too many label names to be queried from disk"));
                }
                since = 0;
            }
            if since == 0 {
                entries.samples.push(at);
            }
            since = (since + 1) % entries.samples.every;
            at = entry.next;
        }
        entries.names.shrink_to_fit();
        entries.samples.offsets.shrink_to_fit();
        Ok(entries)
    }

    /// Takes in the next entry; whether it is the first one of a name.
    fn add(&mut self, entry: &Entry<'_>) -> bool {
        if entry.name.is_empty() && entry.value.is_empty() {
            self.all = Some(entry.list);
        }
        if let Some(last) = self.names.last_mut().filter(|last| *last.name == *entry.name) {
            last.values += 1;
            return false;
        }
        self.names.push(Name {
            name: entry.name.into(),
            symbol: None,
            first: self.samples.offsets.len() as u32,
            values: 1,
        });
        true
    }
}
