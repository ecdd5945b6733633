use super::{
    super::testing::{block, confirmed, listing},
    *,
};

/// One that knows the blocks 10..20 and 30..40, of a directory in which they are not.
fn sealed(is_as_listed: bool) -> (tempfile::TempDir, Sealed) {
    let dir = tempfile::tempdir().unwrap();
    let sealed = Sealed::new(dir.path().to_owned(), 100);
    let listing = listing(Instant::now(), vec![block(1, 10, 20, &[]), block(2, 30, 40, &[])]);
    let version = match is_as_listed {
        true => directory::version(dir.path()).unwrap(),
        false => FileVersion::numbered(1),
    };
    let state = State {
        row: Row::new(&listing, &confirmed(&listing, 10, 40)),
        version,
        listing,
        wbl_stays_empty: true,
    };
    sealed.inner.state.store(Some(Arc::new(state)));
    (dir, sealed)
}

fn is_outdated(sealed: &Sealed) -> bool {
    sealed.inner.has_changed.load(Ordering::Relaxed)
}

#[tokio::test]
async fn that_no_block_holds_a_time_is_believed_while_the_directory_is_as_it_was() {
    let (_dir, known) = sealed(true);
    let cover = known.cover(22, 28).await;
    assert!(!cover.has_blocks() && cover.prometheus.is_none(), "{cover:?}");
    assert!(!is_outdated(&known));
    let (_dir, changed) = sealed(false);
    let cover = changed.cover(22, 28).await;
    let asked = cover.prometheus.unwrap();
    assert_eq!(asked.range, 22..=28);
    assert_eq!(asked.reasons, BTreeSet::from([Reason::Arriving]));
}

#[tokio::test]
async fn a_block_that_is_not_as_it_was_listed_has_all_listed_anew() {
    let (_dir, sealed) = sealed(true);
    // Of the head nothing is looked at.
    let cover = sealed.cover(45, 50).await;
    assert!(cover.prometheus.is_some() && !is_outdated(&sealed));
    let cover = sealed.cover(12, 35).await;
    let asked = cover.prometheus.unwrap();
    assert_eq!(asked.range, 12..=35);
    assert_eq!(asked.reasons, BTreeSet::from([Reason::Differs]));
    assert!(is_outdated(&sealed));
}

#[test]
fn an_opening_that_nobody_waits_for_counts_until_it_ends_and_one_that_waits_for_a_thread_does_not() {
    let overdue = Arc::new(AtomicUsize::new(0));
    let queued = Opening::new(&overdue);
    assert!(!queued.give_up());
    let opening = Opening::new(&overdue);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _running = opening.begin();
        assert!(opening.give_up());
        assert_eq!(overdue.load(Ordering::Relaxed), 1);
        panic!("while blocks are opened");
    }));
    assert!(panicked.is_err());
    assert_eq!(overdue.load(Ordering::Relaxed), 0);
}
