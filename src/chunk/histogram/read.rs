//! Chunks of histograms, read; and those with start timestamps, rewritten without.

use std::mem;

use super::{
    super::{
        Error,
        bits::{AT_ONCE, End, Reader, Writer},
        is_stale,
        st::{Starts, WIDE_START},
        value, varbit,
        xor::{BAD_WINDOW, Samples},
    },
    Counts, Header, Histogram, Kind, ResetHint,
    layout::{BAD_LAYOUT, Layout},
};

/// The most buckets that are read.
const BUCKETS_MAX: usize = 1 << 16;

/// Bytes before the layout.
const HEADER: usize = 3;
/// With start timestamps, what is known about resets stands in the highest bits of the count.
pub(in crate::chunk) const COUNT_BESIDE_RESETS: u16 = 0x3fff;
/// The bits for that.
const RESETS: u8 = 0xc0;

/// Reads the samples of a chunk of HISTOGRAM or FLOAT_HISTOGRAM. The iterator ends after its first error: those of
/// [`xor::decode`](super::super::xor::decode).
pub fn decode(data: &[u8], kind: Kind) -> Decoder<'_> {
    Decoder::new(Samples::new(data, HEADER), data.get(2).copied(), kind)
}

/// Appends a chunk of HISTOGRAM_ST or FLOAT_HISTOGRAM_ST (Prometheus 3.14 and later, when asked for) to `out` as one of
/// HISTOGRAM or FLOAT_HISTOGRAM: the same bits without the start timestamps. Returns how many of those there were.
///
/// # Errors
/// Those of [`decode`]; then `out` is of no use.
pub fn transcode_into(data: &[u8], kind: Kind, out: &mut Vec<u8>) -> Result<u16, Error> {
    let samples = Samples::counted(data, HEADER, COUNT_BESIDE_RESETS);
    let announced = samples.announced();
    let mut starts = Starts::new(data.get(2).copied().unwrap_or_default());
    let mut decoder = Decoder::new(samples, data.first().copied(), kind);
    out.extend(announced.to_be_bytes());
    out.push(decoder.resets);
    let mut writer = Writer::new(mem::take(out));
    let mut started = 0;
    while let Some(index) = decoder.samples.begin() {
        let index = index?;
        let before = decoder.time;
        let mut copied = decoder.samples.reader.clone();
        let mut read = decoder.sample(index);
        let end = decoder.samples.reader.position();
        if read == Ok(None) {
            let skipped = starts.read(&mut decoder.samples.reader, index, before, decoder.time);
            read = skipped.map(|good| (!good).then_some(WIDE_START));
        }
        decoder.samples.end(index, read)?;
        started += u16::from(starts.is_set());
        while copied.position() < end {
            let count = (end - copied.position()).min(AT_ONCE as usize) as u32;
            // It was read before: there is no end in it.
            writer.put(copied.take(count), count);
        }
    }
    *out = writer.into_bytes();
    Ok(started)
}

/// The samples of a chunk of histograms; see [`decode`].
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    samples: Samples<'a>,
    /// The header's bits about resets.
    resets: u8,
    layout: Layout,
    /// How many of the buckets are positive.
    positive: usize,
    time: i64,
    time_delta: i64,
    sum: value::Decoder,
    state: State,
}

/// The numbers of the last sample.
#[derive(Clone, Debug)]
enum State {
    Integer {
        count: Number,
        zero: Number,
        buckets: Vec<Number>,
    },
    Float {
        count: value::Decoder,
        zero: value::Decoder,
        buckets: Vec<value::Decoder>,
    },
}

/// An integer that is read as the difference of its differences.
#[derive(Clone, Copy, Debug, Default)]
struct Number {
    value: i64,
    delta: i64,
}

impl Number {
    fn read_first(reader: &mut Reader<'_>) -> Result<Self, End> {
        let value = varbit::read_signed(reader)?;
        Ok(Self { value, delta: 0 })
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), End> {
        self.delta = self.delta.wrapping_add(varbit::read_signed(reader)?);
        self.value = self.value.wrapping_add(self.delta);
        Ok(())
    }
}

impl<'a> Decoder<'a> {
    fn new(samples: Samples<'a>, resets: Option<u8>, kind: Kind) -> Self {
        let float = value::Decoder::new(0);
        Self {
            samples,
            resets: resets.unwrap_or_default() & RESETS,
            layout: Layout::default(),
            positive: 0,
            time: 0,
            time_delta: 0,
            sum: float,
            state: match kind {
                Kind::Integer => State::Integer {
                    count: Number::default(),
                    zero: Number::default(),
                    buckets: Vec::new(),
                },
                Kind::Float => State::Float {
                    count: float,
                    zero: float,
                    buckets: Vec::new(),
                },
            },
        }
    }

    fn sample(&mut self, index: u16) -> Result<Option<&'static str>, End> {
        if index == 0 { self.first() } else { self.later() }
    }

    fn first(&mut self) -> Result<Option<&'static str>, End> {
        let reader = &mut self.samples.reader;
        let Some(layout) = Layout::read(reader)? else {
            return Ok(Some(BAD_LAYOUT));
        };
        let (positive, all) = layout.buckets();
        self.layout = layout;
        // Each bucket takes a bit at least: a layout may not make us allocate for more.
        let all = usize::try_from(all).unwrap_or(usize::MAX);
        if all > reader.left() {
            return Err(End);
        }
        // And in memory each takes more than a hundred times as much.
        if all > BUCKETS_MAX {
            return Ok(Some(BAD_LAYOUT));
        }
        self.positive = usize::try_from(positive).unwrap_or(all);
        self.time = varbit::read_signed(reader)?;
        match &mut self.state {
            State::Integer { count, zero, buckets } => {
                count.value = varbit::read_unsigned(reader)? as i64;
                zero.value = varbit::read_unsigned(reader)? as i64;
                self.sum = value::Decoder::new(reader.bits(64)?);
                *buckets = (0..all).map(|_| Number::read_first(reader)).collect::<Result<_, _>>()?;
            }
            State::Float { count, zero, buckets } => {
                let mut float = || Ok(value::Decoder::new(reader.bits(64)?));
                (*count, *zero, self.sum) = (float()?, float()?, float()?);
                *buckets = (0..all).map(|_| float()).collect::<Result<_, _>>()?;
            }
        }
        Ok(None)
    }

    fn later(&mut self) -> Result<Option<&'static str>, End> {
        let reader = &mut self.samples.reader;
        self.time_delta = self.time_delta.wrapping_add(varbit::read_signed(reader)?);
        self.time = self.time.wrapping_add(self.time_delta);
        let mut good = true;
        match &mut self.state {
            State::Integer { count, zero, .. } => {
                count.read(reader)?;
                zero.read(reader)?;
            }
            State::Float { count, zero, .. } => good = count.read(reader)? && zero.read(reader)?,
        }
        good = good && self.sum.read(reader)?;
        if good && !is_stale(self.sum.value()) {
            match &mut self.state {
                State::Integer { buckets, .. } => buckets.iter_mut().try_for_each(|bucket| bucket.read(reader))?,
                State::Float { buckets, .. } => {
                    for bucket in buckets {
                        good = good && bucket.read(reader)?;
                    }
                }
            }
        }
        Ok((!good).then_some(BAD_WINDOW))
    }

    /// Reads the next sample and returns its index.
    pub(super) fn advance(&mut self) -> Option<Result<u16, Error>> {
        let index = match self.samples.begin()? {
            Ok(index) => index,
            Err(error) => return Some(Err(error)),
        };
        let read = self.sample(index);
        Some(self.samples.end(index, read).map(|()| index))
    }

    /// The time of what was read last, in Unix milliseconds.
    pub(super) fn time(&self) -> i64 {
        self.time
    }

    /// What was read last.
    pub(super) fn histogram(&self, index: u16) -> Histogram {
        let stale = is_stale(self.sum.value());
        let empty = Layout::default();
        let layout = if stale { &empty } else { &self.layout };
        let hint = match (self.resets, index) {
            _ if stale => ResetHint::Unknown,
            (resets, _) if resets == Header::Gauge as u8 => ResetHint::Gauge,
            (_, 1..) => ResetHint::NoReset,
            (resets, _) if resets == Header::Reset as u8 => ResetHint::Reset,
            // That there was no reset before a chunk holds only while its neighbour is there, too.
            _ => ResetHint::Unknown,
        };
        Histogram {
            timestamp_ms: self.time,
            hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            sum: self.sum.value(),
            positive_spans: layout.positive.clone(),
            negative_spans: layout.negative.clone(),
            custom_values: layout.custom_values.clone(),
            counts: self.counts(stale),
        }
    }

    fn counts(&self, stale: bool) -> Counts {
        match &self.state {
            State::Integer { .. } if stale => Counts::Integer {
                count: 0,
                zero: 0,
                positive: Vec::new(),
                negative: Vec::new(),
            },
            State::Float { .. } if stale => Counts::Float {
                count: 0.0,
                zero: 0.0,
                positive: Vec::new(),
                negative: Vec::new(),
            },
            State::Integer { count, zero, buckets } => {
                let (positive, negative) = buckets.split_at(self.positive);
                let values = |side: &[Number]| side.iter().map(|number| number.value).collect();
                Counts::Integer {
                    count: count.value as u64,
                    zero: zero.value as u64,
                    positive: values(positive),
                    negative: values(negative),
                }
            }
            State::Float { count, zero, buckets } => {
                let (positive, negative) = buckets.split_at(self.positive);
                let values = |side: &[value::Decoder]| side.iter().map(value::Decoder::value).collect();
                Counts::Float {
                    count: count.value(),
                    zero: zero.value(),
                    positive: values(positive),
                    negative: values(negative),
                }
            }
        }
    }
}

impl Iterator for Decoder<'_> {
    type Item = Result<Histogram, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.advance()?;
        Some(read.map(|index| self.histogram(index)))
    }
}
