//! Certificates and keys in PEM, and what is wrong with them in words that show nothing of a key: those of the parser show the
//! bytes of the line at fault, which with lost line breaks is the key.

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error, PemObject as _},
};

/// The certificates of a file, at least one.
///
/// # Errors
/// What is wrong with it.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("no certificate in PEM".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("bad PEM: {}", words(&error))),
    }
}

/// The certificates of a file that can be read.
pub fn readable_certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

/// The first private key of a file.
///
/// # Errors
/// What is wrong with it.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        Error::NoItemsFound => "no private key in PEM".to_owned(),
        error => format!("no private key in PEM: {}", words(&error)),
    })
}

/// What is wrong, without what the text holds.
pub(super) fn words(error: &Error) -> &'static str {
    match error {
        Error::MissingSectionEnd { .. } => "no line -----END …----- ends it: are line breaks lost?",
        Error::IllegalSectionStart { .. } => "its line -----BEGIN …----- has more in it: are line breaks lost?",
        Error::Base64Decode(_) => "what stands between BEGIN and END is not base64",
        Error::SectionTooLarge => "a section is larger than any certificate or key",
        _ => "it cannot be read",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_without_the_text() {
        for (pem, said) in [
            ("", "no private key in PEM"),
            ("hunter2", "no private key in PEM"),
            (
                "-----BEGIN PRIVATE KEY----- hunter2 -----END PRIVATE KEY-----",
                "line breaks",
            ),
            ("-----BEGIN PRIVATE KEY-----\nhunter2", "line breaks"),
            (
                "-----BEGIN PRIVATE KEY-----\n*hunter2*\n-----END PRIVATE KEY-----\n",
                "not base64",
            ),
        ] {
            let problem = private_key(pem.as_bytes()).unwrap_err();
            assert!(problem.contains(said), "{pem}: {problem}");
            // As text, and as the numbers of its bytes.
            assert!(
                !problem.contains("hunter2") && !problem.contains("104, 117"),
                "{problem}"
            );
            let problem = certificates(pem.replace("PRIVATE KEY", "CERTIFICATE").as_bytes()).unwrap_err();
            assert!(
                !problem.contains("hunter2") && !problem.contains("104, 117"),
                "{problem}"
            );
        }
        assert_eq!(certificates(b"").unwrap_err(), "no certificate in PEM");
    }
}
