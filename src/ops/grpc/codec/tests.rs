use super::*;

/// Made with github.com/golang/snappy v1.0.0 (`NewBufferedWriter`) and Go's compress/gzip, from [`TEXT`] and from the
/// SHA-256 of "x", which does not shrink.
const TEXT_SNAPPY: &str = "ff060000734e6150705900140000b7eea3492c2861206d6573736167652c20820b00";
const TEXT_GZIP: &str = "1f8b08000000000000ff4a54c84d2d2e4e4c4fd55120c804040000ffff11d402ae2c000000";
const NOISE: &str = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
const NOISE_SNAPPY: &str =
    "ff060000734e61507059012400005680ab672d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
const NOISE_GZIP: &str = "1f8b08000000000000ffd22d1473daaeb6c18531a966e5ef35465f4f04f36f9c6073e436936abbf824298f464000\
                          0000ffff1aebdb7820000000";
/// "narthex" 10,000 times, from the same gzip.
const LONG_GZIP: &str = "1f8b08000000000000ffecc5a10d00300800b05b2796a01004c1f93c81ac6abeeaf80300000000000000000000000000\
                         000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
                         000000000000000000000000000000000000000000000000000000000000000000000000000000000ed9000000ffffdb\
                         6a27d370110100";
const TEXT: &[u8] = b"a message, a message, a message, a message, ";

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn plain(codec: Codec, message: &[u8], limit: usize) -> Result<Vec<u8>, Status> {
    let mut out = BytesMut::from(&b"before"[..]);
    codec.decompress(message, limit, &mut out)?;
    assert_eq!(&out[..6], b"before");
    Ok(out[6..].to_vec())
}

fn body(messages: &[&[u8]]) -> Vec<u8> {
    let message = |message: &&[u8]| [&prefix(0, message.len() as u32)[..], message].concat();
    messages.iter().flat_map(message).collect()
}

/// The messages of a compressed body, each in plain, with its flag.
fn read(codec: Codec, mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut messages = Vec::new();
    while let Some((start, rest)) = body.split_first_chunk::<PREFIX>() {
        let (message, rest) = rest.split_at(super::super::messages::length(*start) as usize);
        let message = match start[0] {
            0 => message.to_vec(),
            _ => plain(codec, message, usize::MAX).unwrap(),
        };
        messages.push((start[0], message));
        body = rest;
    }
    assert!(body.is_empty());
    messages
}

#[test]
fn what_go_wrote_is_read() {
    for (codec, message, wanted) in [
        (Codec::Snappy, TEXT_SNAPPY, TEXT.to_vec()),
        (Codec::Gzip, TEXT_GZIP, TEXT.to_vec()),
        (Codec::Snappy, NOISE_SNAPPY, bytes(NOISE)),
        (Codec::Gzip, NOISE_GZIP, bytes(NOISE)),
    ] {
        let message = bytes(message);
        assert_eq!(plain(codec, &message, wanted.len()).unwrap(), wanted);
        let too_long = plain(codec, &message, wanted.len() - 1).unwrap_err();
        assert_eq!(too_long.code(), tonic::Code::ResourceExhausted, "{too_long:?}");
        for cut in 0..message.len() {
            match plain(codec, &message[..cut], usize::MAX) {
                Err(error) => assert_eq!(error.code(), tonic::Code::Internal, "{error:?}"),
                // The start alone is a stream of nothing.
                Ok(nothing) => assert!(nothing.is_empty() && cut <= 10, "{cut}"),
            }
        }
    }
    assert_eq!(
        plain(Codec::Gzip, &bytes(LONG_GZIP), 70_000).unwrap(),
        b"narthex".repeat(10_000)
    );
}

#[test]
fn snappy_is_written_as_go_writes_it() {
    for (content, wanted) in [(TEXT.to_vec(), TEXT_SNAPPY), (bytes(NOISE), NOISE_SNAPPY)] {
        let (out, begun) = Compressor::new(Codec::Snappy).push(&body(&[&content])).unwrap();
        assert_eq!((out[0], begun), (COMPRESSED, 1));
        assert_eq!(out[PREFIX..], bytes(wanted));
    }
}

#[test]
fn a_body_is_compressed_message_by_message_however_it_is_cut() {
    let noise: Vec<u8> = (0..200_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let zeros = vec![0; 131_072];
    let messages = [&b""[..], TEXT, &noise, b"", &zeros, b"x"];
    let body = body(&messages);
    for codec in [Codec::Snappy, Codec::Gzip] {
        for step in [body.len(), 65_536, 16_384, 777] {
            let mut compressor = Compressor::new(codec);
            let (mut out, mut begun) = (Vec::new(), 0);
            for piece in body.chunks(step) {
                let (done, count) = compressor.push(piece).unwrap();
                out.extend_from_slice(&done);
                begun += count;
            }
            let wanted: Vec<(u8, Vec<u8>)> = messages
                .iter()
                .map(|message| (u8::from(!message.is_empty()), message.to_vec()))
                .collect();
            assert!(read(codec, &out) == wanted, "{codec:?} in steps of {step}");
            assert_eq!(begun, 6);
            assert!(out.len() < 210_000 + 10_000, "zeros shrink: {}", out.len());
        }
    }
}

#[test]
fn bombs_are_refused_before_they_take_memory() {
    let zeros = vec![0; 8 << 20];
    for codec in [Codec::Snappy, Codec::Gzip] {
        let (bomb, _) = Compressor::new(codec).push(&body(&[&zeros])).unwrap();
        let mut out = BytesMut::new();
        let refused = codec.decompress(&bomb[PREFIX..], 1 << 20, &mut out).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(out.capacity() <= 4 << 20, "{}", out.capacity());
    }
    // A chunk that says it holds 4 GiB.
    let lie = [
        &bytes("ff060000734e61507059")[..],
        &bytes("000a000000000000ffffffff0f00"),
    ]
    .concat();
    assert_eq!(
        plain(Codec::Snappy, &lie, usize::MAX).unwrap_err().code(),
        tonic::Code::Internal
    );
}

#[test]
fn chunks_of_snappy_are_checked() {
    let good = bytes(TEXT_SNAPPY);
    for (at, what) in [
        (0, "stream header"),
        (10, "unsupported chunk type"),
        (14, "bad checksum"),
        (11, "it is truncated"),
    ] {
        let mut bad = good.clone();
        bad[at] = 0x44;
        let error = plain(Codec::Snappy, &bad, usize::MAX).unwrap_err();
        assert!(error.message().contains(what), "{error:?}");
    }
    let skippable = [&good[..], &bytes("fe030000000000"), &bytes("ff060000734e61507059")].concat();
    assert_eq!(plain(Codec::Snappy, &skippable, usize::MAX).unwrap(), TEXT);
}

#[test]
fn names_of_codecs() {
    assert_eq!(Codec::of("snappy").unwrap(), Some(Codec::Snappy));
    assert_eq!(Codec::of("gzip").unwrap(), Some(Codec::Gzip));
    assert_eq!(Codec::of("identity").unwrap(), None);
    let unknown = Codec::of("zstd").unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::Unimplemented);
    assert_eq!(
        unknown.message(),
        "grpc: Decompressor is not installed for grpc-encoding \"zstd\""
    );
}
