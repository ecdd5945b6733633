//! The bytes of a chunk as Prometheus writes them: encodings that are written, read and transcoded here. Pure.
