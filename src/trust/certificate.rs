//! Reads what must be checked of a certificate from its DER, of any version.
//!
//! It reads and does not judge, and is strict: what it does not understand is an error. The certificates come from
//! strangers, so nothing is assumed, and nothing is copied but what is asked for.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const BOOLEAN: u8 = 0x01;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]` to `[3]` of a certificate.
const VERSION: u8 = 0xa0;
const ISSUER_ID: u8 = 0x81;
const SUBJECT_ID: u8 = 0x82;
const EXTENSIONS: u8 = 0xa3;
/// Version 3, in `[0]`.
const VERSION_3: [u8; 5] = [VERSION, 3, INTEGER, 1, 2];

/// The bit of `keyUsage` that lets a key sign certificates, in its first byte.
const MAY_SIGN: u8 = 0b0000_0100;

/// A certificate is not what X.509 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a readable X.509 certificate: {0}")]
pub(super) struct Unreadable(&'static str);

type Result<T> = std::result::Result<T, Unreadable>;

/// A certificate's fields. Names and keys are without their outermost tag and length.
#[derive(Debug)]
pub(super) struct Certificate<'a> {
    /// 1, 2 or 3.
    pub(super) version: u8,
    /// What is signed.
    pub(super) signed: &'a [u8],
    pub(super) signature_algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    pub(super) validity: Validity,
    pub(super) key_algorithm: &'a [u8],
    pub(super) key: &'a [u8],
    pub(super) extensions: Extensions<'a>,
    /// Serial number to public key, each with tag and length, and the two fields behind what is signed.
    core: &'a [u8],
    tail: &'a [u8],
}

/// From when to when a certificate holds, both included, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: i64,
    /// The last moment.
    pub not_after: i64,
}

/// What the extensions say; nothing in versions 1 and 2.
#[derive(Debug, Default)]
pub(super) struct Extensions<'a> {
    /// `basicConstraints`: whether it is a CA.
    ca: Option<bool>,
    /// `keyUsage`, unless it names none: whether the key may sign certificates.
    signs: Option<bool>,
    /// `subjectAltName`: DNS names, mail addresses, URIs and IP addresses, as texts.
    pub(super) names: Vec<String>,
    /// `extKeyUsage`: object identifiers.
    usages: Option<Vec<&'a [u8]>>,
    /// Whether there is one that must be understood, and is not.
    pub(super) unknown_critical: bool,
}

impl Validity {
    pub(super) fn holds_at(self, seconds: i64) -> bool {
        (self.not_before..=self.not_after).contains(&seconds)
    }
}

impl<'a> Certificate<'a> {
    /// # Errors
    /// It is not what X.509 says, or there is something behind it.
    pub(super) fn read(der: &'a [u8]) -> Result<Self> {
        let mut all = Der(der);
        let mut outer = Der(all.expect(SEQUENCE)?);
        all.end()?;
        let signed = outer.whole(SEQUENCE)?;
        let tail = outer.0;
        let signature_algorithm = outer.expect(SEQUENCE)?;
        let signature = outer.bits()?;
        outer.end()?;

        let mut fields = Der(Der(signed).expect(SEQUENCE)?);
        let version = match fields.optional(VERSION)? {
            None => 1,
            Some(version) => match version {
                [INTEGER, 1, number @ 0..=2] => number + 1,
                _ => return Err(Unreadable("unknown version")),
            },
        };
        let core_from = fields.0;
        fields.expect(INTEGER)?;
        if fields.expect(SEQUENCE)? != signature_algorithm {
            return Err(Unreadable("two different signature algorithms"));
        }
        let issuer = fields.expect(SEQUENCE)?;
        let mut times = Der(fields.expect(SEQUENCE)?);
        let validity = Validity {
            not_before: times.time()?,
            not_after: times.time()?,
        };
        times.end()?;
        let subject = fields.expect(SEQUENCE)?;
        let mut key_info = Der(fields.expect(SEQUENCE)?);
        let core = &core_from[..core_from.len() - fields.0.len()];
        let key_algorithm = key_info.expect(SEQUENCE)?;
        let key = key_info.bits()?;
        key_info.end()?;
        if version > 1 {
            fields.optional(ISSUER_ID)?;
            fields.optional(SUBJECT_ID)?;
        }
        let extensions = match fields.optional(EXTENSIONS)? {
            Some(list) if version == 3 => Extensions::read(list)?,
            Some(_) => return Err(Unreadable("extensions in a version that has none")),
            None => Extensions::default(),
        };
        fields.end()?;
        Ok(Self {
            version,
            signed,
            signature_algorithm,
            signature,
            issuer,
            subject,
            validity,
            key_algorithm,
            key,
            extensions,
            core,
            tail,
        })
    }

    /// The same key, names and times as a certificate of version 3 without extensions, for libraries that read no other.
    /// Its signature is that of the original, and so does not fit: nothing may be concluded from it but what the key signs.
    pub(super) fn as_version_3(&self) -> CertificateDer<'static> {
        let signed = wrap(&[&VERSION_3, self.core]);
        CertificateDer::from(wrap(&[&signed, self.tail]))
    }

    /// Whether other certificates may come from it, as Go has it: of version 3 only a CA, of older ones any.
    pub(super) fn may_issue(&self) -> bool {
        let Extensions { ca, signs, .. } = &self.extensions;
        ca.unwrap_or(self.version < 3) && signs.unwrap_or(true) && !self.extensions.unknown_critical
    }

    /// Whether it may be used for `usage`, an object identifier, as Go has it: where none is named, for all.
    pub(super) fn is_for(&self, usage: &[u8]) -> bool {
        /// 2.5.29.37.0.
        const ANY: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
        let usages = self.extensions.usages.as_ref();
        usages.is_none_or(|usages| usages.iter().any(|is| *is == usage || *is == ANY))
    }
}

impl<'a> Extensions<'a> {
    fn read(list: &'a [u8]) -> Result<Self> {
        let mut outer = Der(list);
        let mut list = Der(outer.expect(SEQUENCE)?);
        outer.end()?;
        let (mut found, mut seen) = (Self::default(), Vec::new());
        while !list.0.is_empty() {
            let mut extension = Der(list.expect(SEQUENCE)?);
            let id = extension.expect(OBJECT)?;
            let critical = extension.optional(BOOLEAN)?.is_some_and(|is| is != [0]);
            let value = extension.expect(OCTET_STRING)?;
            extension.end()?;
            if seen.contains(&id) {
                return Err(Unreadable("a duplicate extension"));
            }
            seen.push(id);
            let known = found.read_one(id, value)?;
            found.unknown_critical |= critical && !known;
        }
        Ok(found)
    }

    /// Whether the extension is one that is understood, here or by those who build chains.
    fn read_one(&mut self, id: &[u8], value: &'a [u8]) -> Result<bool> {
        // id-ce, 2.5.29.
        let [0x55, 0x1d, number] = id else {
            return Ok(false);
        };
        let mut value = Der(value);
        match number {
            // keyUsage
            15 => {
                let bits = value.expect(BIT_STRING)?;
                let [_, bits @ ..] = bits else {
                    return Err(Unreadable("an empty keyUsage"));
                };
                let named = bits.iter().any(|byte| *byte != 0);
                self.signs = named.then(|| bits.first().is_some_and(|byte| byte & MAY_SIGN != 0));
                value.end()?;
            }
            // subjectAltName: DNS names, mail addresses, URIs and IP addresses are understood.
            17 => {
                let mut names = Der(value.expect(SEQUENCE)?);
                let mut known = false;
                while !names.0.is_empty() {
                    let (tag, name) = names.any()?;
                    known |= matches!(tag, 0x81 | 0x82 | 0x86 | 0x87);
                    self.names.extend(alternative_name(tag, name));
                }
                return Ok(known);
            }
            // basicConstraints
            19 => {
                let mut content = Der(value.expect(SEQUENCE)?);
                self.ca = Some(content.optional(BOOLEAN)?.is_some_and(|is| is != [0]));
                value.end()?;
            }
            // extKeyUsage
            37 => {
                let mut list = Der(value.expect(SEQUENCE)?);
                let mut usages = Vec::new();
                while !list.0.is_empty() {
                    usages.push(list.expect(OBJECT)?);
                }
                self.usages = Some(usages);
                value.end()?;
            }
            // nameConstraints: judged where the chain is built. CRL distribution points and policies change nothing.
            30..=32 => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// A name of `subjectAltName` as a text; `None` for one of a kind that has none here, and one that is none.
fn alternative_name(tag: u8, name: &[u8]) -> Option<String> {
    match (tag, name.len()) {
        (0x81 | 0x82 | 0x86, _) => std::str::from_utf8(name).ok().map(str::to_owned),
        (0x87, 4) => <[u8; 4]>::try_from(name).ok().map(|ip| IpAddr::from(ip).to_string()),
        (0x87, 16) => <[u8; 16]>::try_from(name).ok().map(|ip| IpAddr::from(ip).to_string()),
        _ => None,
    }
}

/// A sequence of these bytes.
fn wrap(parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![SEQUENCE];
    let bytes = content.len().to_be_bytes();
    let from = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
    if content.len() >= 0x80 {
        // At most eight.
        out.push(0x80 | (bytes.len() - from) as u8);
    }
    out.extend_from_slice(&bytes[from..]);
    out.extend_from_slice(&content);
    out
}

/// What is left to be read.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value and its tag.
    fn any(&mut self) -> Result<(u8, &'a [u8])> {
        let cut = || Unreadable("it is truncated");
        let (&[tag, short], mut rest) = self.0.split_first_chunk().ok_or_else(cut)?;
        let mut length = usize::from(short);
        if short >= 0x80 {
            let size = usize::from(short & 0x7f);
            // Lengths of up to 16 MiB, each written as short as it can be.
            if !(1..=3).contains(&size) {
                return Err(Unreadable("an invalid length"));
            }
            let (digits, after) = rest.split_at_checked(size).ok_or_else(cut)?;
            length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
            if digits[0] == 0 || length < 0x80 {
                return Err(Unreadable("a length that is not in its shortest form"));
            }
            rest = after;
        }
        let (value, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        self.0 = rest;
        Ok((tag, value))
    }

    fn expect(&mut self, tag: u8) -> Result<&'a [u8]> {
        match self.any()? {
            (found, value) if found == tag => Ok(value),
            _ => Err(Unreadable("an unexpected field")),
        }
    }

    /// The next value with its tag and length.
    fn whole(&mut self, tag: u8) -> Result<&'a [u8]> {
        let before = self.0;
        self.expect(tag)?;
        Ok(&before[..before.len() - self.0.len()])
    }

    fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>> {
        match self.0.first() {
            Some(found) if *found == tag => self.expect(tag).map(Some),
            _ => Ok(None),
        }
    }

    /// A bit string of whole bytes.
    fn bits(&mut self) -> Result<&'a [u8]> {
        match self.expect(BIT_STRING)? {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(Unreadable("a bit string that is not a whole number of bytes")),
        }
    }

    /// Seconds since 1970.
    fn time(&mut self) -> Result<i64> {
        let wrong = Unreadable("an invalid time");
        let (tag, text) = self.any()?;
        let (century, digits) = match (tag, text) {
            // Two digits of a year stand for 1950 to 2049.
            (UTC_TIME, [digits @ .., b'Z']) if digits.len() == 12 => {
                (if digits[0] >= b'5' { &b"19"[..] } else { b"20" }, digits)
            }
            (GENERALIZED_TIME, [digits @ .., b'Z']) if digits.len() == 14 => (&b""[..], digits),
            _ => return Err(wrong),
        };
        let digits = [century, digits].concat();
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(wrong);
        }
        let number = |from: usize, to: usize| {
            digits[from..to]
                .iter()
                .fold(0, |n, digit| n * 10 + i16::from(digit - b'0'))
        };
        // Two digits each, which fit.
        let small = |from: usize| number(from, from + 2) as i8;
        let date = jiff::civil::DateTime::new(number(0, 4), small(4), small(6), small(8), small(10), small(12), 0);
        let zoned = date.and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC));
        Ok(zoned.map_err(|_| wrong)?.timestamp().as_second())
    }

    fn end(self) -> Result<()> {
        match self.0 {
            [] => Ok(()),
            _ => Err(Unreadable("trailing data")),
        }
    }
}
