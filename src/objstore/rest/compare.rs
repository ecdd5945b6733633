//! Whether an object is the same as a file, where its checksum does not say so.

use std::sync::Arc;

use super::{Dialect, Rest};
use crate::objstore::{
    Comparison, Error, ErrorKind, Op, Source,
    transfer::{
        body::{Slice, Sum},
        compare,
    },
};

impl<D: Dialect> Rest<D> {
    /// Reads an object and holds it against a file.
    pub(in crate::objstore) async fn read_back(
        self: &Arc<Self>,
        key: &str,
        source: &Source,
    ) -> Result<Comparison, Error> {
        let local = |reason| self.error(Op::Get, key, ErrorKind::Local, reason);
        let reading = self.read(key, 0, std::future::ready(Ok(None))).await;
        compare::read_back(reading, source, &self.buffers, local).await
    }

    /// A sum over a whole file, which must be as long as when it was opened.
    pub(in crate::objstore) async fn summed<S: Sum>(
        &self,
        op: Op,
        key: &str,
        source: &Source,
        sum: S,
    ) -> Result<S, Error> {
        let local = |reason: String| self.error(op, key, ErrorKind::Local, reason);
        source.unchanged().map_err(local)?;
        Slice::whole(source).digest(sum, &self.buffers).await.map_err(local)
    }
}
