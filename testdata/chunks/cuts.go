package main

import (
	"encoding/hex"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// cut is what a query of a block gets of a chunk that crosses the limits of its range: both ends are inside.
type cut struct {
	// Which chunk of the vector.
	Chunk int    `json:"chunk"`
	From  int64  `json:"from"`
	To    int64  `json:"to"`
	Data  string `json:"data"`
}

// cuts cuts each chunk in front, behind, on both sides, and to its first and its last sample.
func cuts(encoding chunkenc.Encoding, encoded []string) []cut {
	out := []cut{}
	for i, text := range encoded {
		chunk := must(chunkenc.FromData(encoding, must(hex.DecodeString(text))))
		times := []int64{}
		for it := chunk.Iterator(nil); it.Next() != chunkenc.ValNone; {
			times = append(times, it.AtT())
		}
		last := len(times) - 1
		if last < 1 {
			continue
		}
		for _, r := range [][2]int{{1, last}, {0, last - 1}, {last / 3, last - last/3}, {0, 0}, {last, last}} {
			// Then nothing would be cut.
			if r == [2]int{0, last} {
				continue
			}
			from, to := times[r[0]], times[r[1]]
			out = append(out, cut{i, from, to, hex.EncodeToString(keep(chunk, from, to).Bytes())})
		}
	}
	return out
}

// keep appends the samples inside as the querier of a block does: to an empty chunk that none comes before, and that may
// neither be rewritten nor be followed by another one.
func keep(chunk chunkenc.Chunk, from, to int64) chunkenc.Chunk {
	kept := must(chunkenc.NewEmptyChunk(chunk.Encoding()))
	app := must(kept.Appender())
	it := chunk.Iterator(nil)
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		if t := it.AtT(); t < from || t > to {
			continue
		}
		var err error
		if kind == chunkenc.ValHistogram {
			t, h := it.AtHistogram(nil)
			_, _, app, err = app.AppendHistogram(nil, it.AtST(), t, h, true)
		} else {
			t, h := it.AtFloatHistogram(nil)
			_, _, app, err = app.AppendFloatHistogram(nil, it.AtST(), t, h, true)
		}
		must(kept, err)
	}
	return kept
}
