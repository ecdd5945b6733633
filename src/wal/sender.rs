//! When rounds run, and what follows a failure.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Metrics, Shown,
    layout::{Generation, Identity, Manifest},
    put::Error,
    resume::{generations, resume},
    round::{Context, Current, Look},
};
use crate::{
    model::Labels,
    objstore::{Backoff, Bucket},
    shipper::{BlockOverview, BlockState, LINGER, Liveness, Overviews, PrometheusStatus, now_ms},
};

/// How soon it is tried again where there is nothing to send yet.
const SOON: Duration = Duration::from_secs(1);

/// What is to be sent, and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory of Prometheus (`--tsdb.path`).
    pub dir: PathBuf,
    /// The time between two rounds (`--wal.interval`).
    pub interval: Duration,
    /// What is known of the blocks: they go first when retention presses.
    pub overviews: Overviews,
    /// Where is shown what is known of the log.
    pub shown: Shown,
}

/// Sends the write-ahead log of one data directory.
#[derive(Debug)]
pub struct Sender {
    settings: Settings,
    context: Context,
    prometheus: watch::Receiver<PrometheusStatus>,
    current: Option<(Labels, Current)>,
    /// Why the next generation begins.
    anew: &'static str,
    backoff: Backoff,
    /// Why nothing is sent, as it was logged last: so that it is logged once.
    told: Option<String>,
}

/// How a round ended.
enum Round {
    /// Everything is in the bucket.
    Done,
    /// Something else has to come first, in words.
    Waits(&'static str),
}

impl Sender {
    /// A sender that has sent nothing yet.
    pub fn new(
        settings: Settings,
        bucket: Arc<dyn Bucket>,
        prometheus: watch::Receiver<PrometheusStatus>,
        metrics: Metrics,
    ) -> Self {
        let dir = settings.dir.clone();
        Self {
            settings,
            context: Context { dir, bucket, metrics },
            prometheus,
            current: None,
            anew: "first",
            backoff: Backoff::default(),
            told: None,
        }
    }

    /// Sends until `stop` is cancelled and Prometheus is gone, if it goes as well; the caller bounds that. Whether all of the log
    /// is in the bucket then.
    pub async fn run(mut self, stop: CancellationToken) -> bool {
        self.context.metrics.start(now_ms());
        let mut stopped = None;
        loop {
            let began = Instant::now();
            if stop.is_cancelled() {
                stopped.get_or_insert(began);
            }
            let liveness = self.prometheus.borrow_and_update().liveness;
            let lingered = |stopped| began.duration_since(stopped) >= LINGER;
            let is_last = stopped.is_some_and(|stopped| match liveness {
                Liveness::Up => lingered(stopped),
                // It replays its log, perhaps, and nothing was ever sent.
                Liveness::Stopping => lingered(stopped) && self.current.is_none(),
                Liveness::Gone => true,
            });
            let round = self.round().await;
            match &round {
                Ok(Round::Done) if is_last => return true,
                // Nothing that it waits for comes any more.
                Ok(Round::Waits(_)) if is_last && !self.has_more_to_come() => return false,
                _ => {}
            }
            let wait = self.wait_after(round, began.elapsed());
            self.rest(wait, &stop, stopped).await;
        }
    }

    /// One round, with what follows upon its failure but the wait; whether everything is in the bucket now.
    #[cfg(test)]
    pub(crate) async fn round_once(&mut self) -> bool {
        let round = self.round().await;
        let is_done = matches!(round, Ok(Round::Done));
        self.wait_after(round, Duration::ZERO);
        is_done
    }

    /// Waits for so long, or until it is told to stop, or Prometheus is gone after that.
    async fn rest(&mut self, wait: Duration, stop: &CancellationToken, stopped: Option<Instant>) {
        let gone = async {
            let is_gone = |status: &PrometheusStatus| status.liveness == Liveness::Gone;
            match stopped {
                // Whoever tells of Prometheus has ended: nothing more is to be heard.
                Some(_) if self.prometheus.wait_for(is_gone).await.is_ok() => {}
                _ => std::future::pending().await,
            }
        };
        let wait = stopped.map_or(wait, |_| wait.min(LINGER));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled(), if stopped.is_none() => {}
            () = gone => {}
        }
    }

    /// What follows a round that took so long: the wait until the next one.
    fn wait_after(&mut self, round: Result<Round, Error>, took: Duration) -> Duration {
        match round {
            Ok(Round::Done) => {
                self.backoff.reset();
                if self.told.take().is_some() {
                    tracing::info!("the write-ahead log is in the bucket up to now");
                    self.settings.shown.update(|shown| shown.failure = None);
                }
                self.settings.interval.saturating_sub(took)
            }
            Ok(Round::Waits(why)) => {
                self.backoff.reset();
                if self.tell(why.to_owned()) {
                    tracing::info!(why, "the write-ahead log is not sent yet");
                }
                match self.current {
                    // What there is was sent, or the line is left to others: no more often than else.
                    Some(_) => self.settings.interval.saturating_sub(took),
                    None => SOON.min(self.settings.interval),
                }
            }
            Err(Error::Anew { why, reason }) => {
                match reason {
                    "age" => tracing::info!(why, "sending the write-ahead log anew as another copy"),
                    _ => tracing::warn!(
                        why,
                        "what was sent of the write-ahead log cannot be continued; sending it anew as another copy"
                    ),
                }
                (self.current, self.anew) = (None, reason);
                self.backoff.next()
            }
            Err(error) => {
                self.context.metrics.failures.inc();
                if self.tell(error.to_string()) {
                    tracing::warn!(%error, "sending the write-ahead log failed, retrying with growing waits of up to 30 s");
                }
                self.backoff.next()
            }
        }
    }

    /// Shows why nothing is sent; whether that is news.
    fn tell(&mut self, why: String) -> bool {
        let is_news = self.told.as_ref() != Some(&why);
        if is_news {
            self.settings.shown.update(|shown| shown.failure = Some(why.clone()));
            self.told = Some(why);
        }
        is_news
    }

    async fn round(&mut self) -> Result<Round, Error> {
        let labels = self.prometheus.borrow().labels.clone();
        let Some(labels) = labels.filter(|labels| !labels.is_empty()) else {
            return Ok(Round::Waits(
                "the external labels of Prometheus are not known, or there are none",
            ));
        };
        if self.blocks_go_first() {
            return Ok(Round::Waits("blocks that retention deletes soon are sent first"));
        }
        let look = Look::take(self.context.dir.clone()).await?;
        if look.wal.segments.is_empty() {
            return Ok(Round::Waits("there is no segment in the directory wal of --tsdb.path"));
        }
        if self.current.as_ref().is_some_and(|(of, _)| *of != labels) {
            tracing::info!(%labels, "the external labels have changed: the write-ahead log is sent anew under the new ones");
            (self.current, self.anew) = (None, "labels");
        }
        let current = match &mut self.current {
            Some((_, current)) => current,
            None => {
                let current = self.begin(&labels, &look).await?;
                &mut self.current.insert((labels, current)).1
            }
        };
        let blocks = self.settings.overviews.newest();
        if !current.round(&self.context, &look, &blocks).await? {
            return Ok(Round::Waits(
                "the log is in the bucket up to here, but not yet what it began with: a checkpoint, and the blocks with what that lacks",
            ));
        }
        self.context.metrics.set_durable(look.at_ms);
        self.settings.shown.update(|shown| shown.durable_ms = Some(look.at_ms));
        Ok(Round::Done)
    }

    /// Continues the generation that the bucket has, or begins one.
    async fn begin(&mut self, labels: &Labels, look: &Look) -> Result<Current, Error> {
        let identity = Identity::of(labels);
        let mut there = generations(&*self.context.bucket, &identity.manifests()).await?;
        let newest = there.pop_last();
        if matches!(self.anew, "first" | "labels")
            && let Some((generation, written)) = &newest
            && let Some(current) = resume(&self.context, generation.clone(), written).await?
        {
            self.settings
                .shown
                .update(|shown| shown.generation = current.generation.name.clone());
            return Ok(current);
        }
        let generation = Generation::begin(
            identity,
            newest.as_ref().map(|newest| &newest.0),
            look.at_ms,
            rand::random(),
        );
        let interval_ms = u64::try_from(self.settings.interval.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(%generation, segment = look.wal.first(), checkpoint = look.wal.checkpoint, "sending the write-ahead log from its beginning");
        self.context.metrics.count_generation(self.anew);
        self.settings
            .shown
            .update(|shown| shown.generation = generation.name.clone());
        let manifest = Manifest::begin(labels, look.at_ms, interval_ms);
        Ok(Current::begin(generation, manifest, look))
    }

    /// Whether what a round waits for is under way.
    fn has_more_to_come(&self) -> bool {
        let is_sending = self
            .current
            .as_ref()
            .is_some_and(|(_, current)| current.upload.is_some());
        is_sending || self.blocks_go_first()
    }

    /// Whether a block that is due is about to be deleted: then the line is left to it.
    fn blocks_go_first(&self) -> bool {
        let overview = self.settings.overviews.newest();
        let presses = |block: &BlockOverview| block.near_deletion && block.state == BlockState::Due;
        overview.blocks.iter().any(presses)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::objstore::{self, Limits, config::parse};

    #[tokio::test(start_paused = true)]
    async fn where_nothing_was_ever_sent_a_stop_is_not_waited_out() {
        let root = tempfile::tempdir().unwrap();
        let yaml = format!("{{type: FILESYSTEM, config: {{directory: {}}}}}", root.path().display());
        let (config, registry) = (parse(&yaml).unwrap(), &mut Registry::default());
        let bucket = objstore::open(&config, &Limits::default(), registry).await.unwrap();
        for liveness in [Liveness::Up, Liveness::Stopping, Liveness::Gone] {
            // Its labels are not known.
            let status = PrometheusStatus {
                liveness,
                ..PrometheusStatus::default()
            };
            let settings = Settings {
                dir: root.path().to_owned(),
                interval: Duration::from_secs(10),
                overviews: Overviews::default(),
                shown: Shown::default(),
            };
            let (_told, prometheus) = watch::channel(status);
            let metrics = Metrics::register(&mut Registry::default());
            let sender = Sender::new(settings, Arc::clone(&bucket), prometheus, metrics);
            let stop = CancellationToken::new();
            stop.cancel();
            let ended = tokio::time::timeout(Duration::from_secs(60), sender.run(stop)).await;
            assert_eq!(ended, Ok(false), "{liveness:?}");
        }
    }
}
