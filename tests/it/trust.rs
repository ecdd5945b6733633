//! Whose certificates are good: the judgement itself, with certificates that are made here. That handshakes follow it is
//! shown where the servers and clients are (`grpc::tls`, `prometheus::tls`).

use std::{sync::Arc, time::Duration};

use narthex::trust::Trusted;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SigningKey as _, date_time_ymd,
};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

type Issuer = CertifiedIssuer<'static, KeyPair>;
type Der = CertificateDer<'static>;

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn named(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).unwrap()
}

fn issuer(change: impl FnOnce(&mut CertificateParams)) -> Issuer {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    CertifiedIssuer::self_signed(params, key()).unwrap()
}

fn signed(issuer: &Issuer, change: impl FnOnce(&mut CertificateParams)) -> Der {
    let mut params = named("localhost");
    change(&mut params);
    params.signed_by(&key(), issuer).unwrap().der().clone()
}

fn alone(change: impl FnOnce(&mut CertificateParams)) -> Der {
    let mut params = named("localhost");
    change(&mut params);
    params.self_signed(&key()).unwrap().der().clone()
}

/// The length of the value at the start of `der`, tag and length included.
fn whole(der: &[u8]) -> usize {
    match der[1] {
        short @ 0..=0x7f => 2 + usize::from(short),
        0x81 => 3 + usize::from(der[2]),
        0x82 => 4 + usize::from(u16::from_be_bytes([der[2], der[3]])),
        other => panic!("a length of {other:#x}"),
    }
}

/// The values in a sequence, each with tag and length.
fn members(der: &[u8]) -> Vec<&[u8]> {
    let mut rest = &der[whole(der) - inside(der)..];
    let mut members = Vec::new();
    while !rest.is_empty() {
        let (first, more) = rest.split_at(whole(rest));
        members.push(first);
        rest = more;
    }
    members
}

fn inside(der: &[u8]) -> usize {
    match der[1] {
        0..=0x7f => whole(der) - 2,
        0x81 => whole(der) - 3,
        _ => whole(der) - 4,
    }
}

fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match content.len() {
        short @ 0..=0x7f => vec![tag, short as u8],
        0x80..=0xff => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [&head[..], content].concat()
}

/// The same certificate in version 1, as `openssl x509 -req` makes them, signed by `signer`: rcgen makes none.
pub(crate) fn version_1(certificate: &Der, signer: &KeyPair) -> Der {
    let outer = members(certificate);
    let fields = members(outer[0]);
    // Without the version in front and the extensions behind.
    let tbs = value(0x30, &fields[1..7].concat());
    let signature = [&[0][..], &signer.sign(&tbs).unwrap()].concat();
    CertificateDer::from(value(0x30, &[&tbs[..], outer[1], &value(0x03, &signature)].concat()))
}

fn pem(certificates: &[Der]) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let one = |der: &Der| {
        let text = BASE64_STANDARD.encode(der);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    };
    certificates.iter().map(one).collect()
}

fn trusted(certificates: &[Der]) -> Trusted {
    let (trusted, skipped) = Trusted::read(pem(certificates).as_bytes()).unwrap();
    assert!(skipped.is_empty(), "{skipped:?}");
    trusted
}

fn client(file: &[Der], shown: &Der, between: &[Der]) -> Result<(), String> {
    let verifier = trusted(file).of_clients(&Arc::new(aws_lc_rs::default_provider()));
    let verified = verifier.verify_client_cert(shown, between, UnixTime::now());
    verified.map(|_| ()).map_err(|error| format!("{error:?}"))
}

fn server(file: &[Der], shown: &Der, name: &'static str) -> Result<(), String> {
    let verifier = trusted(file).of_servers(&Arc::new(aws_lc_rs::default_provider()));
    let name = ServerName::try_from(name).unwrap();
    let verified = verifier.verify_server_cert(shown, &[], &name, &[], UnixTime::now());
    verified.map(|_| ()).map_err(|error| format!("{error:?}"))
}

#[track_caller]
fn refused(verdict: Result<(), String>, part: &str) {
    let error = verdict.unwrap_err();
    assert!(error.contains(part), "{error}");
}

fn expired(params: &mut CertificateParams) {
    params.not_after = date_time_ymd(2020, 1, 1);
}

#[test]
fn a_certificate_that_is_in_the_file_is_good_for_itself_and_for_no_other() {
    let ca = issuer(|_| {});
    let is_ca = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for own in [
        alone(|_| {}),
        alone(is_ca),
        signed(&ca, |_| {}),
        version_1(&alone(|_| {}), &key()),
    ] {
        client(std::slice::from_ref(&own), &own, &[]).unwrap();
        client(&[ca.der().clone(), own.clone()], &own, &[]).unwrap();
        refused(client(&[alone(|_| {})], &own, &[]), "UnknownIssuer");
    }
    // All these CAs have one name. It is no CA, and what comes from it is good for nothing.
    let pinned = issuer(|params| params.is_ca = IsCa::NoCa);
    let below = signed(&pinned, |_| {});
    refused(client(&[pinned.der().clone()], &below, &[]), "UnknownIssuer");
    refused(
        client(&[ca.der().clone(), pinned.der().clone()], &below, &[]),
        "BadSignature",
    );
    let old = version_1(&below, pinned.key());
    refused(client(&[pinned.der().clone()], &old, &[]), "UnknownIssuer");
}

#[test]
fn a_certificate_that_is_in_the_file_must_fit_in_time_usage_and_extensions() {
    let good = |own: Der| client(std::slice::from_ref(&own), &own, &[]);
    let usage = |usage: ExtendedKeyUsagePurpose| good(alone(|params| params.extended_key_usages = vec![usage]));
    usage(ExtendedKeyUsagePurpose::ClientAuth).unwrap();
    usage(ExtendedKeyUsagePurpose::Any).unwrap();
    refused(usage(ExtendedKeyUsagePurpose::ServerAuth), "InvalidPurpose");
    refused(usage(ExtendedKeyUsagePurpose::CodeSigning), "InvalidPurpose");
    refused(good(alone(expired)), "Expired");
    refused(
        good(alone(|params| params.not_before = date_time_ymd(2100, 1, 1))),
        "NotValidYet",
    );
    let strange = |critical: bool| {
        good(alone(|params| {
            let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            extension.set_criticality(critical);
            params.custom_extensions = vec![extension];
        }))
    };
    strange(false).unwrap();
    refused(strange(true), "UnhandledCriticalExtension");
}

#[test]
fn what_comes_from_a_ca_of_the_file_is_good_while_the_ca_is() {
    let ca = issuer(|_| {});
    let file = [ca.der().clone()];
    client(&file, &signed(&ca, |_| {}), &[]).unwrap();
    refused(client(&file, &signed(&ca, expired), &[]), "Expired");
    let for_servers =
        |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    refused(client(&file, &signed(&ca, for_servers), &[]), "InvalidPurpose");
    refused(client(&file, &signed(&issuer(|_| {}), |_| {}), &[]), "BadSignature");

    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "between");
    let middle = CertifiedIssuer::signed_by(params, key(), &ca).unwrap();
    client(&file, &signed(&middle, |_| {}), &[middle.der().clone()]).unwrap();
    refused(client(&file, &signed(&middle, |_| {}), &[]), "UnknownIssuer");

    let old = issuer(expired);
    refused(
        client(&[old.der().clone()], &signed(&old, |_| {}), &[]),
        "no CA certificate of the file is valid",
    );
    let mut both = vec![old.der().clone()];
    both.push(
        issuer(|params| params.distinguished_name.push(rcgen::DnType::CommonName, "other"))
            .der()
            .clone(),
    );
    refused(client(&both, &signed(&old, |_| {}), &[]), "UnknownIssuer");
    for (usage, good) in [
        (KeyUsagePurpose::KeyCertSign, true),
        (KeyUsagePurpose::DigitalSignature, false),
    ] {
        let ca = issuer(|params| params.key_usages = vec![usage]);
        assert_eq!(
            client(&[ca.der().clone()], &signed(&ca, |_| {}), &[]).is_ok(),
            good,
            "{usage:?}"
        );
    }
}

#[test]
fn version_1_is_read_and_its_signature_and_time_are_checked() {
    let ca = issuer(|_| {});
    let file = [ca.der().clone()];
    let plain = signed(&ca, |_| {});
    let old = version_1(&plain, ca.key());
    client(&file, &old, &[]).unwrap();
    refused(client(&file, &version_1(&plain, &key()), &[]), "UnknownIssuer");
    refused(
        client(&file, &version_1(&signed(&ca, expired), ca.key()), &[]),
        "Expired",
    );
    for (at, bit) in (0..old.len()).flat_map(|at| [(at, 0x01), (at, 0x80)]) {
        let mut broken = old.to_vec();
        broken[at] ^= bit;
        assert!(client(&file, &CertificateDer::from(broken), &[]).is_err(), "byte {at}");
    }
    for cut in 0..old.len() {
        client(&file, &CertificateDer::from(old[..cut].to_vec()), &[]).unwrap_err();
    }
    let longer = [&old[..], &[0]].concat();
    client(&file, &CertificateDer::from(longer), &[]).unwrap_err();

    // A CA of version 1, as Go takes them.
    let old_ca = version_1(ca.der(), ca.key());
    client(std::slice::from_ref(&old_ca), &plain, &[]).unwrap();
    client(&[old_ca], &old, &[]).unwrap();
    let expired_ca = issuer(expired);
    let below = version_1(&signed(&expired_ca, |_| {}), expired_ca.key());
    refused(client(&[expired_ca.der().clone()], &below, &[]), "UnknownIssuer");
}

#[test]
fn a_server_needs_its_name_too() {
    let ca = issuer(|_| {});
    let from_ca = signed(&ca, |_| {});
    for (file, shown) in [(ca.der().clone(), from_ca.clone()), (from_ca.clone(), from_ca.clone())] {
        let file = [file];
        server(&file, &shown, "localhost").unwrap();
        refused(server(&file, &shown, "other"), "NotValidForName");
    }
    let own = alone(expired);
    refused(server(std::slice::from_ref(&own), &own, "localhost"), "Expired");
    let own = alone(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    refused(server(std::slice::from_ref(&own), &own, "localhost"), "InvalidPurpose");
    // It has no names but the one that nobody reads any more.
    let old = version_1(&from_ca, ca.key());
    refused(server(&[ca.der().clone()], &old, "localhost"), "NotValidForName");
}

#[test]
fn what_cannot_be_read_is_left_out_and_told_and_nothing_at_all_is_an_error() {
    let good = alone(|_| {});
    let broken = CertificateDer::from(good[..good.len() - 1].to_vec());
    let torn = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    let text = format!(
        "# ours\n{}{torn}{}",
        pem(std::slice::from_ref(&broken)),
        pem(std::slice::from_ref(&good))
    );
    let (trusted, skipped) = Trusted::read(text.as_bytes()).unwrap();
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    assert!(
        skipped[0].starts_with("certificate 1 of the file: it is not a readable X.509"),
        "{skipped:?}"
    );
    assert!(skipped[1].starts_with("certificate 2 of the file: "), "{skipped:?}");
    let verifier = trusted.of_clients(&Arc::new(aws_lc_rs::default_provider()));
    assert!(verifier.client_auth_mandatory());
    let hints = verifier.root_hint_subjects();
    assert_eq!(hints.len(), 1);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()));
    verifier.verify_client_cert(&good, &[], now).unwrap();

    for nothing in ["", "words", torn, &pem(&[broken])] {
        let error = Trusted::read(nothing.as_bytes()).unwrap_err();
        assert!(
            error.to_string().starts_with("no readable certificate in PEM"),
            "{error}"
        );
        assert_eq!(error.skipped.is_empty(), !nothing.contains("BEGIN"));
    }
    let secret = key().serialize_pem();
    assert!(!Trusted::read(secret.as_bytes()).unwrap_err().to_string().contains("MI"));
}

#[test]
fn what_openssl_makes_is_read() {
    let file = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("testdata/tls")
            .join(name);
        CertificateDer::from_pem_file(path).unwrap()
    };
    let (ca, old) = (file("ca.pem"), file("client-v1.pem"));
    client(std::slice::from_ref(&ca), &old, &[]).unwrap();
    client(std::slice::from_ref(&old), &old, &[]).unwrap();
    refused(client(&[issuer(|_| {}).der().clone()], &old, &[]), "UnknownIssuer");
}
