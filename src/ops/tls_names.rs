//! Go's names of cipher suites and curves, and which of them are supported here; for each server of ours.

use rustls::{
    CipherSuite, ProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
};
use tracing::warn;

/// What names the ciphers and curves: flags, or keys of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    pub(super) ciphers: &'static str,
    pub(super) curves: &'static str,
}

/// A name cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NameError {
    /// What it stands in.
    pub(super) key: &'static str,
    /// What is wrong with it.
    pub(super) problem: String,
}

/// Cipher suites that Go knows by name. One with `None` belongs to TLS 1.3, and is offered anyway, or
/// is too weak to be offered here.
const SUITES: [(&str, Option<CipherSuite>, bool); 13] = {
    use CipherSuite as Is;
    [
        ("TLS_AES_128_GCM_SHA256", None, true),
        ("TLS_AES_256_GCM_SHA384", None, true),
        ("TLS_CHACHA20_POLY1305_SHA256", None, true),
        (
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            Some(Is::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
            true,
        ),
        (
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            Some(Is::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
            true,
        ),
        (
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            Some(Is::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
            true,
        ),
        (
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            Some(Is::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
            true,
        ),
        (
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            Some(Is::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
            true,
        ),
        (
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            Some(Is::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
            true,
        ),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", None, false),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", None, false),
        ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", None, false),
        ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", None, false),
    ]
};

/// Curves that Thanos knows by name, and what they are here.
const GROUPS: [(&str, Option<&dyn SupportedKxGroup>); 7] = {
    use aws_lc_rs::kx_group as is;
    [
        ("CurveP256", Some(is::SECP256R1)),
        ("CurveP384", Some(is::SECP384R1)),
        ("CurveP521", None),
        ("X25519", Some(is::X25519)),
        ("X25519MLKEM768", Some(is::X25519MLKEM768)),
        ("SecP256r1MLKEM768", Some(is::SECP256R1MLKEM768)),
        ("SecP384r1MLKEM1024", None),
    ]
};

/// The provider that offers these ciphers and curves only; all of its own where the list is empty. What is known to Go and
/// not supported here is warned of.
///
/// # Errors
/// An unknown name, or curves of which none is supported here.
pub(super) fn provider(ciphers: &[String], curves: &[String], keys: Keys) -> Result<CryptoProvider, NameError> {
    let mut provider = aws_lc_rs::default_provider();
    if !ciphers.is_empty() {
        let mut wanted = Vec::new();
        for name in ciphers {
            let (_, suite, spoken) = find(keys.ciphers, name, &SUITES, |(known, ..)| known)?;
            if !spoken {
                warn!(
                    cipher = name,
                    key = keys.ciphers,
                    "this cipher suite is weak and is not offered"
                );
            }
            wanted.extend(*suite);
        }
        provider
            .cipher_suites
            .retain(|suite| suite.version().version == ProtocolVersion::TLSv1_3 || wanted.contains(&suite.suite()));
    }
    if !curves.is_empty() {
        provider.kx_groups.clear();
        for name in curves {
            match find(keys.curves, name, &GROUPS, |(known, _)| known)? {
                (_, Some(group)) => provider.kx_groups.push(*group),
                (_, None) => warn!(
                    curve = name,
                    key = keys.curves,
                    "this curve is not supported and is not offered"
                ),
            }
        }
        if provider.kx_groups.is_empty() {
            return Err(NameError {
                key: keys.curves,
                problem: format!("none of {} is supported", curves.join(", ")),
            });
        }
    }
    Ok(provider)
}

fn find<'a, T>(
    key: &'static str,
    name: &str,
    known: &'a [T],
    name_of: fn(&T) -> &&'static str,
) -> Result<&'a T, NameError> {
    known.iter().find(|entry| *name_of(entry) == name).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|entry| *name_of(entry)).collect();
        NameError {
            key,
            problem: format!("unknown name {name:?}; expected some of {}", names.join(", ")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: Keys = Keys {
        ciphers: "the ciphers",
        curves: "the curves",
    };

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_are_those_of_go() {
        let all = aws_lc_rs::default_provider();
        let same = provider(&[], &[], KEYS).unwrap();
        assert_eq!(same.cipher_suites, all.cipher_suites);
        assert_eq!(same.kx_groups.len(), all.kx_groups.len());

        let few = provider(
            &names(&[
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
            ]),
            &names(&["X25519", "CurveP521", "CurveP256"]),
            KEYS,
        )
        .unwrap();
        assert_eq!(few.cipher_suites.len(), 4, "one of TLS 1.2, and all three of 1.3");
        let groups: Vec<_> = few.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups, [rustls::NamedGroup::X25519, rustls::NamedGroup::secp256r1]);
    }

    #[test]
    fn unknown_names_are_told_with_the_known_ones() {
        let error = provider(&names(&["RC4"]), &[], KEYS).unwrap_err();
        assert_eq!(error.key, "the ciphers");
        assert!(
            error
                .problem
                .starts_with("unknown name \"RC4\"; expected some of TLS_AES_128"),
            "{error:?}"
        );
        let error = provider(&[], &names(&["P256"]), KEYS).unwrap_err();
        assert_eq!(error.key, "the curves");
        assert!(error.problem.contains("CurveP256, CurveP384"), "{error:?}");
        let error = provider(&[], &names(&["CurveP521"]), KEYS).unwrap_err();
        assert_eq!(error.problem, "none of CurveP521 is supported");
    }
}
