//! Blocks on disk: their files shared out among threads.
//!
//! A thread takes the next file of a block that is open, and when there is none it opens the next block. So there are
//! never more open blocks than threads, and the files of one block are read side by side. Whoever is done with a block's
//! last file looks whether they agree.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use super::{
    super::{Broken, chunk, index::long_enough, parts, window::Window},
    Checked, Digest, IndexFacts, Options, SegmentFacts, TOC, agree, differing, index, name_series, segment,
    stream::{Fault, Stream, stopped},
};
use crate::tsdb::{Block, BlockMeta, PinError, Pinned, PinnedFile};

type Done<'a> = &'a (dyn Fn(usize, Result<(Pinned, Checked), PinError>) + Sync);

pub(super) fn blocks(blocks: &[Block], options: &Options<'_>, done: Done<'_>) {
    let work = Work {
        blocks,
        options,
        done,
        next: AtomicUsize::new(0),
        files: Mutex::default(),
    };
    thread::scope(|scope| {
        // Should the system give no more threads, those that there are do the work, too.
        for _ in 1..options.threads {
            let _ = thread::Builder::new().spawn_scoped(scope, || work.run());
        }
        work.run();
    });
}

/// What the threads share.
struct Work<'a> {
    blocks: &'a [Block],
    options: &'a Options<'a>,
    done: Done<'a>,
    /// The first block that nobody has opened yet.
    next: AtomicUsize,
    /// The files of open blocks that nobody has begun to read.
    files: Mutex<VecDeque<(Arc<Open>, usize)>>,
}

/// A block that is being checked.
struct Open {
    /// Its place among the blocks.
    place: usize,
    /// Its files: segments, and behind them the index.
    files: Vec<PinnedFile>,
    tally: Mutex<Tally>,
}

/// What is known of a block so far.
struct Tally {
    pinned: Option<Pinned>,
    /// How many files are not done.
    left: usize,
    index: Option<IndexFacts>,
    segments: Vec<SegmentFacts>,
    /// By the files' places.
    digests: Vec<Option<Digest>>,
    /// The first file that is not whole, by its place.
    failed: Option<(usize, PinError)>,
}

/// What a file turned out to hold.
enum Found {
    Index(IndexFacts),
    Segment(SegmentFacts),
}

impl Work<'_> {
    fn run(&self) {
        loop {
            let file = lock(&self.files).pop_front();
            if let Some((open, i)) = file {
                self.file(&open, i);
                continue;
            }
            let place = self.next.fetch_add(1, Relaxed);
            let Some(block) = self.blocks.get(place) else { return };
            match self.open(place, block) {
                Ok(open) => {
                    // One is for this thread, so that none opens a block and another reads it.
                    let others = (1..open.files.len()).map(|i| (Arc::clone(&open), i));
                    lock(&self.files).extend(others);
                    self.file(&open, 0);
                }
                Err(error) => (self.done)(place, Err(error)),
            }
        }
    }

    /// The time range of an open block (ms), its end exclusive.
    fn range(&self, open: &Open) -> (i64, i64) {
        let meta = &self.blocks[open.place].meta;
        (meta.min_time, meta.max_time)
    }

    fn open(&self, place: usize, block: &Block) -> Result<Arc<Open>, PinError> {
        if self.options.stop.load(Relaxed) {
            return Err(stopped().into());
        }
        let pinned = Pinned::open(block)?;
        let (segments, index) = parts(&pinned)?;
        let count = segments.len();
        let files: Vec<PinnedFile> = segments.into_iter().chain([index]).cloned().collect();
        Ok(Arc::new(Open {
            place,
            tally: Mutex::new(Tally {
                pinned: Some(pinned),
                left: files.len(),
                index: None,
                segments: vec![SegmentFacts::default(); count],
                digests: vec![None; files.len()],
                failed: None,
            }),
            files,
        }))
    }

    /// Reads the file `i` of a block, and ends the block if it was the last.
    fn file(&self, open: &Open, i: usize) {
        // Of a block that is known to be broken the rest need not be read.
        let read = lock(&open.tally).failed.is_none();
        let found = read.then(|| {
            let range = (i + 1 == open.files.len()).then(|| self.range(open));
            whole(&open.files[i], range, self.options)
        });
        let mut tally = lock(&open.tally);
        tally.left -= 1;
        match found {
            Some(Ok((found, digest))) => {
                tally.digests[i] = Some(digest);
                match found {
                    Found::Index(facts) => tally.index = Some(facts),
                    Found::Segment(facts) => tally.segments[i] = facts,
                }
            }
            Some(Err(error)) if tally.failed.as_ref().is_none_or(|(before, _)| i < *before) => {
                tally.failed = Some((i, error));
            }
            Some(Err(_)) | None => {}
        }
        if tally.left == 0
            && let Some(pinned) = tally.pinned.take()
        {
            let result = tally.result(&pinned, &self.blocks[open.place].meta, self.options);
            drop(tally);
            (self.done)(open.place, result.map(|checked| (pinned, checked)));
        }
    }
}

impl Tally {
    /// What comes of a block all of whose files are done.
    fn result(&mut self, pinned: &Pinned, meta: &BlockMeta, options: &Options<'_>) -> Result<Checked, PinError> {
        if let Some((_, error)) = self.failed.take() {
            return Err(error);
        }
        // Without an error there is one.
        let index = self.index.take().unwrap_or_default();
        let odd = differing(&index, &self.segments)?;
        if !odd.is_empty() {
            by_reference(pinned, &index, &mut self.segments, &odd, options)?;
        }
        Ok(Checked {
            facts: agree(meta, &index, &self.segments)?,
            files: self.digests.drain(..).flatten().collect(),
        })
    }
}

/// Reads one file from end to end: the index, if there is the time range of its block, or else a segment.
fn whole(file: &PinnedFile, range: Option<(i64, i64)>, options: &Options<'_>) -> Result<(Found, Digest), PinError> {
    let found = if let Some(range) = range {
        named_index(file, range, options).map(|(facts, digest)| (Found::Index(facts), digest))
    } else {
        let stream = Stream::new(FromStart::of(file), file.len, options);
        segment::walk(&file.rel_path, file.len, stream).map(|(facts, digest)| (Found::Segment(facts), digest))
    };
    found.map_err(|fault| local_fault(file, fault, options))
}

/// Checks an index, and finds the labels of series with issues.
fn named_index(file: &PinnedFile, range: (i64, i64), options: &Options<'_>) -> Result<(IndexFacts, Digest), Fault> {
    let (mut facts, digest) = walk_index(file, range, options, |_| Ok(()))?;
    if facts.has_issues() {
        let toc = toc(file)?;
        name_series(&mut facts, file.len, &toc, FromStart::of(file), options)??;
    }
    Ok((facts, digest))
}

fn walk_index(
    file: &PinnedFile,
    range: (i64, i64),
    options: &Options<'_>,
    on_chunk: impl FnMut(u64) -> Result<(), Fault>,
) -> Result<(IndexFacts, Digest), Fault> {
    let toc = toc(file)?;
    let stream = Stream::new(FromStart::of(file), file.len, options);
    index::walk(file.len, &toc, range, stream, on_chunk)
}

/// The table of contents at the end of an index.
fn toc(file: &PinnedFile) -> Result<[u8; TOC as usize], Fault> {
    long_enough(file.len)?;
    let mut toc = [0; TOC as usize];
    file.file.read_exact_at(&mut toc, file.len - TOC)?;
    Ok(toc)
}

/// Looks at each chunk that the index refers to in the segments `odd`, which hold others. Either one of them is not there,
/// or they all are, and then `segments` are made to say what is referred to: chunks that nobody refers to, or two series
/// do, are no damage. Slow, and not needed for anything that Prometheus writes.
fn by_reference(
    pinned: &Pinned,
    index: &IndexFacts,
    segments: &mut [SegmentFacts],
    odd: &[usize],
    options: &Options<'_>,
) -> Result<(), PinError> {
    let (files, index_file) = parts(pinned)?;
    for number in odd {
        segments[*number] = SegmentFacts {
            references: index.references_to(*number),
            ..SegmentFacts::default()
        };
    }
    // What is in the range was counted by the first pass.
    walk_index(index_file, (i64::MIN, i64::MAX), options, |reference| {
        let (number, offset) = ((reference >> 32) as usize, reference as u32);
        let (true, Some(file), Some(facts)) = (
            odd.binary_search(&number).is_ok(),
            files.get(number),
            segments.get_mut(number),
        ) else {
            return Ok(());
        };
        if options.stop.load(Relaxed) {
            return Err(stopped().into());
        }
        let mut window = Window::new(file);
        let at = chunk(&mut window, file, offset)?.start;
        let beginning = window.at(at, 3)?;
        let beginning = &beginning[..beginning.len().min(3)];
        Ok(facts.count(&file.rel_path, u64::from(offset), beginning)?)
    })
    .map_err(|fault| local_fault(index_file, fault, options))?;
    Ok(())
}

/// A disk that does not read makes a block broken, as for the quick check; being stopped does not.
fn local_fault(file: &PinnedFile, fault: Fault, options: &Options<'_>) -> PinError {
    match fault {
        Fault::Broken(broken) => broken.into(),
        Fault::Io(error) if error.kind() == io::ErrorKind::Interrupted && options.stop.load(Relaxed) => error.into(),
        Fault::Io(error) => Broken::unreadable(file, &error).into(),
    }
}

/// Reads a file from its start, whoever else reads it.
struct FromStart<'a> {
    file: &'a File,
    position: u64,
}

impl<'a> FromStart<'a> {
    fn of(pinned: &'a PinnedFile) -> Self {
        Self {
            file: &pinned.file,
            position: 0,
        }
    }
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// What a thread that panicked leaves is as good as what it found.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use super::*;
    use crate::tsdb::{Reason, testing};

    #[test]
    fn a_file_that_became_shorter_is_unreadable() {
        let (_dir, mut file) = testing::pinned_file("chunks/000001", &[0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0]);
        file.len += 5;
        let options = Options {
            threads: 1,
            sha256: false,
            stop: &AtomicBool::new(false),
            read: &AtomicU64::new(0),
        };
        let Err(PinError::Broken { reason, detail }) = whole(&file, None, &options) else {
            panic!()
        };
        let text = format!("{} cannot be read: it ends 5 bytes before its 13", file.path.display());
        assert_eq!((reason, detail), (Reason::Unreadable, text));
    }
}
