// Writes a directory for each case: the block `source` with the newer encodings, the block `plain` with the same samples in
// the same chunks of the encodings that every reader knows, both made by Prometheus' own writers, and samples.json, what
// Prometheus reads from `source`. Run it with `go run .` in this directory.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

// start is the time of the first sample of each series (ms).
const start = 1700000000000

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

// pair is a chunk twice, with the newer encoding and with the old one.
type pair struct {
	source, plain chunkenc.Chunk
	samples       int
	min, max      int64
}

// series is a series with its chunks.
type series struct {
	labels labels.Labels
	chunks []pair
}

// blockCase is what one directory is made of.
type blockCase struct {
	name string
	// At most so many bytes go into a segment of each block.
	sourceSegment, plainSegment int64
	series                      []series
}

func main() {
	cases := []blockCase{
		{"floats", 1 << 20, 1 << 20, floats()},
		{"histograms", 1 << 20, 1 << 20, histograms()},
		{"segments", 1500, 2000, manySegments()},
		{"labels", 1 << 20, 1 << 20, manyLabels()},
	}
	for number, c := range cases {
		slices.SortFunc(c.series, func(a, b series) int { return labels.Compare(a.labels, b.labels) })
		check(os.RemoveAll(c.name))
		ulid := fmt.Sprintf("01M8REWRYTE%015d", number)
		block(filepath.Join(c.name, "source"), ulid, c.sourceSegment, c.series, func(p pair) chunkenc.Chunk { return p.source })
		block(filepath.Join(c.name, "plain"), ulid, c.plainSegment, c.series, func(p pair) chunkenc.Chunk { return p.plain })
		check(os.WriteFile(filepath.Join(c.name, "samples.json"), samples(filepath.Join(c.name, "source"), c.plainSegment), 0o644))
	}
}

// block writes a block as Prometheus' compactor does: of each series the chunks, then its entry in the index.
func block(dir, ulid string, segment int64, all []series, choose func(pair) chunkenc.Chunk) {
	check(os.MkdirAll(dir, 0o755))
	chunkWriter := must(chunks.NewWriter(filepath.Join(dir, "chunks"), chunks.WithSegmentSize(segment)))
	indexWriter := must(index.NewWriter(context.Background(), filepath.Join(dir, "index")))
	symbols := map[string]struct{}{}
	for _, s := range all {
		s.labels.Range(func(l labels.Label) {
			symbols[l.Name], symbols[l.Value] = struct{}{}, struct{}{}
		})
	}
	sorted := []string{}
	for symbol := range symbols {
		sorted = append(sorted, symbol)
	}
	slices.Sort(sorted)
	for _, symbol := range sorted {
		check(indexWriter.AddSymbol(symbol))
	}
	stats := map[string]int{"numSeries": len(all)}
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	for ref, s := range all {
		metas := []chunks.Meta{}
		for _, p := range s.chunks {
			metas = append(metas, chunks.Meta{Chunk: choose(p), MinTime: p.min, MaxTime: p.max})
			stats["numChunks"]++
			stats["numSamples"] += p.samples
			first, last = min(first, p.min), max(last, p.max)
		}
		check(chunkWriter.WriteChunks(metas...))
		check(indexWriter.AddSeries(storage.SeriesRef(ref), s.labels, metas...))
	}
	check(chunkWriter.Close())
	check(indexWriter.Close())
	meta := map[string]any{
		"ulid": ulid, "minTime": first, "maxTime": last + 1, "stats": stats, "version": 1,
		"compaction": map[string]any{"level": 1, "sources": []string{ulid}},
	}
	check(os.WriteFile(filepath.Join(dir, "meta.json"), must(json.MarshalIndent(meta, "", "\t")), 0o644))
}

type jsonChunk struct {
	Encoding uint8 `json:"encoding"`
	// The distance of each sample to the one before (ms), of the first to 1970.
	Times runs `json:"times"`
	// Floats by their bits, histograms as text.
	Values runs `json:"values"`
	// How many have a start timestamp.
	Started int `json:"started"`
}

// runs is a list in which what comes more than once stands once, as [it, how often].
type runs []any

func (r *runs) add(item any) {
	if last := len(*r) - 1; last >= 0 {
		run, ok := (*r)[last].([2]any)
		if ok && run[0] == item {
			(*r)[last] = [2]any{item, run[1].(int) + 1}
			return
		}
		if !ok && (*r)[last] == item {
			(*r)[last] = [2]any{item, 2}
			return
		}
	}
	*r = append(*r, item)
}

type jsonSeries struct {
	Labels string      `json:"labels"`
	Chunks []jsonChunk `json:"chunks"`
}

type jsonCase struct {
	SegmentLimit int64        `json:"segment_limit"`
	Series       []jsonSeries `json:"series"`
}

// samples reads a block with Prometheus' readers, by the postings of all series.
func samples(dir string, segmentLimit int64) []byte {
	indexReader := must(index.NewFileReader(filepath.Join(dir, "index"), index.DecodePostingsRaw))
	chunkReader := must(chunks.NewDirReader(filepath.Join(dir, "chunks"), chunkenc.NewPool()))
	defer indexReader.Close()
	defer chunkReader.Close()
	out := jsonCase{SegmentLimit: segmentLimit, Series: []jsonSeries{}}
	name, value := index.AllPostingsKey()
	postings := must(indexReader.Postings(context.Background(), name, value))
	for postings.Next() {
		var builder labels.ScratchBuilder
		metas := []chunks.Meta{}
		check(indexReader.Series(postings.At(), &builder, &metas))
		one := jsonSeries{Labels: builder.Labels().String()}
		for _, meta := range metas {
			chunk, _, err := chunkReader.ChunkOrIterable(meta)
			check(err)
			one.Chunks = append(one.Chunks, readChunk(chunk))
		}
		out.Series = append(out.Series, one)
	}
	check(postings.Err())
	// One series a line.
	text := strings.ReplaceAll(string(must(json.Marshal(out))), `{"labels"`, "\n{\"labels\"")
	return []byte(text + "\n")
}

func readChunk(chunk chunkenc.Chunk) jsonChunk {
	out := jsonChunk{Encoding: uint8(chunk.Encoding()), Times: runs{}, Values: runs{}}
	before, layout := int64(0), ""
	iterator := chunk.Iterator(nil)
	for kind := iterator.Next(); kind != chunkenc.ValNone; kind = iterator.Next() {
		t, text := iterator.AtT(), ""
		switch kind {
		case chunkenc.ValFloat:
			_, v := iterator.At()
			text = bits(v)
		case chunkenc.ValHistogram:
			_, h := iterator.AtHistogram(nil)
			text = integerText(&layout, h)
		case chunkenc.ValFloatHistogram:
			_, h := iterator.AtFloatHistogram(nil)
			text = floatText(&layout, h)
		}
		if iterator.AtST() != 0 {
			out.Started++
		}
		out.Times.add(t - before)
		out.Values.add(text)
		before = t
	}
	check(iterator.Err())
	return out
}

// bits has the bits of a float in hexadecimal, without the zeros at the end: JSON has no NaN.
func bits(f float64) string {
	return strings.TrimRight(fmt.Sprintf("%016x", math.Float64bits(f)), "0")
}

func manyBits(floats []float64) string {
	out := []string{}
	for _, f := range floats {
		out = append(out, bits(f))
	}
	return strings.Join(out, ",")
}

func integers(numbers []int64) string {
	out := []string{}
	for _, n := range numbers {
		out = append(out, fmt.Sprint(n))
	}
	return strings.Join(out, ",")
}

func spans(in []histogram.Span) string {
	out := []string{}
	for _, s := range in {
		out = append(out, fmt.Sprintf("%d+%d", s.Offset, s.Length))
	}
	return strings.Join(out, ",")
}

// layoutText is empty if the layout is the last one.
func layoutText(last *string, schema int32, threshold float64, positive, negative []histogram.Span, bounds []float64) string {
	text := fmt.Sprintf("%d|%s|%s|%s|%s", schema, bits(threshold), spans(positive), spans(negative), manyBits(bounds))
	if text == *last {
		return ""
	}
	*last = text
	return text
}

func integerText(last *string, h *histogram.Histogram) string {
	layout := layoutText(last, h.Schema, h.ZeroThreshold, h.PositiveSpans, h.NegativeSpans, h.CustomValues)
	return fmt.Sprintf("%s|%s|%d|%d|%s|%s", layout, bits(h.Sum), h.Count, h.ZeroCount, integers(h.PositiveBuckets), integers(h.NegativeBuckets))
}

func floatText(last *string, h *histogram.FloatHistogram) string {
	layout := layoutText(last, h.Schema, h.ZeroThreshold, h.PositiveSpans, h.NegativeSpans, h.CustomValues)
	return fmt.Sprintf("%s|%s|%s|%s|%s|%s", layout, bits(h.Sum), bits(h.Count), bits(h.ZeroCount), manyBits(h.PositiveBuckets), manyBits(h.NegativeBuckets))
}
