//! Pure values that every module shares: they do no I/O and import nothing of ours.

pub mod build;
pub mod duration;
pub mod duration_text;
pub mod error_text;
pub mod few;
pub mod fields;
pub mod go_string;
pub mod label_bytes;
pub mod labels;
pub mod matcher;
pub mod read_series;
pub mod readable;
pub mod retention;
pub mod selector;
pub mod served_from;
pub mod url_text;
pub mod uvarint;
pub mod variables;
pub mod whole_number;
pub mod yaml_text;

pub use few::few;
pub use label_bytes::LabelBytes;
pub use labels::{Label, Labels};
pub use matcher::Matcher;
pub use read_series::{ReadChunk, ReadSeries};
pub use retention::Retention;
pub use served_from::ServedFrom;
