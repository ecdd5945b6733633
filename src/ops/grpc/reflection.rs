//! The reflection services: which services there are, and what their messages look like.

use tonic_reflection::{
    pb,
    server::{Builder, v1, v1alpha},
};

/// The descriptors are not what reflection can answer from.
#[derive(Debug, thiserror::Error)]
#[error("bad descriptors for reflection: {0}")]
pub struct ReflectionError(tonic_reflection::server::Error);

impl From<tonic_reflection::server::Error> for ReflectionError {
    fn from(error: tonic_reflection::server::Error) -> Self {
        Self(error)
    }
}

/// The reflection services of both versions over `descriptors`, an encoded `FileDescriptorSet`: all its services, and the
/// two themselves.
///
/// # Errors
/// `descriptors` is no such set.
pub fn reflection(
    descriptors: &'static [u8],
) -> Result<
    (
        v1::ServerReflectionServer<impl v1::ServerReflection>,
        v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>,
    ),
    ReflectionError,
> {
    let builder = || {
        Builder::configure()
            .include_reflection_service(false)
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(pb::v1alpha::FILE_DESCRIPTOR_SET)
    };
    Ok((builder().build_v1()?, builder().build_v1alpha()?))
}
