//! What a client of Series is told when Prometheus could not be read.

use tonic::{Code, Status};

use crate::prometheus::{
    ErrorKind,
    remote_read::{ReadError, ReadErrorKind},
};

/// The status for a remote read that failed.
pub fn status(error: &ReadError) -> Status {
    let code = match &error.kind {
        ReadErrorKind::Http(kind) => code(kind),
        _ => Code::Unknown,
    };
    Status::new(code, format!("query Prometheus: {error}"))
}

fn code(kind: &ErrorKind) -> Code {
    match kind {
        ErrorKind::Refused => Code::Unavailable,
        ErrorKind::Timeout(_) => Code::DeadlineExceeded,
        ErrorKind::Status { code: 400, .. } => Code::InvalidArgument,
        ErrorKind::Status { code: 503, .. } => Code::Unavailable,
        _ => Code::Internal,
    }
}
