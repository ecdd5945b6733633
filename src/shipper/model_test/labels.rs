//! Under which labels blocks must become visible: those of the first pass that has seen them.

use super::Model;
use crate::shipper::Liveness;

impl Model {
    /// The ledger is lost, and with it under which labels blocks were sealed.
    pub(super) fn forget_labels(&mut self) {
        self.sealed_under.values_mut().for_each(|labels| *labels = None);
    }

    /// A pass has seen these blocks, all of it or the beginning.
    pub(super) fn saw(&mut self, open: &[String], done: bool) {
        let prometheus = self.world.prometheus.borrow().clone();
        let now = match prometheus.labels {
            Some(labels) if labels.is_empty() => return,
            None if prometheus.liveness == Liveness::Up => return,
            labels => labels.filter(|_| done),
        };
        for block in open {
            self.sealed_under.entry(block.clone()).or_insert_with(|| now.clone());
        }
    }

    /// Another run of the process begins. Until it was replaced, the ledger of Thanos stays, and nothing is kept.
    pub(super) fn new_life(&mut self) {
        let ledger = fs_err::read(self.ledger()).unwrap_or_default();
        let ledger: serde_json::Value = serde_json::from_slice(&ledger).unwrap_or_default();
        if ledger["narthex"].is_null() {
            self.forget_labels();
        }
        self.shipper = Some(self.world.shipper());
    }
}
