//! Does in a bucket what a sidecar does there: lists, writes an object in one request and one in parts, and reads them back.
//! What it writes has keys of its own ([`Canary`]) and is removed by [`remove`], which is to be called however the run ends.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Check, Finding, Part,
    table::{
        BUCKET_CLOCK, BUCKET_CREDENTIALS, BUCKET_DELETE, BUCKET_EXISTS, BUCKET_LIST, BUCKET_MULTIPART, BUCKET_PUT,
        BUCKET_REACHABLE, BUCKET_READ, BUCKET_REGION, BUCKET_UPLOADS,
    },
};
use crate::objstore::{Bucket, CANARY_DIR, Canary, CanaryKey, Error, ErrorKind, StoreClock};

/// What is written in one request, and in parts: the smallest part of a store has 5 MiB, and there must be a second one.
const WHOLE_LEN: usize = 1024;
const PARTS_LEN: usize = (5 << 20) + PIECE;
const PIECE: usize = 64 << 10;

/// Clocks that differ by more are warned of (seconds).
const SKEW_SECS: u64 = 300;

/// What a run may do.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Objects may be written.
    pub write: bool,
    /// The configuration allows for parts.
    pub parts: bool,
}

/// The objects of one run that may be in the bucket.
#[derive(Debug)]
pub struct Written {
    canary: Canary,
    keys: Mutex<Vec<CanaryKey>>,
}

impl Written {
    /// None yet.
    pub fn new() -> Self {
        Self {
            canary: Canary::new(),
            keys: Mutex::default(),
        }
    }

    /// From now on there may be one under this key.
    fn begin(&self, key: &CanaryKey) {
        self.keys().push(key.clone());
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Vec<CanaryKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Written {
    fn default() -> Self {
        Self::new()
    }
}

/// Lists, writes and reads.
pub async fn probe(part: &Part, bucket: &dyn Bucket, clock: &StoreClock, wanted: Wanted, written: &Written) {
    if let Err(error) = steps(part, bucket, wanted, written).await {
        part.add([error]);
    }
    part.add(clock.ahead_secs().and_then(skew));
}

/// The finding at which nothing more can be said, if there is one.
async fn steps(part: &Part, bucket: &dyn Bucket, wanted: Wanted, written: &Written) -> Result<(), Finding> {
    let place = bucket.identity();
    part.waits_for(&BUCKET_LIST, format!("a listing of {place}/{CANARY_DIR}"));
    match bucket.list(CANARY_DIR).await {
        Ok(left) => part.add([listed(place, left.len())]),
        Err(error) => of_bucket_or(part, &BUCKET_LIST, &error)?,
    }
    part.waits_for(&BUCKET_UPLOADS, "the rules of the bucket");
    part.add(bucket.clears_unfinished_uploads().await.map(rule_for_uploads));
    if !wanted.write {
        return Ok(());
    }
    let key = written.canary.whole();
    part.waits_for(&BUCKET_PUT, format!("{place} to take an object of {WHOLE_LEN} bytes"));
    written.begin(&key);
    match bucket.put_bytes(key.as_str(), body(0, WHOLE_LEN)).await {
        Ok(()) => {
            part.add([Finding::ok(&BUCKET_PUT, "an object was written")]);
            read_back(part, bucket, &key, WHOLE_LEN).await?;
        }
        // In parts it would fail for the same reason.
        Err(error) => return of_bucket_or(part, &BUCKET_PUT, &error),
    }
    if !wanted.parts {
        let text = "not used: `disable_multipart` is set";
        part.add([Finding::ok(&BUCKET_MULTIPART, text)]);
        return Ok(());
    }
    let key = written.canary.parts();
    part.waits_for(&BUCKET_MULTIPART, format!("{place} to take an object in parts"));
    written.begin(&key);
    let pieces = stream::iter((0..PARTS_LEN / PIECE).map(|n| Ok(body(n, PIECE)))).boxed();
    match bucket.put_stream(key.as_str(), pieces, PARTS_LEN as u64).await {
        Ok(len) => {
            part.add([Finding::ok(
                &BUCKET_MULTIPART,
                format!("an object of {len} bytes was written in parts"),
            )]);
            read_back(part, bucket, &key, PARTS_LEN).await
        }
        Err(error) => of_bucket_or(part, &BUCKET_MULTIPART, &error),
    }
}

/// Reads an object and holds it against what was written.
async fn read_back(part: &Part, bucket: &dyn Bucket, key: &CanaryKey, len: usize) -> Result<(), Finding> {
    part.waits_for(&BUCKET_READ, format!("{}/{}", bucket.identity(), key.as_str()));
    let same = async {
        let mut pieces = bucket.read(key.as_str(), 0).await?.pieces;
        let (mut at, mut same) = (0, true);
        while let Some(piece) = pieces.try_next().await? {
            same &= piece.iter().zip(at..).all(|(byte, at)| *byte == byte_at(at, len));
            at += piece.len();
        }
        Ok::<bool, Error>(same && at == len)
    };
    match same.await {
        Ok(true) => part.add([Finding::ok(
            &BUCKET_READ,
            format!("{len} bytes were read back, the same"),
        )]),
        Ok(false) => part.add([Finding::fail(
            &BUCKET_READ,
            format!("{}/{} was read back with other bytes", bucket.identity(), key.as_str()),
        )]),
        Err(error) => of_bucket_or(part, &BUCKET_READ, &error)?,
    }
    Ok(())
}

/// The `n`th piece of `len` bytes.
fn body(n: usize, len: usize) -> Bytes {
    vec![n as u8; len].into()
}

/// The byte at a place of an object of this length.
fn byte_at(at: usize, len: usize) -> u8 {
    match len {
        PARTS_LEN => (at / PIECE) as u8,
        _ => 0,
    }
}

/// Adds a failure that concerns this step alone; another one is returned, since it would meet every other step.
fn of_bucket_or(part: &Part, step: &'static Check, error: &Error) -> Result<(), Finding> {
    let check = match error.kind {
        ErrorKind::NoBucket => &BUCKET_EXISTS,
        ErrorKind::Credentials => &BUCKET_CREDENTIALS,
        ErrorKind::Region => &BUCKET_REGION,
        ErrorKind::Clock => &BUCKET_CLOCK,
        ErrorKind::Network | ErrorKind::Stalled | ErrorKind::Server | ErrorKind::Throttled => &BUCKET_REACHABLE,
        _ => {
            part.add([Finding::fail(step, error.to_string())]);
            return Ok(());
        }
    };
    Err(Finding::fail(check, error.to_string()))
}

fn listed(place: &str, left: usize) -> Finding {
    let text = match left {
        0 => format!("{place} can be listed"),
        left => format!("{place} can be listed; earlier checks have left {left} objects below {CANARY_DIR}/"),
    };
    Finding::ok(&BUCKET_LIST, text)
}

fn rule_for_uploads(clears: bool) -> Finding {
    let text = match clears {
        true => "a rule of the bucket clears unfinished uploads away",
        false => {
            "no rule of the bucket clears unfinished uploads away; what a killed narthex leaves of a block, the next one that sends the block aborts after a day"
        }
    };
    Finding::ok(&BUCKET_UPLOADS, text)
}

fn skew(ahead_secs: i64) -> Option<Finding> {
    let order = if ahead_secs > 0 { "ahead of" } else { "behind" };
    let secs = ahead_secs.unsigned_abs();
    let text = format!("the store's clock is {secs}s {order} the one of this host");
    (secs > SKEW_SECS).then(|| Finding::warn(&BUCKET_CLOCK, text))
}

/// Removes what was written. What may not be removed is made empty, so that runs leave names and no bytes.
pub async fn remove(part: &Part, bucket: &dyn Bucket, written: &Written) {
    let keys = std::mem::take(&mut *written.keys());
    if keys.is_empty() {
        return;
    }
    let (mut stays, mut why) = (Vec::new(), None);
    for key in &keys {
        let place = format!("{}/{}", bucket.identity(), key.as_str());
        part.waits_for(&BUCKET_DELETE, format!("the removal of {place}, which may stay"));
        let Err(error) = bucket.remove(key).await else {
            continue;
        };
        // A write that has failed has left nothing, as a rule.
        if !matches!(bucket.stat(key.as_str()).await, Ok(None)) {
            let emptied = bucket.put_bytes(key.as_str(), Bytes::new()).await.is_ok();
            stays.push(if emptied { format!("{place} (empty)") } else { place });
        }
        why = Some(error);
    }
    part.add([removed(why, &stays.join(" and "))]);
}

/// What is said of the removal: why something could not be removed, if so, and what stays.
fn removed(why: Option<Error>, stays: &str) -> Finding {
    match why {
        None => Finding::ok(&BUCKET_DELETE, "what this check wrote is removed"),
        // Nothing that a sidecar needs.
        Some(error) if error.kind == ErrorKind::Forbidden => {
            let left = match stays {
                "" => String::new(),
                stays => format!("; this check leaves {stays}"),
            };
            let text = format!("objects may not be deleted, which the sidecar never does{left}");
            Finding::ok(&BUCKET_DELETE, text)
        }
        Some(error) => Finding::warn(&BUCKET_DELETE, format!("{stays} may stay: {error}")),
    }
}

#[cfg(test)]
mod tests;
