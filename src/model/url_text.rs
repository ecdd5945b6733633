//! Addresses as they may be shown.

use url::Url;

/// The address without what may be a secret in it: user, password and query.
pub fn without_secrets(url: &Url) -> Url {
    let mut shown = url.clone();
    // Both can only fail for an address without a host, which has neither.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_query(None);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_passwords_and_queries_are_left_out() {
        for (url, shown) in [
            ("http://localhost:9090/prom", "http://localhost:9090/prom"),
            ("https://user:hunter2@host/a?token=hunter2", "https://host/a"),
            ("http://hunter2@host", "http://host/"),
        ] {
            assert_eq!(without_secrets(&url.parse().unwrap()).as_str(), shown);
        }
    }
}
