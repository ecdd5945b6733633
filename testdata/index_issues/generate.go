// Writes blocks whose files are whole and whose index has something that Prometheus reads and Thanos' compactor does not
// take: one block in a directory for each kind of issue. Current versions of Prometheus refuse to write such an index, so
// the format is written by hand here. Run it with `go run .` in this directory.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log"
	"math"
	"os"
	"path/filepath"
	"sort"
)

const (
	minute = 60_000
	year26 = 1_767_225_600_000
	twoH   = 120 * minute
)

type label struct{ name, value string }

// span is a chunk: a sample each minute from the one minute of the block to the other, both with a sample.
type span struct{ from, to int64 }

type series struct {
	labels []label
	chunks []span
}

type block struct {
	name   string
	series []series
}

func owls(forest string, more ...label) []label {
	return append([]label{{"__name__", "owls"}, {"forest", forest}}, more...)
}

// The series f0 and f2 are sound in all blocks; times are minutes after the start of the block, which takes 120 of them.
var blocks = []block{
	{"overlapping_chunks", []series{
		{owls("f0"), []span{{0, 59}, {60, 119}}},
		{owls("f1"), []span{{0, 59}, {30, 89}, {80, 119}}},
		{owls("f2"), []span{{0, 119}}},
	}},
	{"doubled_chunks", []series{
		{owls("f0"), []span{{0, 59}, {60, 119}}},
		{owls("f1"), []span{{0, 59}, {0, 59}, {60, 119}}},
		{owls("f2"), []span{{0, 119}}},
	}},
	{"unsorted_chunks", []series{
		{owls("f0"), []span{{0, 59}, {60, 119}}},
		{owls("f1"), []span{{60, 119}, {0, 29}}},
		{owls("f2"), []span{{0, 119}}},
	}},
	{"unsorted_labels", []series{
		{owls("f0"), []span{{0, 59}, {60, 119}}},
		{owls("f1", label{"zone", "z"}, label{"branch", "b"}), []span{{0, 119}}},
		{owls("f2"), []span{{0, 119}}},
	}},
	{"doubled_labels", []series{
		{owls("f0"), []span{{0, 59}, {60, 119}}},
		{owls("f1", label{"forest", "f9"}), []span{{0, 119}}},
		{owls("f2"), []span{{0, 119}}},
	}},
	// All of one chunk, and a part of two.
	{"chunks_outside", []series{
		{owls("f0"), []span{{0, 59}, {60, 119}}},
		{owls("f1"), []span{{-90, -60}, {-10, 59}, {60, 130}}},
		{owls("f2"), []span{{0, 119}}},
	}},
	// As Prometheus wrote them up to 2.2: the sample at the end of the block is in it, and starts the next one, too.
	{"chunks_at_the_end", []series{
		{owls("f0"), []span{{0, 59}, {60, 119}}},
		{owls("f1"), []span{{0, 59}, {60, 119}, {120, 125}}},
		{owls("f2"), []span{{0, 120}}},
	}},
	{"no_chunks", []series{
		{owls("f0"), []span{{0, 59}, {60, 119}}},
		{owls("f1"), nil},
		{owls("f2"), []span{{0, 119}}},
	}},
	{"no_labels", []series{
		{nil, []span{{0, 119}}},
		{owls("f2"), []span{{0, 119}}},
	}},
}

func main() {
	for i, b := range blocks {
		if err := write(i, b); err != nil {
			log.Fatal(err)
		}
	}
}

func write(slot int, b block) error {
	id := fmt.Sprintf("01M868WQ10%016d", slot+1)
	dir := filepath.Join(b.name, id)
	if err := os.MkdirAll(filepath.Join(dir, "chunks"), 0o755); err != nil {
		return err
	}
	start := int64(year26 + slot*twoH)
	segment := []byte{0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0}
	refs := make([][]uint64, len(b.series))
	samples, count := int64(0), 0
	for i, s := range b.series {
		for _, c := range s.chunks {
			refs[i] = append(refs[i], uint64(len(segment)))
			data := append([]byte{1}, constant(start, c)...)
			segment = binary.AppendUvarint(segment, uint64(len(data)-1))
			segment = checked(segment, data)
			samples += c.to - c.from + 1
			count++
		}
	}
	meta := fmt.Sprintf(`{
	"ulid": "%[1]s",
	"minTime": %[2]d,
	"maxTime": %[3]d,
	"stats": {
		"numSamples": %[4]d,
		"numSeries": %[5]d,
		"numChunks": %[6]d
	},
	"compaction": {
		"level": 1,
		"sources": [
			"%[1]s"
		]
	},
	"version": 1
}
`, id, start, start+twoH, samples, len(b.series), count)
	files := map[string][]byte{"chunks/000001": segment, "index": index(start, b.series, refs), "meta.json": []byte(meta)}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// constant is the data of an XOR chunk whose samples are all 1: count, first time, first value, distance; of further
// samples one bit for the same distance and one for the same value, both zero.
func constant(start int64, c span) []byte {
	n := int(c.to - c.from + 1)
	out := binary.BigEndian.AppendUint16(nil, uint16(n))
	out = binary.AppendVarint(out, start+c.from*minute)
	out = binary.BigEndian.AppendUint64(out, math.Float64bits(1))
	if n > 1 {
		out = binary.AppendUvarint(out, minute)
		out = append(out, make([]byte, (1+2*(n-2)+7)/8)...)
	}
	return out
}

// checked adds content and its checksum.
func checked(out, content []byte) []byte {
	out = append(out, content...)
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli)))
}

// record adds the length of a content, the content and its checksum.
func record(out, content []byte) []byte {
	return checked(binary.BigEndian.AppendUint32(out, uint32(len(content))), content)
}

func text(out []byte, s string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

func pad(out []byte, to int) []byte {
	return append(out, make([]byte, (to-len(out)%to)%to)...)
}

func index(start int64, all []series, refs [][]uint64) []byte {
	numbers := map[string]uint64{}
	for _, s := range all {
		for _, l := range s.labels {
			numbers[l.name], numbers[l.value] = 0, 0
		}
	}
	var symbols []string
	for s := range numbers {
		symbols = append(symbols, s)
	}
	sort.Strings(symbols)
	content := binary.BigEndian.AppendUint32(nil, uint32(len(symbols)))
	for i, s := range symbols {
		numbers[s] = uint64(i)
		content = text(content, s)
	}
	out := []byte{0xba, 0xaa, 0xd7, 0, 2}
	toc := []int{len(out)}
	out = pad(record(out, content), 16)
	toc = append(toc, len(out))
	postings := map[label][]uint32{}
	for i, s := range all {
		out = pad(out, 16)
		place := uint32(len(out) / 16)
		postings[label{}] = append(postings[label{}], place)
		body := binary.AppendUvarint(nil, uint64(len(s.labels)))
		for _, l := range s.labels {
			postings[l] = append(postings[l], place)
			body = binary.AppendUvarint(body, numbers[l.name])
			body = binary.AppendUvarint(body, numbers[l.value])
		}
		body = chunks(binary.AppendUvarint(body, uint64(len(s.chunks))), start, s.chunks, refs[i])
		out = checked(binary.AppendUvarint(out, uint64(len(body))), body)
	}
	out = pad(out, 4)
	lists := len(out)
	var keys []label
	for key := range postings {
		keys = append(keys, key)
	}
	sort.Slice(keys, func(i, j int) bool {
		if keys[i].name != keys[j].name {
			return keys[i].name < keys[j].name
		}
		return keys[i].value < keys[j].value
	})
	table := binary.BigEndian.AppendUint32(nil, uint32(len(keys)))
	for _, key := range keys {
		table = append(table, 2)
		table = text(text(table, key.name), key.value)
		table = binary.AppendUvarint(table, uint64(len(out)))
		list := binary.BigEndian.AppendUint32(nil, uint32(len(postings[key])))
		for _, place := range postings[key] {
			list = binary.BigEndian.AppendUint32(list, place)
		}
		out = record(out, list)
	}
	tables := len(out)
	out = record(out, table)
	var end bytes.Buffer
	for _, at := range append(toc, 0, 0, lists, tables) {
		_ = binary.Write(&end, binary.BigEndian, uint64(at))
	}
	return checked(out, end.Bytes())
}

// chunks adds the times and the places of chunks: of the first in full, of the others by their distance from the one
// before.
func chunks(out []byte, start int64, all []span, refs []uint64) []byte {
	last, ref := int64(0), int64(0)
	for i, c := range all {
		from, to := start+c.from*minute, start+c.to*minute
		if i == 0 {
			out = binary.AppendVarint(out, from)
			out = binary.AppendUvarint(out, uint64(to-from))
			out = binary.AppendUvarint(out, refs[i])
		} else {
			out = binary.AppendUvarint(out, uint64(from-last))
			out = binary.AppendUvarint(out, uint64(to-from))
			out = binary.AppendVarint(out, int64(refs[i])-ref)
		}
		last, ref = to, int64(refs[i])
	}
	return out
}
