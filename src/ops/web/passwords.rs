//! Whether a request comes with a user's password.
//!
//! Hashes of bcrypt take their time by design, and whoever reaches the port can make us compute them. So one is computed at
//! a time, for each address one after another, and after a wrong password the address waits four times as long as it took:
//! who guesses gets a fifth of a thread, and keeps nobody else out. What was found out is remembered, also when nobody waits
//! for it any more, so that a scraper costs one hash and not one each scrape.
//! A user that does not exist takes as long as one that does. Remembered is a hash of what was shown, under a key that
//! only this process has, never a password; a changed hash in the file is another thing to remember.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderValue;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout},
};

use crate::threads::BlockingPool;

/// So many answers of each kind are remembered.
const REMEMBERED: usize = 128;

/// So many of one address may wait for a hash, or have it computed.
const WAITING: usize = 4;

/// Nobody waits longer.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// After a wrong password an address waits for so many times as long as the hash took.
const PENALTY: u32 = 4;

/// So many addresses are known at once.
const PEERS: usize = 1024;

/// A hash of cost 10 that belongs to nobody.
const NOBODY: &str = "$2b$10$abcdefghijklmnopqrstuu37RkUr9H1EPO4Rc63Ngz60LSVREthYa";

/// What is known of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be answered.
    Allowed,
    /// It came without credentials that can be read.
    Missing,
    /// User or password is wrong.
    Wrong,
    /// Too many wait already.
    Busy,
}

/// Checks passwords.
#[derive(Debug)]
pub(super) struct Passwords {
    pool: BlockingPool,
    peers: Mutex<HashMap<IpAddr, Arc<Peer>>>,
    secret: [u8; 32],
    known: Arc<Known>,
}

/// What was found out.
#[derive(Debug, Default)]
struct Known {
    good: Mutex<HashMap<[u8; 32], ()>>,
    bad: Mutex<HashMap<[u8; 32], ()>>,
}

/// An address that has asked for hashes.
#[derive(Debug)]
struct Peer {
    waiting: Arc<Semaphore>,
    turn: Arc<Semaphore>,
    /// When its next hash may begin.
    not_before: Mutex<Instant>,
}

impl Peer {
    fn new() -> Self {
        Self {
            waiting: Arc::new(Semaphore::new(WAITING)),
            turn: Arc::new(Semaphore::new(1)),
            not_before: Mutex::new(Instant::now()),
        }
    }

    fn not_before(&self) -> MutexGuard<'_, Instant> {
        self.not_before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passwords {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Self {
            pool: BlockingPool::new(1),
            peers: Mutex::default(),
            secret: rand::random(),
            known: Arc::default(),
        }
    }

    /// What is known of a request of `peer` with this `Authorization`; `users` are names and hashes.
    pub(super) async fn check(
        &self,
        users: &BTreeMap<String, String>,
        header: Option<&HeaderValue>,
        peer: IpAddr,
    ) -> Verdict {
        let Some((name, password)) = header.and_then(credentials) else {
            return Verdict::Missing;
        };
        let user = users.get(&name);
        let hash = user.map_or(NOBODY, String::as_str).to_owned();
        let fact = self.fact(&[name.as_bytes(), hash.as_bytes(), &password]);
        if contains(&self.known.good, &fact) {
            return Verdict::Allowed;
        }
        if contains(&self.known.bad, &fact) {
            return Verdict::Wrong;
        }
        let Some(peer) = self.peer(peer) else {
            return Verdict::Busy;
        };
        let Ok(waiting) = Arc::clone(&peer.waiting).try_acquire_owned() else {
            return Verdict::Busy;
        };
        let (known, exists) = (Arc::clone(&self.known), user.is_some());
        let computed = async {
            // It is never closed, so that an error cannot be.
            let turn = Arc::clone(&peer.turn).acquire_owned().await.ok();
            let not_before = *peer.not_before();
            if not_before > Instant::now() {
                sleep_until(not_before).await;
            }
            let peer = Arc::clone(&peer);
            let work = move || {
                let _held = (waiting, turn);
                let began = Instant::now();
                let good = bcrypt::verify(password, &hash).unwrap_or(false) && exists;
                if good {
                    remember(&known.good, fact);
                } else {
                    remember(&known.bad, fact);
                    *peer.not_before() = Instant::now() + PENALTY * began.elapsed();
                }
                good
            };
            self.pool.run(work).await.unwrap_or(false)
        };
        match timeout(LONGEST_WAIT, computed).await {
            Ok(true) => Verdict::Allowed,
            Ok(false) => Verdict::Wrong,
            Err(_) => Verdict::Busy,
        }
    }

    /// What is kept of an address; `None` where too many are known.
    fn peer(&self, address: IpAddr) -> Option<Arc<Peer>> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PEERS && !peers.contains_key(&address) {
            let now = Instant::now();
            peers.retain(|_, peer| Arc::strong_count(peer) > 1 || *peer.not_before() > now);
            if peers.len() >= PEERS {
                return None;
            }
        }
        Some(Arc::clone(
            peers.entry(address).or_insert_with(|| Arc::new(Peer::new())),
        ))
    }

    fn fact(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.secret);
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

/// User and password of a header.
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = header.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let plain = BASE64_STANDARD.decode(rest).ok()?;
    let at = plain.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(plain[..at].to_vec()).ok()?;
    Some((name, plain[at + 1..].to_vec()))
}

fn contains(known: &Mutex<HashMap<[u8; 32], ()>>, fact: &[u8; 32]) -> bool {
    known.lock().unwrap_or_else(PoisonError::into_inner).contains_key(fact)
}

fn remember(known: &Mutex<HashMap<[u8; 32], ()>>, fact: [u8; 32]) {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= REMEMBERED {
        // Any of them: what comes again is found out again.
        let any = known.keys().next().copied();
        any.and_then(|any| known.remove(&any));
    }
    known.insert(fact, ());
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Made by libxcrypt, of `open sesame`.
    const SESAME: &str = "$2b$04$aIK0/fg5w3bUDcLZ9qhH2OUicn3hBHaSoD31IbNqLGf9bLp7QClua";
    /// The same, of `x` 80 times: what is behind the 72nd byte does not count.
    const LONG: &str = "$2y$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i";

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn users() -> BTreeMap<String, String> {
        BTreeMap::from([("ali", SESAME), ("morgiana", LONG)].map(|(name, hash)| (name.to_owned(), hash.to_owned())))
    }

    fn header(text: &str) -> HeaderValue {
        format!("Basic {}", BASE64_STANDARD.encode(text)).parse().unwrap()
    }

    #[tokio::test]
    async fn only_user_and_password_together_are_let_in_and_both_answers_are_remembered() {
        let passwords = Passwords::new();
        let users = users();
        let check = async |text: &str| passwords.check(&users, Some(&header(text)), HOME).await;
        for _ in 0..2 {
            assert_eq!(check("ali:open sesame").await, Verdict::Allowed);
            assert_eq!(check("ali:open barley").await, Verdict::Wrong);
            assert_eq!(check("cassim:open sesame").await, Verdict::Wrong);
            assert_eq!(check("ali:").await, Verdict::Wrong);
        }
        assert_eq!(passwords.known.good.lock().unwrap().len(), 1);
        assert_eq!(passwords.known.bad.lock().unwrap().len(), 3);
        assert_eq!(check(&format!("morgiana:{}", "x".repeat(80))).await, Verdict::Allowed);
        let other = BTreeMap::from([("ali".to_owned(), NOBODY.to_owned())]);
        let now = passwords.check(&other, Some(&header("ali:open sesame")), HOME).await;
        assert_eq!(now, Verdict::Wrong, "another hash is another question");
    }

    #[tokio::test]
    async fn what_is_no_basic_authentication_is_missing() {
        let passwords = Passwords::new();
        assert_eq!(passwords.check(&users(), None, HOME).await, Verdict::Missing);
        for text in ["", "Basic", "Bearer abc", "Basic !!!", "Basic YWxp", "basic /zo="] {
            let header = HeaderValue::from_str(text).unwrap();
            assert_eq!(
                passwords.check(&users(), Some(&header), HOME).await,
                Verdict::Missing,
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn who_guesses_keeps_nobody_else_out() {
        let (passwords, users) = (Passwords::new(), users());
        let wrong: Vec<_> = (0..2 * WAITING).map(|n| header(&format!("ali:{n}"))).collect();
        let guesses = wrong.iter().map(|header| passwords.check(&users, Some(header), HOME));
        let other = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let right = header("ali:open sesame");
        let (guesses, verdict) = tokio::join!(
            futures_util::future::join_all(guesses),
            passwords.check(&users, Some(&right), other)
        );
        assert_eq!(verdict, Verdict::Allowed);
        let busy = guesses.iter().filter(|verdict| **verdict == Verdict::Busy).count();
        assert_eq!(busy, WAITING, "{guesses:?}");
        assert!(*passwords.peer(HOME).unwrap().not_before() > *passwords.peer(other).unwrap().not_before());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_remembered_all_the_same() {
        let (passwords, users) = (Passwords::new(), users());
        let right = header("ali:open sesame");
        let asked = passwords.check(&users, Some(&right), HOME);
        tokio::select! {
            biased;
            _ = asked => panic!("it takes longer than a moment"),
            () = tokio::task::yield_now() => {}
        }
        while passwords.known.good.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let known = Mutex::default();
        for n in 0..10 * REMEMBERED {
            let mut fact = [0; 32];
            fact[..8].copy_from_slice(&(n as u64).to_be_bytes());
            remember(&known, fact);
            assert!(contains(&known, &fact));
        }
        assert_eq!(known.lock().unwrap().len(), REMEMBERED);
    }
}
