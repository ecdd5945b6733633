package main

import (
	"fmt"
	"math"
	"math/rand"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// float is a sample with its time and start timestamp (0: none).
type float struct {
	st, t int64
	v     float64
}

// floatPair makes one chunk of floats; unless it is `newer`, both blocks have it as XOR.
func floatPair(samples []float, newer bool) pair {
	var source chunkenc.Chunk = chunkenc.NewXORChunk()
	if newer {
		source = chunkenc.NewXOR2Chunk()
	}
	plain := chunkenc.NewXORChunk()
	a, b := must(source.Appender()), must(plain.Appender())
	for _, s := range samples {
		a.Append(s.st, s.t, s.v)
		b.Append(0, s.t, s.v)
	}
	return pair{source, plain, len(samples), samples[0].t, samples[len(samples)-1].t}
}

// cut makes samples into chunks of these lengths, one after another; the last takes what is left.
func cut(samples []float, newer func(chunk int) bool, lengths ...int) []pair {
	pairs := []pair{}
	for i := 0; len(samples) > 0; i++ {
		length := len(samples)
		if i < len(lengths) {
			length = min(length, lengths[i])
		}
		pairs = append(pairs, floatPair(samples[:length], newer(i)))
		samples = samples[length:]
	}
	return pairs
}

func always(int) bool { return true }

type (
	times  func(i int) int64
	values func(i int) float64
	starts func(i int) int64
)

func make3(n int, t times, v values, st starts) []float {
	samples := []float{}
	for i := range n {
		samples = append(samples, float{st(i), t(i), v(i)})
	}
	return samples
}

func regular(i int) int64    { return start + int64(i)*15000 }
func none(int) int64         { return 0 }
func oneStart(int) int64     { return start - 60000 }
func lateStarts(i int) int64 { return start - 1000 + int64(i/50)*100 }
func moving(i int) int64     { return regular(i) - 15000 - int64(i*i%977) }
func fromTheThird(i int) int64 {
	return max(0, int64(i-1)) * 1000
}
func sometimes(i int) int64 { return int64(i%3) * 1000 }

// staleEvery puts a mark of the series' end in each so many values.
func staleEvery(n int, v values) values {
	return func(i int) float64 {
		if i%n == n-1 {
			return math.Float64frombits(value.StaleNaN)
		}
		return v(i)
	}
}

func floats() []series {
	random := rand.New(rand.NewSource(3))
	jitter := func(i int) int64 { return regular(i) + random.Int63n(40) - 20 }
	gaps := func(i int) int64 { return regular(i) + int64(i/7)*1_000_000 + int64(i/31)*(1<<34) }
	constant := func(int) float64 { return 42 }
	counter := func(i int) float64 { return float64(i * 7) }
	bursts := func(i int) float64 { return float64(i / 10 * 1000) }
	noise := func(int) float64 { return random.NormFloat64() }
	short := func(int) float64 { return float64(float32(random.NormFloat64())) }
	special := []float64{0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.NaN(), math.Float64frombits(value.StaleNaN), 1,
		math.Float64frombits(value.StaleNaN), math.Float64frombits(value.StaleNaN), 1, 1, math.Float64frombits(value.StaleNaN), 2, math.MaxFloat64,
		math.SmallestNonzeroFloat64, math.Float64frombits(0x7ff8dead0000beef), math.Float64frombits(0xfff0000000000001), 0.1, 0.2, 0.30000000000000004,
		math.Float64frombits(0x7ff0000000000003), math.Float64frombits(math.MaxUint64), math.Float64frombits(1 << 63), math.Float64frombits(0x8000000000000001)}
	specials := func(i int) float64 { return special[i%len(special)] }
	all := []series{}
	add := func(name string, chunks []pair) {
		all = append(all, series{labels.FromStrings("__name__", "floats", "kind", name), chunks})
	}
	add("one", cut(make3(1, regular, constant, none), always))
	add("one with a start", cut(make3(1, regular, constant, oneStart), always))
	add("one stale", cut(make3(1, regular, staleEvery(1, constant), oneStart), always))
	add("two", cut(make3(2, regular, counter, moving), always))
	add("constant", cut(make3(1360, regular, constant, none), always, 120, 120, 1000))
	add("constant with a start", cut(make3(1121, regular, constant, oneStart), always, 1000, 120))
	add("counter", cut(make3(1121, regular, counter, none), always, 120, 1000))
	add("counter in bursts", cut(make3(500, regular, bursts, none), always, 120, 120, 1, 120))
	add("counter with a start", cut(make3(240, jitter, counter, oneStart), always, 120))
	add("counter with late starts", cut(make3(240, jitter, counter, lateStarts), always, 120))
	add("counter with moving starts", cut(make3(240, regular, counter, moving), always, 120))
	add("counter with starts from the third on", cut(make3(60, gaps, counter, fromTheThird), always, 30))
	add("counter with a start now and then", cut(make3(60, jitter, counter, sometimes), always, 30))
	add("gauge", cut(make3(180, jitter, noise, none), always, 120))
	add("gauge with gaps", cut(make3(120, gaps, short, none), always, 60))
	add("gauge that ends", cut(make3(240, regular, staleEvery(10, short), none), always, 120))
	add("constant that ends", cut(make3(240, jitter, staleEvery(7, constant), moving), always, 120))
	add("counter that ends", cut(make3(240, regular, staleEvery(5, counter), none), always, 120))
	add("all stale", cut(make3(130, regular, staleEvery(1, counter), none), always, 120))
	add("special values", cut(make3(120, regular, specials, none), always, 100))
	add("special values with starts", cut(make3(120, jitter, specials, moving), always, 100))
	add("plain between", cut(make3(600, jitter, counter, none), func(chunk int) bool { return chunk%2 == 0 }, 120, 120, 120, 120))
	add("before 1970", []pair{floatPair(make3(50, func(i int) int64 { return start - 5_000_000 + int64(i)*1000 }, counter, func(i int) int64 { return -int64(i) }), true)})
	return all
}

// manySegments has series whose chunks go over the segments' ends.
func manySegments() []series {
	random := rand.New(rand.NewSource(4))
	all := []series{}
	for i := range 12 {
		gauge := func(i int) float64 { return math.Round(random.NormFloat64() * 100) }
		chunks := cut(make3(60*(1+i%5), regular, gauge, none), always, 60, 30, 1, 29, 60)
		all = append(all, series{labels.FromStrings("__name__", "segments", "n", fmt.Sprint(i)), chunks})
	}
	// One that has more chunks than go into a segment.
	noise := func(int) float64 { return float64(float32(random.NormFloat64())) }
	long := cut(make3(840, regular, noise, none), always, 120, 120, 120, 120, 120, 120)
	all = append(all, series{labels.FromStrings("__name__", "segments", "n", "long"), long})
	// One chunk that is longer than a segment.
	large := cut(make3(540, regular, noise, none), always, 10, 500)
	return append(all, series{labels.FromStrings("__name__", "segments", "n", "large"), large})
}

// manyLabels has many short series, so that most of the index is postings; some are of plain chunks.
func manyLabels() []series {
	all := []series{}
	for i := range 110 {
		set := labels.FromStrings("__name__", fmt.Sprintf("name_%d", i%7), "instance", fmt.Sprintf("host-%d:9100", i), "job", fmt.Sprintf("job-%d", i%3),
			"zone", []string{"a", "ä", "日本"}[i/40], "odd", []string{"", "x"}[i%2], "number", fmt.Sprint(i/2))
		value := func(n int) float64 { return float64(n/5*i) / 4 }
		if i%10 == 1 {
			// A mark of the series' end takes a few bits in the newer encoding and many bytes in the old one: with it only the
			// newer chunks are shorter than 64 bytes, and so are the references to them.
			same := staleEvery(61, func(int) float64 { return float64(i) })
			all = append(all, series{set, cut(make3(480+i, regular, same, none), always, 120, 120, 120, 120)})
			continue
		}
		chunks := cut(make3(3+i%25, func(n int) int64 { return start + int64(n/9) + int64(n)*1000 }, value, none), func(int) bool { return i%4 > 0 }, 8, 1)
		all = append(all, series{set, chunks})
	}
	return all
}

// appendAll does what Prometheus' head does: a new chunk where the appender wants one, and where one is full.
func appendAll(length int, fresh func() chunkenc.Chunk, times []int64, add func(i int, app, prev chunkenc.Appender) (chunkenc.Chunk, bool, chunkenc.Appender, error)) (out []pair) {
	chunk := fresh()
	app := must(chunk.Appender())
	var prev chunkenc.Appender
	first := 0
	finish := func(end int) {
		out = append(out, pair{source: chunk, samples: end - first, min: times[first], max: times[end-1]})
		first = end
	}
	for i := range times {
		if chunk.NumSamples() >= length {
			finish(i)
			prev = app
			chunk = fresh()
			app = must(chunk.Appender())
		}
		next, again, newApp, err := add(i, app, prev)
		check(err)
		if next != nil {
			if !again {
				finish(i)
			}
			chunk = next
		}
		app, prev = newApp, nil
	}
	finish(len(times))
	return out
}

// timed is a histogram with its time and start timestamp (0: none).
type timed struct {
	st, t int64
	h     *histogram.Histogram
}

// histogramPairs makes chunks of the samples, with start timestamps in the source and without in the plain block.
func histogramPairs(samples []timed, length int, asFloats bool) []pair {
	times := []int64{}
	for _, s := range samples {
		times = append(times, s.t)
	}
	asFloat := func(i int) *histogram.FloatHistogram {
		f := samples[i].h.ToFloat(nil)
		if !value.IsStaleNaN(f.Sum) {
			f.Count += 0.5
			for b := range f.PositiveBuckets {
				f.PositiveBuckets[b] *= 1.5
			}
		}
		return f
	}
	add := func(i int, app, prev chunkenc.Appender) (chunkenc.Chunk, bool, chunkenc.Appender, error) {
		if asFloats {
			return app.AppendFloatHistogram(prev, samples[i].st, samples[i].t, asFloat(i), false)
		}
		return app.AppendHistogram(prev, samples[i].st, samples[i].t, samples[i].h.Copy(), false)
	}
	source, plain := func() chunkenc.Chunk { return chunkenc.NewHistogramSTChunk() }, func() chunkenc.Chunk { return chunkenc.NewHistogramChunk() }
	if asFloats {
		source, plain = func() chunkenc.Chunk { return chunkenc.NewFloatHistogramSTChunk() }, func() chunkenc.Chunk { return chunkenc.NewFloatHistogramChunk() }
	}
	pairs, plains := appendAll(length, source, times, add), appendAll(length, plain, times, add)
	for i := range pairs {
		pairs[i].plain = plains[i].source
	}
	return pairs
}

// grow makes n samples of a histogram that grows by chance in every bucket.
func grow(random *rand.Rand, n int, st starts, h *histogram.Histogram) []timed {
	samples := []timed{}
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
		h.Sum += float64(random.Intn(100)) / 4
		samples = append(samples, timed{st(i), regular(i) + random.Int63n(20), h})
	}
	return samples
}

// change changes the samples from one on.
func change(samples []timed, from int, how func(h *histogram.Histogram)) []timed {
	for _, s := range samples[from:] {
		how(s.h)
	}
	return samples
}

// join puts samples behind others.
func join(samples []timed, more ...timed) []timed {
	shift := samples[len(samples)-1].t + 15000 - more[0].t
	for _, s := range more {
		samples = append(samples, timed{s.st, s.t + shift, s.h})
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

func histograms() []series {
	random := rand.New(rand.NewSource(5))
	stale := func(st int64) timed {
		return timed{st, start, &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}}
	}
	gauge := base()
	gauge.CounterResetHint = histogram.GaugeType
	hinted := base()
	hinted.CounterResetHint = histogram.CounterReset
	all := []series{}
	add := func(name string, length int, samples []timed) {
		for kind, asFloats := range []bool{false, true} {
			set := labels.FromStrings("__name__", []string{"histogram", "float_histogram"}[kind], "kind", name)
			all = append(all, series{set, histogramPairs(samples, length, asFloats)})
		}
	}
	add("one", 1, grow(random, 3, moving, base()))
	add("counter", 120, grow(random, 125, oneStart, base()))
	add("counter without starts", 120, grow(random, 20, none, base()))
	add("counter with moving starts", 120, grow(random, 130, moving, custom(1)))
	add("long", 1000, grow(random, 130, lateStarts, &histogram.Histogram{Schema: -4}))
	add("gauge", 5, grow(random, 12, fromTheThird, gauge))
	add("gauge that shrinks", 120, join(grow(random, 5, oneStart, gauge), grow(random, 5, moving, gauge)...))
	add("reset", 120, join(grow(random, 5, oneStart, base()), grow(random, 5, moving, base())...))
	add("hints of resets", 3, join(grow(random, 4, oneStart, base()), grow(random, 4, oneStart, hinted)...))
	add("schema changes", 120, change(grow(random, 6, sometimes, base()), 3, func(h *histogram.Histogram) { h.Schema = 2 }))
	add("stale and back", 120, join(join(grow(random, 5, oneStart, base()), stale(start-60000), stale(0)), grow(random, 5, moving, base())...))
	add("only stale", 120, join([]timed{stale(5)}, stale(5), stale(0)))
	add("custom buckets", 120, grow(random, 8, moving, custom(0.005, 0.01, 0.1, 1, 2.5, 10)))
	add("odd bounds", 120, grow(random, 3, oneStart, custom(math.Inf(-1), -1, 0, 0.0005, 1.0/3, 33554.43, 33554.431, 1e10, math.MaxFloat64)))
	add("bounds change", 120, change(grow(random, 6, oneStart, custom(1, 2, 3)), 3, func(h *histogram.Histogram) { h.CustomValues = []float64{1, 2, 4} }))
	add("a bucket less", 120, change(grow(random, 6, moving, base()), 3, func(h *histogram.Histogram) {
		h.NegativeSpans = []histogram.Span{{Offset: 1, Length: 1}}
		h.NegativeBuckets = h.NegativeBuckets[:1]
	}))
	add("a bucket more", 120, change(grow(random, 6, moving, base()), 3, func(h *histogram.Histogram) {
		h.NegativeSpans = []histogram.Span{{Offset: 1, Length: 3}}
		h.NegativeBuckets = append(h.NegativeBuckets, 1)
	}))
	add("odd sums", 120, change(grow(random, 6, moving, base()), 2, func(h *histogram.Histogram) {
		h.Sum = []float64{math.Float64frombits(0x7ff8dead0000beef), math.Inf(1), -1}[h.Count%3]
	}))
	whole := change(grow(random, 1000, lateStarts, &histogram.Histogram{Schema: -4}), 0, func(h *histogram.Histogram) { h.Sum = float64(h.Count * 2) })
	return append(all, series{labels.FromStrings("__name__", "histogram", "kind", "very long"), histogramPairs(whole, 1000, false)})
}
