package main

import (
	"encoding/hex"
	"log"
	"math"
	"math/rand"
	"reflect"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// histogramSample is a histogram of integers; the same histogram as floats makes a vector of its own.
type histogramSample struct {
	st, t int64
	h     *histogram.Histogram
}

type jsonHistogram struct {
	T    int64 `json:"t"`
	Hint int   `json:"hint"`
	// None if it is that of the sample before.
	Layout *jsonLayout `json:"layout,omitempty"`
	Sum    string      `json:"sum"`
	// Of integers: numbers, and differences between buckets. Of floats: bits.
	Count    any `json:"count"`
	Zero     any `json:"zero"`
	Positive any `json:"positive"`
	Negative any `json:"negative"`
}

type jsonLayout struct {
	Schema        int32      `json:"schema"`
	ZeroThreshold string     `json:"zero_threshold"`
	PositiveSpans [][2]int64 `json:"positive_spans"`
	NegativeSpans [][2]int64 `json:"negative_spans"`
	CustomValues  []string   `json:"custom_values"`
}

type histogramVector struct {
	Name  string `json:"name"`
	Float bool   `json:"float"`
	// Prometheus rewrote a chunk to hold more buckets: we start a new one there.
	Recoded bool            `json:"recoded"`
	Samples []jsonHistogram `json:"samples"`
	Chunks  []string        `json:"chunks"`
	// The same with start timestamps.
	Started []string `json:"chunks_with_start"`
	// What is left of the chunks, the first ones above.
	Cuts []cut `json:"cuts"`
}

func spans(in []histogram.Span) [][2]int64 {
	out := [][2]int64{}
	for _, s := range in {
		out = append(out, [2]int64{int64(s.Offset), int64(s.Length)})
	}
	return out
}

func orEmpty(in []int64) []int64 {
	return append([]int64{}, in...)
}

func layout(schema int32, threshold float64, positive, negative []histogram.Span, bounds []float64) *jsonLayout {
	return &jsonLayout{schema, bits(threshold), spans(positive), spans(negative), manyBits(bounds)}
}

func integer(s histogramSample) jsonHistogram {
	h := s.h
	return jsonHistogram{s.t, int(h.CounterResetHint), layout(h.Schema, h.ZeroThreshold, h.PositiveSpans, h.NegativeSpans, h.CustomValues),
		bits(h.Sum), h.Count, h.ZeroCount, orEmpty(h.PositiveBuckets), orEmpty(h.NegativeBuckets)}
}

func float(t int64, h *histogram.FloatHistogram) jsonHistogram {
	return jsonHistogram{t, int(h.CounterResetHint), layout(h.Schema, h.ZeroThreshold, h.PositiveSpans, h.NegativeSpans, h.CustomValues),
		bits(h.Sum), bits(h.Count), bits(h.ZeroCount), manyBits(h.PositiveBuckets), manyBits(h.NegativeBuckets)}
}

// withoutRepeats leaves out the layouts that are as the ones before.
func withoutRepeats(samples []jsonHistogram) []jsonHistogram {
	var last *jsonLayout
	for i := range samples {
		if reflect.DeepEqual(last, samples[i].Layout) {
			samples[i].Layout = nil
		} else {
			last = samples[i].Layout
		}
	}
	return samples
}

// appendAll does what Prometheus' head does: a new chunk where the appender wants one, and where one is full.
func appendAll(samples int, make func() chunkenc.Chunk, add func(i int, app, prev chunkenc.Appender) (chunkenc.Chunk, bool, chunkenc.Appender, error)) (chunks []string, recoded bool) {
	chunks = []string{}
	if samples == 0 {
		return chunks, false
	}
	chunk := make()
	app := must(chunk.Appender())
	var prev chunkenc.Appender
	finish := func() { chunks = append(chunks, hex.EncodeToString(chunk.Bytes())) }
	for i := range samples {
		if chunk.NumSamples() >= 120 {
			finish()
			prev = app
			chunk = make()
			app = must(chunk.Appender())
		}
		next, again, newApp, err := add(i, app, prev)
		if err != nil {
			log.Fatal(err)
		}
		if next != nil {
			if !again {
				finish()
			}
			chunk = next
			recoded = recoded || again
		}
		app, prev = newApp, nil
	}
	finish()
	return chunks, recoded
}

func histogramPair(name string, samples []histogramSample) []histogramVector {
	integers := histogramVector{Name: name, Samples: []jsonHistogram{}}
	floats := histogramVector{Name: name, Float: true, Samples: []jsonHistogram{}}
	// Floats that are no integers, too.
	asFloat := func(i int) *histogram.FloatHistogram {
		f := samples[i].h.ToFloat(nil)
		if !value.IsStaleNaN(f.Sum) {
			f.Count += 0.1
			f.ZeroCount *= 1.5
			for b := range f.PositiveBuckets {
				f.PositiveBuckets[b] *= 1.1
			}
		}
		return f
	}
	for i, s := range samples {
		integers.Samples = append(integers.Samples, integer(s))
		floats.Samples = append(floats.Samples, float(s.t, asFloat(i)))
	}
	addInteger := func(i int, app, prev chunkenc.Appender) (chunkenc.Chunk, bool, chunkenc.Appender, error) {
		return app.AppendHistogram(prev, samples[i].st, samples[i].t, samples[i].h.Copy(), false)
	}
	addFloat := func(i int, app, prev chunkenc.Appender) (chunkenc.Chunk, bool, chunkenc.Appender, error) {
		return app.AppendFloatHistogram(prev, samples[i].st, samples[i].t, asFloat(i), false)
	}
	integers.Chunks, integers.Recoded = appendAll(len(samples), func() chunkenc.Chunk { return chunkenc.NewHistogramChunk() }, addInteger)
	floats.Chunks, floats.Recoded = appendAll(len(samples), func() chunkenc.Chunk { return chunkenc.NewFloatHistogramChunk() }, addFloat)
	integers.Started, _ = appendAll(len(samples), func() chunkenc.Chunk { return chunkenc.NewHistogramSTChunk() }, addInteger)
	floats.Started, _ = appendAll(len(samples), func() chunkenc.Chunk { return chunkenc.NewFloatHistogramSTChunk() }, addFloat)
	integers.Cuts = cuts(chunkenc.EncHistogram, integers.Chunks)
	floats.Cuts = cuts(chunkenc.EncFloatHistogram, floats.Chunks)
	integers.Samples, floats.Samples = withoutRepeats(integers.Samples), withoutRepeats(floats.Samples)
	return []histogramVector{integers, floats}
}

// grow makes n samples of a histogram that grows by chance in every bucket.
func grow(random *rand.Rand, n int, h *histogram.Histogram) []histogramSample {
	samples := []histogramSample{}
	for i := range n {
		counts := uint64(0)
		add := func(buckets []int64) {
			before := int64(0)
			for b := range buckets {
				// A bucket's growth changes the difference to the one before it, and that of the next to it.
				plus := random.Int63n(5)
				buckets[b] += plus - before
				before = plus
				counts += uint64(plus)
			}
		}
		h = h.Copy()
		if i > 0 && h.CounterResetHint != histogram.GaugeType {
			h.CounterResetHint = histogram.UnknownCounterReset
		}
		add(h.PositiveBuckets)
		add(h.NegativeBuckets)
		if !h.UsesCustomBuckets() {
			h.ZeroCount += uint64(random.Intn(2))
		}
		h.Count += counts + 1
		h.Sum += random.Float64() * 10
		t := start + int64(i)*15000 + random.Int63n(20)
		samples = append(samples, histogramSample{start - 1000 + int64(i/3), t, h})
	}
	return samples
}

func stale(t int64) histogramSample {
	return histogramSample{0, t, &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}}
}

// with changes the samples from one on.
func with(samples []histogramSample, from int, change func(h *histogram.Histogram)) []histogramSample {
	for _, s := range samples[from:] {
		change(s.h)
	}
	return samples
}

func base() *histogram.Histogram {
	return &histogram.Histogram{Schema: 3, ZeroThreshold: 1e-128, ZeroCount: 2, Count: 12, Sum: 1.5,
		PositiveSpans: []histogram.Span{{Offset: -2, Length: 2}, {Offset: 3, Length: 1}}, PositiveBuckets: []int64{3, 1, -2},
		NegativeSpans: []histogram.Span{{Offset: 1, Length: 2}}, NegativeBuckets: []int64{1, 0}}
}

func custom(bounds ...float64) *histogram.Histogram {
	return &histogram.Histogram{Schema: histogram.CustomBucketsSchema, Count: 6, Sum: 20,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: uint32(len(bounds))}}, PositiveBuckets: make([]int64, len(bounds)), CustomValues: bounds}
}

func histogramVectors() []histogramVector {
	random := rand.New(rand.NewSource(2))
	vectors := []histogramVector{}
	add := func(name string, samples []histogramSample) {
		vectors = append(vectors, histogramPair(name, samples)...)
	}
	gauge := base()
	gauge.CounterResetHint = histogram.GaugeType
	hinted := base()
	hinted.CounterResetHint = histogram.CounterReset
	later := func(samples []histogramSample, from []histogramSample) []histogramSample {
		shift := samples[len(samples)-1].t + 15000 - from[0].t
		for _, s := range from {
			samples = append(samples, histogramSample{s.st, s.t + shift, s.h})
		}
		return samples
	}
	add("none", nil)
	add("one", grow(random, 1, base()))
	add("counter", grow(random, 14, base()))
	add("counter, more than a chunk", grow(random, 122, custom(1)))
	add("gauge", grow(random, 8, gauge))
	add("gauge that shrinks", later(grow(random, 5, gauge), grow(random, 5, gauge)))
	add("gauge, more than a chunk", grow(random, 121, func() *histogram.Histogram { h := custom(2.5); h.CounterResetHint = histogram.GaugeType; return h }()))
	add("reset", later(grow(random, 5, base()), grow(random, 5, base())))
	add("hint of a reset at the beginning", grow(random, 4, hinted))
	add("hint of a reset inside", later(grow(random, 4, base()), grow(random, 4, hinted)))
	add("reset in one bucket", with(grow(random, 6, base()), 3, func(h *histogram.Histogram) { h.PositiveBuckets[2] -= 1000; h.PositiveBuckets[0] += 1000 }))
	add("reset in the zero bucket", with(grow(random, 6, base()), 3, func(h *histogram.Histogram) { h.ZeroCount = 0 }))
	add("schema changes", with(grow(random, 6, base()), 3, func(h *histogram.Histogram) { h.Schema = 2 }))
	add("zero threshold changes", with(grow(random, 6, base()), 3, func(h *histogram.Histogram) { h.ZeroThreshold = 0.25 }))
	add("spans said differently", with(grow(random, 6, base()), 3, func(h *histogram.Histogram) {
		h.NegativeSpans = []histogram.Span{{Offset: 1, Length: 1}, {Offset: 0, Length: 1}}
	}))
	add("a bucket more", with(grow(random, 6, base()), 3, func(h *histogram.Histogram) {
		h.NegativeSpans = []histogram.Span{{Offset: 1, Length: 3}}
		h.NegativeBuckets = append(h.NegativeBuckets, 1)
	}))
	add("a bucket less", with(grow(random, 6, base()), 3, func(h *histogram.Histogram) {
		h.NegativeSpans = []histogram.Span{{Offset: 1, Length: 1}}
		h.NegativeBuckets = h.NegativeBuckets[:1]
	}))
	add("stale at the end", append(grow(random, 5, base()), stale(start+100000), stale(start+200000)))
	add("stale and back", later(append(grow(random, 5, base()), stale(start+100000)), grow(random, 5, base())))
	add("stale at the beginning", later([]histogramSample{stale(start)}, grow(random, 3, base())))
	add("only stale", []histogramSample{stale(start), stale(start + 1), stale(start + 5)})
	add("custom buckets", grow(random, 8, custom(0.005, 0.01, 0.1, 1, 2.5, 10)))
	add("odd bounds", grow(random, 3, custom(math.Inf(-1), -1, 0, 0.0005, 1.0/3, 33554.43, 33554.431, 1e10, math.MaxFloat64)))
	add("custom bounds change", with(grow(random, 6, custom(1, 2, 3)), 3, func(h *histogram.Histogram) { h.CustomValues = []float64{1, 2, 4} }))
	add("no buckets", grow(random, 5, &histogram.Histogram{Schema: -4, ZeroThreshold: 0}))
	add("spans of no length", grow(random, 5, &histogram.Histogram{Schema: 8, ZeroThreshold: 0.3,
		PositiveSpans: []histogram.Span{{Offset: 5, Length: 0}, {Offset: -3, Length: 1}, {Offset: 1, Length: 0}, {Offset: 2, Length: 1}}, PositiveBuckets: []int64{1, 1}}))
	add("odd sums", with(grow(random, 6, base()), 2, func(h *histogram.Histogram) { h.Sum = []float64{math.NaN(), math.Inf(1), -1}[h.Count%3] }))
	add("large numbers", with(grow(random, 5, base()), 0, func(h *histogram.Histogram) {
		h.Count += 1 << 60
		h.PositiveBuckets[0] += 1 << 50
		h.PositiveBuckets[1] -= 1 << 30
	}))
	for _, threshold := range []float64{math.Ldexp(1, -243), math.Ldexp(1, -244), math.Ldexp(1, 10), math.Ldexp(1, 11), math.Ldexp(1, -128), 1, -1, 0.001, math.Inf(1), math.SmallestNonzeroFloat64} {
		h := base()
		h.ZeroThreshold = threshold
		add("zero threshold "+bits(threshold), grow(random, 1, h))
	}
	return vectors
}
