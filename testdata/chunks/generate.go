// Writes vectors.json: chunks made by Prometheus' own code, with the samples that went in. Run it with
// `go run .` in this directory.
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"math/rand"
	"os"
	"strings"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Floats are written by their bits: JSON has no NaN.
func bits(f float64) string { return fmt.Sprintf("%016x", math.Float64bits(f)) }

func manyBits(floats []float64) []string {
	out := []string{}
	for _, f := range floats {
		out = append(out, bits(f))
	}
	return out
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// sample is a float with its time and start timestamp (0: none).
type sample struct {
	st, t int64
	v     float64
}

type floatVector struct {
	Name   string   `json:"name"`
	Times  []int64  `json:"times"`
	Values []string `json:"values"`
	XOR    string   `json:"xor"`
	XOR2   string   `json:"xor2"`
	Plain  string   `json:"xor2_without_start"`
}

func floats(name string, samples []sample) floatVector {
	vector := floatVector{Name: name, Times: []int64{}, Values: []string{}}
	xor, xor2, plain := chunkenc.NewXORChunk(), chunkenc.NewXOR2Chunk(), chunkenc.NewXOR2Chunk()
	a, b, c := must(xor.Appender()), must(xor2.Appender()), must(plain.Appender())
	for _, s := range samples {
		vector.Times = append(vector.Times, s.t)
		vector.Values = append(vector.Values, bits(s.v))
		a.Append(0, s.t, s.v)
		b.Append(s.st, s.t, s.v)
		c.Append(0, s.t, s.v)
	}
	vector.XOR = hex.EncodeToString(xor.Bytes())
	vector.XOR2 = hex.EncodeToString(xor2.Bytes())
	vector.Plain = hex.EncodeToString(plain.Bytes())
	return vector
}

const start = 1700000000000

// series makes n samples from three functions of the index.
func series(n int, t func(i int) int64, v func(i int) float64, st func(i int) int64) []sample {
	samples := []sample{}
	for i := range n {
		samples = append(samples, sample{st(i), t(i), v(i)})
	}
	return samples
}

func floatVectors() []floatVector {
	random := rand.New(rand.NewSource(1))
	stale := math.Float64frombits(value.StaleNaN)
	none := func(int) int64 { return 0 }
	regular := func(i int) int64 { return start + int64(i)*15000 }
	constant := func(int) float64 { return 42 }
	counter := func(i int) float64 { return float64(i * 7) }
	noise := func(int) float64 { return random.NormFloat64() }
	jitter := func(i int) int64 { return regular(i) + random.Int63n(40) - 20 }
	special := []float64{0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.NaN(), stale, 1, stale, stale, 1, 1, stale, 2, math.MaxFloat64,
		math.SmallestNonzeroFloat64, math.Float64frombits(0x7ff8dead0000beef), math.Float64frombits(0xfff0000000000001), 0.1, 0.2, 0.30000000000000004,
		math.Float64frombits(0x7ff0000000000003), math.Float64frombits(math.MaxUint64), math.Float64frombits(1 << 63), math.Float64frombits(0x8000000000000001)}
	specials := func(i int) float64 { return special[i%len(special)] }
	steps := []int64{0, 1, -8191, 8192, 8193, -8192, -65535, 65536, 65537, -65536, -524287, 524288, 524289, -524288, 4095, 4096, -4096, -4097, 524287, 1 << 40, -(1 << 40), 0, 1}
	stepped := func() []int64 {
		// Each step is a difference of differences.
		at, delta := int64(start), int64(1<<41)
		times := []int64{}
		for _, step := range steps {
			times = append(times, at)
			delta += step
			at += delta
		}
		return times
	}()
	vectors := []floatVector{
		floats("empty", nil),
		floats("one sample", series(1, regular, constant, none)),
		floats("one stale sample with a start", []sample{{start - 5, start, stale}}),
		floats("two samples", series(2, regular, counter, none)),
		floats("two with starts", series(2, regular, counter, func(i int) int64 { return start - 1000 - int64(i) })),
		floats("constant", series(120, regular, constant, none)),
		floats("constant with one start", series(130, regular, constant, func(int) int64 { return start - 60000 })),
		floats("counter", series(120, regular, counter, none)),
		floats("jitter and noise", series(120, jitter, noise, none)),
		floats("jitter with a start that moves late", series(60, jitter, counter, func(i int) int64 { return start - 1000 + int64(i/50)*100 })),
		floats("starts from the third on", series(20, jitter, counter, func(i int) int64 { return max(0, int64(i-1)) * 1000 })),
		floats("starts that always move", series(60, regular, counter, func(i int) int64 { return regular(i) - 15000 + random.Int63n(100000) })),
		floats("starts equal to the time before", series(60, jitter, noise, func(i int) int64 { return start + int64(i)*14999 })),
		floats("starts before the epoch", series(10, func(i int) int64 { return int64(i) - 5 }, counter, func(i int) int64 { return int64(-1<<40) - int64(i) })),
		floats("special values", series(72, regular, specials, none)),
		floats("special values with jitter and starts", series(72, jitter, specials, func(i int) int64 { return int64(i/5) * 977 })),
		floats("all stale", series(5, jitter, func(int) float64 { return stale }, none)),
		floats("every width of time", series(len(stepped), func(i int) int64 { return stepped[i] }, counter, none)),
		floats("every width of time, same value, starts", series(len(stepped), func(i int) int64 { return stepped[i] }, constant, func(i int) int64 { return int64(i) * 3 })),
		floats("times before 1970", series(5, func(i int) int64 { return -3000 + int64(i)*1000 }, counter, none)),
		floats("times at the ends", []sample{{0, math.MinInt64, 1}, {0, -1, 2}, {0, 0, 2}, {0, math.MaxInt64 - 1, 3}, {0, math.MaxInt64, 3}}),
		floats("128 samples, start changes at the last index", series(128, regular, constant, func(i int) int64 { return int64(i / 127) })),
		floats("no order", []sample{{0, 10, 1}, {0, 5, 1}, {0, 7, 1}, {0, 1, 1}}),
	}
	for n := range 4 {
		vectors = append(vectors, floats(fmt.Sprintf("random %d", n), series(10+random.Intn(50), func(i int) int64 {
			return regular(i) + random.Int63n(1<<uint(random.Intn(14)))
		}, func(i int) float64 {
			return []float64{float64(i), float64(random.Intn(5)), random.NormFloat64(), stale}[random.Intn(4)]
		}, func(i int) int64 {
			return []int64{0, start - 1, int64(random.Intn(1 << 30)), regular(i) - 15000}[random.Intn(4)] * int64(n%2)
		})))
	}
	return vectors
}

func main() {
	out := map[string]any{"floats": floatVectors(), "histograms": histogramVectors()}
	encoded := must(json.Marshal(out))
	// One vector a line.
	text := strings.NewReplacer(`},{"name"`, "},\n{\"name\"", `:[{"name"`, ":[\n{\"name\"").Replace(string(encoded)) + "\n"
	if err := os.WriteFile("vectors.json", []byte(text), 0o644); err != nil {
		log.Fatal(err)
	}
}
