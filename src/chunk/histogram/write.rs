//! One chunk of histograms, written sample by sample.

use super::{
    super::{Encoding, bits::Writer, is_stale, value, varbit},
    Chunk, Counts, Header, Histogram,
    layout::Layout,
};

/// A chunk that is being written. All its samples have the layout of the first, but for marks of the series' end.
pub(super) struct Appender {
    writer: Writer,
    header: Header,
    encoding: Encoding,
    count: u16,
    first_time: i64,
    time: i64,
    time_delta: i64,
    sum: value::Encoder,
    state: State,
}

/// The numbers of the last sample.
enum State {
    Integer {
        count: Number,
        zero: Number,
        buckets: Vec<Number>,
    },
    Float {
        count: value::Encoder,
        zero: value::Encoder,
        buckets: Vec<value::Encoder>,
    },
}

/// An integer that is written as the difference of its differences.
#[derive(Clone, Copy)]
struct Number {
    value: i64,
    delta: i64,
}

impl Number {
    fn new(value: i64) -> Self {
        Self { value, delta: 0 }
    }

    fn write(&mut self, writer: &mut Writer, value: i64) {
        let delta = value.wrapping_sub(self.value);
        varbit::write_signed(writer, delta.wrapping_sub(self.delta));
        *self = Self { value, delta };
    }
}

impl Appender {
    /// A chunk with its first sample.
    pub(super) fn new(header: Header, sample: &Histogram) -> Self {
        let mut writer = Writer::new(vec![0, 0, header as u8]);
        let stale = is_stale(sample.sum);
        let layout = if stale { Layout::default() } else { Layout::of(sample) };
        layout.write(&mut writer);
        varbit::write_signed(&mut writer, sample.timestamp_ms);
        let (encoding, state) = match &sample.counts {
            Counts::Integer {
                count,
                zero,
                positive,
                negative,
            } => {
                let (count, zero) = if stale { (0, 0) } else { (*count, *zero) };
                varbit::write_unsigned(&mut writer, count);
                varbit::write_unsigned(&mut writer, zero);
                writer.bits(sample.sum.to_bits(), 64);
                let all = positive.iter().chain(negative).filter(|_| !stale);
                let write = |bucket: &i64| {
                    varbit::write_signed(&mut writer, *bucket);
                    Number::new(*bucket)
                };
                let buckets = all.map(write).collect();
                let (count, zero) = (Number::new(count as i64), Number::new(zero as i64));
                (Encoding::Histogram, State::Integer { count, zero, buckets })
            }
            Counts::Float {
                count,
                zero,
                positive,
                negative,
            } => {
                let (count, zero) = if stale { (0.0, 0.0) } else { (*count, *zero) };
                let all = positive.iter().chain(negative).filter(|_| !stale);
                for float in [count, zero, sample.sum] {
                    writer.bits(float.to_bits(), 64);
                }
                let write = |bucket: &f64| {
                    writer.bits(bucket.to_bits(), 64);
                    value::Encoder::new(*bucket)
                };
                let buckets = all.map(write).collect();
                let (count, zero) = (value::Encoder::new(count), value::Encoder::new(zero));
                (Encoding::FloatHistogram, State::Float { count, zero, buckets })
            }
        };
        Self {
            writer,
            header,
            encoding,
            count: 1,
            first_time: sample.timestamp_ms,
            time: sample.timestamp_ms,
            time_delta: 0,
            sum: value::Encoder::new(sample.sum),
            state,
        }
    }

    pub(super) fn header(&self) -> Header {
        self.header
    }

    pub(super) fn count(&self) -> usize {
        self.count.into()
    }

    /// One more sample. The caller has seen that it has the chunk's kind and layout, and that there is room.
    pub(super) fn push(&mut self, sample: &Histogram) {
        let writer = &mut self.writer;
        let stale = is_stale(sample.sum);
        let delta = sample.timestamp_ms.wrapping_sub(self.time);
        varbit::write_signed(writer, delta.wrapping_sub(self.time_delta));
        match (&mut self.state, &sample.counts) {
            (State::Integer { .. }, Counts::Integer { .. }) if stale => {
                // Nothing but such marks can follow in this chunk: the numbers need not be kept.
                writer.bits(0, 2);
                self.sum.write(writer, sample.sum);
            }
            (
                State::Integer { count, zero, buckets },
                Counts::Integer {
                    count: new_count,
                    zero: new_zero,
                    positive,
                    negative,
                },
            ) => {
                count.write(writer, *new_count as i64);
                zero.write(writer, *new_zero as i64);
                self.sum.write(writer, sample.sum);
                for (state, bucket) in buckets.iter_mut().zip(positive.iter().chain(negative)) {
                    state.write(writer, *bucket);
                }
            }
            (
                State::Float { count, zero, buckets },
                Counts::Float {
                    count: new_count,
                    zero: new_zero,
                    positive,
                    negative,
                },
            ) => {
                count.write(writer, if stale { 0.0 } else { *new_count });
                zero.write(writer, if stale { 0.0 } else { *new_zero });
                self.sum.write(writer, sample.sum);
                let all = positive.iter().chain(negative).filter(|_| !stale);
                for (state, bucket) in buckets.iter_mut().zip(all) {
                    state.write(writer, *bucket);
                }
            }
            // The caller starts a new chunk between integers and floats.
            _ => return,
        }
        self.time = sample.timestamp_ms;
        self.time_delta = delta;
        self.count += 1;
    }

    pub(super) fn finish(self) -> Chunk {
        let mut data = self.writer.into_bytes();
        data[..2].copy_from_slice(&self.count.to_be_bytes());
        Chunk {
            encoding: self.encoding,
            min_time_ms: self.first_time,
            max_time_ms: self.time,
            data,
        }
    }
}
