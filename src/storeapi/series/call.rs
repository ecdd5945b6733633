//! One Series call.

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
    /// The memory of the query.
    pub(super) _reservation: Option<Reservation>,
}
