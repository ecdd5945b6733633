//! What happens with chunks in newer encodings, from the flag to who does it.

use crate::{cli, shipper::NewerEncodings};

pub(super) fn newer_encodings(flag: cli::NewerEncodings) -> NewerEncodings {
    match flag {
        cli::NewerEncodings::Rewrite => NewerEncodings::Rewrite,
        cli::NewerEncodings::Hold => NewerEncodings::Hold,
        cli::NewerEncodings::Ship => NewerEncodings::Ship,
        cli::NewerEncodings::Mark => NewerEncodings::Mark,
    }
}
