//! Where the series of an answer come from: the remote read of Prometheus, sealed blocks on disk, or both.
//!
//! Whatever the source, its series come in frames: those of each query of the split request one after another, each query's
//! in the order of their stored labels. Of two sources the frames of the queries whose series are collected come as they
//! are, and those of the last one merged by stored labels, so that what is behind ([`super::answer`]) sees one source.

pub mod blocks;
pub mod merged;
pub mod metrics;

use std::task::{Context, Poll, ready};

use tonic::Status;

use self::{blocks::BlockFrames, merged::Merged, metrics::Origin};
use super::metrics::Metrics;
use crate::{
    model::ReadSeries,
    prometheus::remote_read::{Frames, gate::Permit, wire::Frame},
    storeapi::errors,
};

/// Frames from somewhere.
#[derive(Debug)]
pub enum Source {
    /// One of them alone.
    Single(Single),
    /// Several, in the order of time.
    Merged(Merged),
}

/// Frames from one place.
#[derive(Debug)]
pub enum Single {
    /// Prometheus.
    Prometheus(PrometheusFrames),
    /// Blocks.
    Blocks(Box<BlockFrames>),
}

impl Source {
    /// The next frame; `None` at the end of a whole answer. After an error there is nothing more.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Status>>> {
        match self {
            Self::Single(single) => single.poll_frame(cx),
            Self::Merged(merged) => merged.poll_frame(cx),
        }
    }

    /// Bytes of a frame that has not come whole yet.
    pub fn torn_bytes(&self) -> usize {
        match self {
            Self::Single(single) => single.torn_bytes(),
            Self::Merged(merged) => merged.torn_bytes(),
        }
    }

    /// Whether an open remote read is behind it, which Prometheus keeps until it is read to its end.
    pub fn holds_prometheus(&self) -> bool {
        match self {
            Self::Single(single) => single.holds_prometheus(),
            Self::Merged(merged) => merged.holds_prometheus(),
        }
    }
}

impl Single {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Status>>> {
        match self {
            Self::Prometheus(frames) => frames.poll_frame(cx),
            Self::Blocks(frames) => frames.poll_frame(cx),
        }
    }

    fn torn_bytes(&self) -> usize {
        match self {
            Self::Prometheus(frames) => frames.torn_bytes(),
            Self::Blocks(_) => 0,
        }
    }

    fn holds_prometheus(&self) -> bool {
        matches!(self, Self::Prometheus(frames) if frames.is_open())
    }
}

/// The frames of a remote read, and its slot. Dropping it closes the connection to Prometheus.
#[derive(Debug)]
pub struct PrometheusFrames {
    frames: Box<Frames>,
    /// `None` once the response was read to its end: the slot is free, whatever is still done with it.
    permit: Option<Permit>,
    metrics: Metrics,
    sources: metrics::Metrics,
}

impl PrometheusFrames {
    /// A remote read whose response has begun.
    pub fn new(frames: Box<Frames>, permit: Permit, metrics: Metrics, sources: metrics::Metrics) -> Self {
        let permit = Some(permit);
        Self {
            frames,
            permit,
            metrics,
            sources,
        }
    }

    fn is_open(&self) -> bool {
        self.permit.is_some()
    }

    fn torn_bytes(&self) -> usize {
        self.frames.torn_bytes()
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Status>>> {
        if self.permit.is_none() {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.frames.poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.sources.read(Origin::Prometheus, &frame.series);
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(errors::read_status(&error))),
            None => {
                if let Some(permit) = self.permit.take() {
                    permit.finish();
                }
                None
            }
        })
    }
}

impl Drop for PrometheusFrames {
    fn drop(&mut self) {
        self.metrics.frames(self.frames.count());
    }
}

/// What a series takes in memory, about (bytes).
pub(super) fn size(series: &ReadSeries) -> usize {
    let chunks: usize = series.chunks.iter().map(|chunk| chunk.data.len()).sum();
    series.labels.as_bytes().len() + chunks
}
