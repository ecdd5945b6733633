//! Several sources of series, of ranges of time that follow one another, as one.
//!
//! **Guests.** An open remote read keeps Prometheus from sealing blocks, and blocks may take much longer to read than what
//! Prometheus is asked for. So that is read first, as fast as it comes, and kept until its place comes: up to a limit, which most
//! of what a head holds does not reach, and as long as there is memory. Beyond that Prometheus waits for the blocks.

use std::{
    cmp::Ordering,
    collections::VecDeque,
    task::{Context, Poll},
};

use tonic::Status;

use super::{Single, size};
use crate::{
    model::{LabelBytes, ReadSeries},
    prometheus::remote_read::wire::Frame,
    storeapi::budget::Reservation,
};

/// What a series takes beside its labels and chunks (bytes).
const OVERHEAD: usize = 128;
/// So many series at most are merged into one frame.
const AT_ONCE: usize = 256;

/// Sources in the order of time.
#[derive(Debug)]
pub struct Merged {
    parts: Vec<Part>,
    /// The query whose series are merged; those of the others are collected anyway.
    streamed: Option<i64>,
    /// Memory for what Prometheus sends early.
    reservation: Reservation,
    /// Names of labels that Prometheus may have added to the stored ones, sorted: they say nothing of the order.
    added: Vec<String>,
}

/// The most that is kept of what Prometheus has sent (bytes).
const AHEAD: usize = 16 << 20;

#[derive(Debug)]
struct Part {
    frames: Single,
    /// What Prometheus has sent before its place has come.
    ahead: VecDeque<Frame>,
    ahead_bytes: usize,
    /// Series of the streamed query.
    series: VecDeque<ReadSeries>,
    /// No more series of the other queries come.
    is_collected: bool,
    is_over: bool,
}

impl Merged {
    /// The series of `parts`, merged by the labels other than `added` where they are of the query `streamed`.
    pub fn new(parts: Vec<Single>, streamed: Option<i64>, added: Vec<String>, reservation: Reservation) -> Self {
        let part = |frames| Part {
            frames,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            series: VecDeque::new(),
            is_collected: false,
            is_over: false,
        };
        Self {
            parts: parts.into_iter().map(part).collect(),
            streamed,
            added,
            reservation,
        }
    }

    pub(super) fn torn_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.frames.torn_bytes()).sum()
    }

    pub(super) fn holds_prometheus(&self) -> bool {
        self.parts.iter().any(|part| part.frames.holds_prometheus())
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Status>>> {
        if let Err(status) = self.read_ahead(cx) {
            return Poll::Ready(Some(Err(status)));
        }
        let mut waits = false;
        for part in &mut self.parts {
            while part.series.is_empty() && !part.is_over {
                match part.poll_next(cx, &mut self.reservation) {
                    Poll::Ready(Some(Ok(frame))) if self.streamed == Some(frame.query_index) => {
                        part.series = frame.series.into();
                        part.is_collected = true;
                    }
                    Poll::Ready(Some(other)) => return Poll::Ready(Some(other)),
                    Poll::Ready(None) => part.is_over = true,
                    // What is collected keeps its order: that of time.
                    Poll::Pending if !part.is_collected => return Poll::Pending,
                    Poll::Pending => {
                        waits = true;
                        break;
                    }
                }
            }
        }
        if waits {
            return Poll::Pending;
        }
        let series = self.merge();
        if series.is_empty() {
            return Poll::Ready(None);
        }
        let query_index = self.streamed.unwrap_or_default();
        Poll::Ready(Some(Ok(Frame { query_index, series })))
    }

    /// Takes what Prometheus has sent, while there is room.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Result<(), Status> {
        for part in &mut self.parts {
            while let Single::Prometheus(frames) = &mut part.frames
                && part.ahead_bytes < AHEAD
                && frames.is_open()
            {
                let Poll::Ready(frame) = frames.poll_frame(cx) else {
                    break;
                };
                let Some(frame) = frame.transpose()? else { break };
                let bytes = held(&frame);
                part.ahead_bytes += bytes;
                part.ahead.push_back(frame);
                // What has come is kept; where there is no memory no more is taken.
                if !self.reservation.reserve(bytes) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Takes series off the parts for as long as it is known which comes first.
    fn merge(&mut self) -> Vec<ReadSeries> {
        let mut merged: Vec<ReadSeries> = Vec::new();
        while merged.len() < AT_ONCE && self.parts.iter().all(|part| part.is_over || !part.series.is_empty()) {
            let heads = self.parts.iter().enumerate();
            let heads = heads.filter_map(|(at, part)| Some((at, &part.series.front()?.labels)));
            // Of equal ones the first.
            let first = heads
                .min_by(|(_, a), (_, b)| compare(a, b, &self.added))
                .map(|(at, _)| at);
            let Some(series) = first.and_then(|at| self.parts[at].series.pop_front()) else {
                break;
            };
            merged.push(series);
        }
        merged
    }
}

impl Part {
    /// The next frame: one that has come early, or one that comes now.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        reservation: &mut Reservation,
    ) -> Poll<Option<Result<Frame, Status>>> {
        let Some(frame) = self.ahead.pop_front() else {
            return self.frames.poll_frame(cx);
        };
        let bytes = held(&frame);
        self.ahead_bytes -= bytes;
        reservation.release(bytes);
        Poll::Ready(Some(Ok(frame)))
    }
}

/// What a frame takes in memory, about (bytes).
fn held(frame: &Frame) -> usize {
    frame.series.iter().map(|series| size(series) + OVERHEAD).sum()
}

/// The order of two label sets without the labels `left_out`, which are sorted.
fn compare(a: &LabelBytes, b: &LabelBytes, left_out: &[String]) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let counts = |label: &(&[u8], &[u8])| left_out.binary_search_by(|name| name.as_bytes().cmp(label.0)).is_err();
    a.iter().filter(counts).cmp(b.iter().filter(counts))
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::{
        super::blocks::tests::{block, frames},
        *,
    };
    use crate::storeapi::budget::Budget;

    const LIMIT: Duration = Duration::from_secs(60);

    type Text = Vec<(String, String)>;

    fn text(labels: &LabelBytes) -> Text {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        labels.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    /// What comes of blocks with these series, each in order, whose chunks are of the times 0, 1, and so on.
    async fn merged(blocks: &[&[Vec<(&str, &str)>]], added: &[&str]) -> Vec<(Text, Vec<i64>)> {
        let (mut parts, mut dirs) = (Vec::new(), Vec::new());
        for (time, labels) in blocks.iter().enumerate() {
            let (wanted, dir) = block(labels, time as i64);
            parts.push(Single::Blocks(Box::new(frames(wanted, LIMIT))));
            dirs.push(dir);
        }
        let added = added.iter().map(|&name| name.to_owned()).collect();
        let mut merged = Merged::new(parts, Some(0), added, Budget::new(1 << 30).reservation());
        let mut found = Vec::new();
        loop {
            let next = tokio::time::timeout(LIMIT, poll_fn(|cx| merged.poll_frame(cx))).await;
            let Some(frame) = next.expect("a frame or the end") else {
                return found;
            };
            let frame = frame.unwrap();
            assert!(frame.query_index == 0 && (1..=AT_ONCE).contains(&frame.series.len()));
            let times = |series: &ReadSeries| series.chunks.iter().map(|chunk| chunk.min_ms).collect();
            found.extend(frame.series.iter().map(|series| (text(&series.labels), times(series))));
        }
    }

    #[tokio::test]
    async fn series_of_several_sources_are_in_order_and_parts_of_one_by_time() {
        let (a, b, c) = (vec![("n", "a")], vec![("n", "b")], vec![("n", "c")]);
        let blocks: [&[_]; 3] = [
            &[a.clone(), c.clone()],
            &[b.clone(), c.clone()],
            &[a.clone(), b.clone()],
        ];
        let found = merged(&blocks, &[]).await;
        let found: Vec<_> = found
            .iter()
            .map(|(labels, times)| (&*labels[0].1, times[0], times.len()))
            .collect();
        assert_eq!(
            found,
            [
                ("a", 0, 1),
                ("a", 2, 1),
                ("b", 1, 1),
                ("b", 2, 1),
                ("c", 0, 1),
                ("c", 1, 1)
            ]
        );
        assert!(merged(&[&[], &[]], &[]).await.is_empty());
    }

    #[tokio::test]
    async fn many_series_of_two_sources_all_come() {
        let values: Vec<String> = (0..10_000).map(|at| format!("{at:05}")).collect();
        let with = |rest: usize| -> Vec<_> {
            let wanted = values.iter().enumerate().filter(|(at, _)| at % 3 != rest);
            wanted.map(|(_, value)| vec![("n", &**value)]).collect()
        };
        let found = merged(&[&with(1), &with(2)], &[]).await;
        assert_eq!(found.len(), with(1).len() + with(2).len());
        assert!(found.is_sorted());
    }

    #[tokio::test]
    async fn labels_that_one_source_adds_say_nothing_of_the_order() {
        // As Prometheus sends them, with its external labels: in the order of what is stored.
        let stored = [vec![("n", "a")], vec![("n", "b")]];
        let labelled = [vec![("cluster", "z"), ("n", "a")], vec![("cluster", "z"), ("n", "b")]];
        let found = merged(&[&stored, &labelled], &["cluster"]).await;
        let found: Vec<_> = found
            .iter()
            .map(|(labels, times)| (labels.last().unwrap().1.as_str(), times[0]))
            .collect();
        assert_eq!(found, [("a", 0), ("a", 1), ("b", 0), ("b", 1)]);
    }
}
