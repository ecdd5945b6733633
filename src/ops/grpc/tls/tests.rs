use std::os::unix::fs::symlink;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

fn write_pair(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new([name.to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let paths = (dir.join("tls.crt"), dir.join("tls.key"));
    fs_err::write(&paths.0, cert.pem()).unwrap();
    fs_err::write(&paths.1, key.serialize_pem()).unwrap();
    paths
}

fn flags(cert: &Path, key: &Path) -> TlsFlags {
    TlsFlags {
        cert: Some(cert.to_owned()),
        key: Some(key.to_owned()),
        ..TlsFlags::default()
    }
}

/// The text as the command prints it, with all its sources.
fn refused(flags: TlsFlags) -> String {
    format!("{:#}", anyhow::Error::from(Tls::load(flags).unwrap_err()))
}

#[test]
fn flags_that_need_each_other() {
    assert!(Tls::load(TlsFlags::default()).unwrap().is_none());
    let odd_names = TlsFlags {
        ciphers: vec!["nonsense".to_owned()],
        ..TlsFlags::default()
    };
    assert!(
        Tls::load(odd_names).unwrap().is_none(),
        "without a certificate they have no effect"
    );
    let some = || Some(PathBuf::from("x"));
    let (cert, key, ca) = (
        TlsFlags {
            cert: some(),
            ..TlsFlags::default()
        },
        TlsFlags {
            key: some(),
            ..TlsFlags::default()
        },
        TlsFlags {
            client_ca: some(),
            ..TlsFlags::default()
        },
    );
    assert_eq!(refused(cert), "--grpc-server-tls-cert: needs --grpc-server-tls-key");
    assert_eq!(refused(key), "--grpc-server-tls-key: needs --grpc-server-tls-cert");
    assert!(refused(ca).starts_with("--grpc-server-tls-client-ca: needs"));
}

#[test]
fn bad_files_are_told_by_flag_and_path() {
    let dir = TempDir::new().unwrap();
    let (cert, key) = write_pair(dir.path(), "a");
    let none = dir.path().join("none");
    for (flags, parts) in [
        (flags(&none, &key), ["--grpc-server-tls-cert: ", "none"]),
        (flags(&key, &key), ["--grpc-server-tls-cert: ", "no certificate in PEM"]),
        (
            flags(&cert, &cert),
            ["--grpc-server-tls-key: ", "no private key in PEM"],
        ),
    ] {
        let error = refused(flags);
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let other = TempDir::new().unwrap();
    let (_, strange) = write_pair(other.path(), "b");
    assert!(refused(flags(&cert, &strange)).contains("does not match the certificate"));
    let ca = |file: &Path| TlsFlags {
        client_ca: Some(file.to_owned()),
        ..flags(&cert, &key)
    };
    assert!(refused(ca(&key)).contains("--grpc-server-tls-client-ca: "));
    let gone = refused(ca(&none));
    assert_eq!(
        gone,
        format!(
            "--grpc-server-tls-client-ca: failed to open file `{}`: No such file or directory (os error 2)",
            none.display()
        ),
        "each cause is named once"
    );
}

#[tokio::test]
async fn one_kind_of_failed_handshakes_does_not_keep_another_out_of_the_log() {
    let dir = TempDir::new().unwrap();
    let (cert, key) = write_pair(dir.path(), "a");
    let tls = Tls::load(flags(&cert, &key)).unwrap().unwrap();
    let suppressed = |reason: Reason| tls.log_limit(reason).check();
    for _ in 0..3 {
        suppressed(Reason::NotTls);
    }
    assert_eq!(suppressed(Reason::NotTls), None);
    assert_eq!(suppressed(Reason::NoCertificate), Some(0));
    assert_eq!(suppressed(Reason::NoCertificate), None);
}

#[test]
fn changed_files_are_read_again_and_bad_ones_leave_the_old_in_use() {
    let dir = TempDir::new().unwrap();
    for version in ["1", "2"] {
        fs_err::create_dir_all(dir.path().join(version)).unwrap();
        write_pair(&dir.path().join(version), version);
    }
    // As Kubernetes swaps secrets: a link to a directory is replaced.
    let link = dir.path().join("data");
    symlink("1", &link).unwrap();
    let tls = Tls::load(flags(&link.join("tls.crt"), &link.join("tls.key")))
        .unwrap()
        .unwrap();
    let config = || tls.0.config.load_full();
    let first = config();
    tls.0.reload_if_changed();
    assert!(Arc::ptr_eq(&first, &config()), "nothing has changed");

    fs_err::remove_file(&link).unwrap();
    tls.0.reload_if_changed();
    assert!(Arc::ptr_eq(&first, &config()), "gone files leave the old ones in use");
    symlink("2", &link).unwrap();
    tls.0.reload_if_changed();
    let second = config();
    assert!(!Arc::ptr_eq(&first, &second));

    fs_err::write(link.join("tls.key"), "half").unwrap();
    tls.0.reload_if_changed();
    tls.0.reload_if_changed();
    assert!(Arc::ptr_eq(&second, &config()));
    write_pair(&link, "3");
    tls.0.reload_if_changed();
    assert!(!Arc::ptr_eq(&second, &config()));
}
