package format

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// packedBatch is a batch of so many commits, packed.
func packedBatch(commits int) []byte {
	b := BeginBatch(nil, "bank")
	h := &BatchHeader{Log: "bank", First: 1, Sequence: 1, Time: 7, Commits: uint32(commits), Events: uint32(commits)}
	for i := range commits {
		b = AppendCommit(b, &journal.Commit{Log: "bank", Expected: journal.Version(i),
			Command: journal.Command{ID: journal.CommandID(fmt.Sprint("command-", i)), Type: "deposit", Key: "alice"},
			Events:  []journal.NewEvent{{Type: "Deposited", Data: fmt.Appendf(nil, `{"amount":%d}`, i)}}}, 0)
	}
	m := BatchMaker{Codec: journal.CodecS2}
	b, _ = m.Finish(b, h)
	return b
}

// amounts decodes a batch of packedBatch and checks all of it.
func amounts(b []byte, want int) error {
	got := 0
	batch, err := ReadBatch(b, func(c *journal.Committed) error {
		if e := c.Events[0]; string(e.Data) != fmt.Sprintf(`{"amount":%d}`, got) || e.Position != journal.Position(got+1) || e.Key != "alice" {
			return fmt.Errorf("event %d is %+v", got, e)
		}
		got++
		return nil
	})
	if err == nil && (got != want || batch.Commits != uint32(want) || batch.Hash != HashOf(b)) {
		err = fmt.Errorf("%d commits, %+v", got, batch)
	}
	return err
}

// A packed batch reads as the same batch that is not packed, and is smaller.
func TestPackedBatch(t *testing.T) {
	packed := packedBatch(100)
	if packed[5] != codecS2 {
		t.Fatalf("codec %d", packed[5])
	}
	plain, err := Unpacked(packed)
	if err != nil || plain[5] != codecNone || len(plain) < 2*len(packed) {
		t.Fatalf("%d bytes packed, %d not, codec %d, %v", len(packed), len(plain), plain[5], err)
	}
	for _, b := range [][]byte{packed, plain} {
		if err := amounts(b, 100); err != nil {
			t.Error(err)
		}
	}
	again, err := Unpacked(plain)
	if err != nil || !bytes.Equal(again, plain) {
		t.Errorf("a batch that is not packed changed: %v", err)
	}
}

// What does not shrink, and what is longer than the format allows to be packed, stays as it is.
func TestNotPacked(t *testing.T) {
	noise := make([]byte, 10_000)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	for name, c := range map[string]struct {
		codec journal.Codec
		body  []byte
		want  byte
	}{
		"text":                {journal.CodecS2, bytes.Repeat([]byte("text"), 1000), codecS2},
		"the longest":         {journal.CodecS2, make([]byte, MaxPacked), codecS2},
		"one byte more":       {journal.CodecS2, make([]byte, MaxPacked+1), codecNone},
		"noise":               {journal.CodecS2, noise, codecNone},
		"nobody wants it":     {journal.CodecNone, bytes.Repeat([]byte("text"), 1000), codecNone},
		"a few bytes of text": {journal.CodecS2, []byte("abc"), codecNone},
	} {
		m := BatchMaker{Codec: c.codec}
		for range 2 { // the second time in memory that is used again
			h := &BatchHeader{Log: "bank", First: 1, Sequence: 1, Commits: 1}
			b, _ := m.Finish(append(BeginBatch(m.Take(10), h.Log), c.body...), h)
			if b[5] != c.want {
				t.Errorf("%s: codec %d", name, b[5])
			}
			plain, err := Unpacked(b)
			if err != nil || !bytes.Equal(plain[BatchHeaderSize+len(h.Log):], c.body) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A batch whose records do not unpack is refused with what is wrong, however good its checksum is.
func TestForgedPacking(t *testing.T) {
	good := packedBatch(100)
	head := BatchHeaderSize + len("bank")
	for name, body := range map[string][]byte{
		"nothing":            {},
		"cut off":            good[head : len(good)-1],
		"claims 2 GiB":       {0xff, 0xff, 0xff, 0xff, 0x07, 0},
		"claims 4 MiB and 1": {0x81, 0x80, 0x80, 0x02, 0},
		"not S2":             []byte("not S2 at all, but text that somebody has put here"),
	} {
		b := append(bytes.Clone(good[:head]), body...)
		endBatch(b, &BatchHeader{Log: "bank", First: 1, Sequence: 1, Commits: 100, Events: 100, codec: codecS2})
		_, err := ReadBatch(b, nil)
		if journal.KindOf(err) != journal.KindCorrupt || !strings.Contains(err.Error(), "unpacked") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Unpacked(b); journal.KindOf(err) != journal.KindCorrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := bytes.Clone(good)
	b[5] = 1
	if _, err := ReadBatch(b, nil); err == nil || !strings.Contains(err.Error(), "codec") {
		t.Errorf("a codec that there is not: %v", err)
	}
}

// What Append refuses is refused by a reader, too, or a long key would stand in the index once for each of many events.
func TestForgedNames(t *testing.T) {
	for name, c := range map[string]journal.Commit{
		"key":    {Command: journal.Command{ID: "c", Key: strings.Repeat("k", journal.MaxKey+1)}},
		"no key": {Command: journal.Command{ID: "c"}},
		"id": {Command: journal.Command{ID: journal.CommandID(strings.Repeat("c", journal.MaxCommandID+1)),
			Key: "k"}},
		"no id":        {Command: journal.Command{Key: "k"}},
		"command type": {Command: journal.Command{ID: "c", Key: "k", Type: strings.Repeat("t", journal.MaxTypeName+1)}},
		"event type": {Command: journal.Command{ID: "c", Key: "k"},
			Events: []journal.NewEvent{{Type: strings.Repeat("t", journal.MaxTypeName+1)}}},
		"content type": {Command: journal.Command{ID: "c", Key: "k"},
			Events: []journal.NewEvent{{ContentType: strings.Repeat("t", journal.MaxTypeName+1)}}},
		"": {Command: journal.Command{ID: "c", Key: strings.Repeat("k", journal.MaxKey)},
			Events: []journal.NewEvent{{Type: strings.Repeat("t", journal.MaxTypeName)}}},
	} {
		b := AppendCommit(BeginBatch(nil, "bank"), &c, 0)
		endBatch(b, &BatchHeader{Log: "bank", First: 1, Sequence: 1, Commits: 1, Events: uint32(len(c.Events))})
		if _, err := ReadBatch(b, nil); (journal.KindOf(err) == journal.KindCorrupt) != (name != "") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
