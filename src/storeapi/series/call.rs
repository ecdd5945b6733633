//! One Series call.

use std::time::Duration;

use super::query::Query;
use crate::{
    ops::grpc::Caller,
    storeapi::{budget::Reservation, context::View},
};

/// What one call asks for, and the view that it has.
#[derive(Debug)]
pub(super) struct SeriesCall {
    pub(super) query: Query,
    pub(super) view: View,
    pub(super) caller: Caller,
    /// How long what Prometheus has deleted or holds back may be held because of the client.
    pub(super) patience: Duration,
    /// The memory of the query.
    pub(super) _reservation: Option<Reservation>,
}
