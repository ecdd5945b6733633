//! What is asked of clients' certificates, by `client_auth_type` and `client_allowed_sans`.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use crate::trust;

/// Asks for a certificate.
#[derive(Debug)]
pub(super) struct Asked {
    /// Whether one must come.
    pub(super) mandatory: bool,
    /// Verifies it; without, any is good.
    pub(super) verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// One of these names must be in it, if there are any.
    pub(super) names: Vec<String>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Asked {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier
            .as_ref()
            .map_or(&[], |verifier| verifier.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(verifier) = &self.verifier {
            verifier.verify_client_cert(end_entity, intermediates, now)?;
        }
        if self.names.is_empty() {
            return Ok(ClientCertVerified::assertion());
        }
        let names = trust::alternative_names(end_entity);
        match names.iter().any(|name| self.names.contains(name)) {
            true => Ok(ClientCertVerified::assertion()),
            false => {
                let text = format!(
                    "none of its names is in client_allowed_sans; it has: {}",
                    names.join(", ")
                );
                let error = OtherError(Arc::new(std::io::Error::other(text)));
                Err(CertificateError::Other(error).into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        trust::signed_in_tls12(message, cert, dss, &self.provider)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        trust::signed_in_tls13(message, cert, dss, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
