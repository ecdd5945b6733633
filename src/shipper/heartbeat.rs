//! Fresh news of Prometheus on request, instead of at its next heartbeat.
//!
//! **Guarantees.** Asking never waits; waiting has a limit. What an answered heartbeat brought is in the
//! [`PrometheusStatus`](super::PrometheusStatus) before it counts as answered here. Nothing is kept, so that a crash or a
//! cancelled wait leaves nothing behind but a heartbeat that nobody needs.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

/// The heartbeat of Prometheus as the shipper sees it; whoever passes its news on gives it one.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    ask: Arc<Notify>,
    answered: watch::Receiver<Option<Instant>>,
}

impl Heartbeat {
    /// `ask` is notified for a heartbeat that begins afterwards; `answered` tells when the last one began that was
    /// answered, once the news of it are passed on.
    pub fn new(ask: Arc<Notify>, answered: watch::Receiver<Option<Instant>>) -> Self {
        Self { ask, answered }
    }

    /// Asks for a heartbeat and does not wait for it.
    pub fn request(&self) {
        self.ask.notify_one();
    }

    /// Waits for at most `limit` until a heartbeat was answered that began at `moment`, which is not in the future, or
    /// later; asks for one if there was none yet. Whether there was.
    pub async fn wait_answered_since(&mut self, moment: Instant, limit: Duration) -> bool {
        let fresh = |answered: &Option<Instant>| answered.is_some_and(|began| began >= moment);
        if fresh(&self.answered.borrow()) {
            return true;
        }
        self.request();
        matches!(timeout(limit, self.answered.wait_for(fresh)).await, Ok(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_heartbeat_that_began_late_enough_counts() {
        let (ask, (sender, answered)) = (Arc::new(Notify::new()), watch::channel(None));
        let mut heartbeat = Heartbeat::new(Arc::clone(&ask), answered);
        let (limit, second) = (Duration::from_secs(5), Duration::from_secs(1));
        let early = Instant::now();
        tokio::time::advance(second).await;
        let moment = Instant::now();
        sender.send_replace(Some(early));
        let later = async {
            ask.notified().await;
            tokio::time::sleep(second).await;
            sender.send_replace(Some(Instant::now()));
        };
        let (fresh, ()) = tokio::join!(heartbeat.wait_answered_since(moment, limit), later);
        assert!(fresh);
        assert_eq!(moment.elapsed(), second);
        assert!(
            heartbeat.wait_answered_since(moment, limit).await,
            "it need not be asked again"
        );
        let nobody_was_asked = timeout(second, ask.notified()).await.is_err();
        assert!(nobody_was_asked);
    }

    #[tokio::test(start_paused = true)]
    async fn a_prometheus_that_does_not_answer_is_not_waited_for_beyond_the_limit() {
        let (sender, answered) = watch::channel(None);
        let mut heartbeat = Heartbeat::new(Arc::default(), answered);
        let (start, limit) = (Instant::now(), Duration::from_secs(5));
        assert!(!heartbeat.wait_answered_since(start, limit).await);
        assert_eq!(start.elapsed(), limit);
        drop(sender);
        assert!(
            !heartbeat.wait_answered_since(start, limit).await,
            "there is no heartbeat any more"
        );
        assert_eq!(start.elapsed(), limit);
    }
}
