//! The span of a call, for the collector of `--tracing.config`: a part of its caller's trace, named as Thanos names it.

use std::net::SocketAddr;

use http::HeaderMap;
use tonic::Code;
use tracing::{Span, field::Empty, info_span};

use super::metrics::code_name;
use crate::spans::{self, TARGET};

/// The span of a call of a method that there is, which begins; disabled, and for nothing, without a collector.
pub(super) fn begin(path: &str, peer: SocketAddr, headers: &HeaderMap) -> Span {
    let span = info_span!(
        target: TARGET,
        parent: None,
        "grpc_call",
        otel.name = path,
        otel.kind = "server",
        rpc.system = "grpc",
        client.address = %peer.ip(),
        rpc.grpc.status_code = Empty,
    );
    spans::follow(&span, headers);
    span
}

/// Says in a span how its call has ended.
pub(super) fn end(span: &Span, code: Code, message: &str) {
    span.record("rpc.grpc.status_code", code as i32);
    if code != Code::Ok {
        spans::fail(span, &format_args!("{}: {message}", code_name(code)));
    }
}
