use fs_err as fs;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

const HASH: &str = "$2b$04$aIK0/fg5w3bUDcLZ9qhH2OUicn3hBHaSoD31IbNqLGf9bLp7QClua";

struct Place {
    dir: TempDir,
    web: Web,
}

fn place(yaml: &str) -> Place {
    let dir = tempfile::tempdir().unwrap();
    write_pair(dir.path());
    let path = dir.path().join("web.yml");
    fs::write(&path, yaml).unwrap();
    let web = Web::load(&path).unwrap();
    Place { dir, web }
}

fn write_pair(dir: &Path) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    fs::write(dir.join("tls.crt"), certificate.pem()).unwrap();
    fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
}

impl Place {
    fn current(&self) -> Arc<Current> {
        self.web.0.reload_if_changed();
        self.web.0.current.load_full()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }
}

#[test]
fn what_cannot_be_used_leaves_what_was_and_is_tried_again_when_it_changes() {
    let users = |name: &str| format!("basic_auth_users: {{{name}: {HASH}}}\n");
    let place = place(&users("ali"));
    let first = place.current();
    for wrong in [
        "basic_auth_users: {ali: plain}\n",
        "basic_auth_users:\n",
        "",
        "unknown: 1\n",
        "tls_server_config: {cert_file: tls.crt, key_file: tls.key}\n",
        "tls_server_config: {cert_file: none.crt, key_file: tls.key}\n",
    ] {
        place.write("web.yml", wrong);
        assert!(Arc::ptr_eq(&first, &place.current()), "{wrong}");
    }
    place.write("web.yml", &users("morgiana"));
    let second = place.current();
    assert!(second.config.users.contains_key("morgiana"));
    fs::remove_file(place.dir.path().join("web.yml")).unwrap();
    assert!(Arc::ptr_eq(&second, &place.current()));
    place.write("web.yml", &users("cassim"));
    assert!(place.current().config.users.contains_key("cassim"));
}

#[test]
fn files_that_are_named_are_followed_also_while_they_cannot_be_used() {
    let tls = |cert: &str| format!("tls_server_config: {{cert_file: {cert}.crt, key_file: {cert}.key}}\n");
    let place = place(&tls("tls"));
    let first = place.current();
    place.write("tls.key", "half a renewal");
    assert!(Arc::ptr_eq(&first, &place.current()));
    write_pair(place.dir.path());
    let second = place.current();
    assert!(!Arc::ptr_eq(&first, &second));
    place.write("web.yml", &tls("later"));
    assert!(Arc::ptr_eq(&second, &place.current()));
    // They come after the file that names them.
    for end in ["crt", "key"] {
        let dir = place.dir.path();
        fs::copy(dir.join(format!("tls.{end}")), dir.join(format!("later.{end}"))).unwrap();
    }
    assert!(!Arc::ptr_eq(&second, &place.current()));
}

#[test]
fn tls_is_neither_switched_on_nor_off() {
    let tls = "tls_server_config: {cert_file: tls.crt, key_file: tls.key}\n";
    let plain = place("");
    assert!(!plain.web.has_tls());
    plain.write("web.yml", tls);
    plain.current();
    assert!(!plain.web.has_tls());
    let secure = place(tls);
    secure.write("web.yml", "");
    secure.current();
    assert!(secure.web.has_tls());
}
