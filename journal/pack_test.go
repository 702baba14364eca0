package journal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// packedBatch is a batch of so many commits, packed.
func packedBatch(commits int) []byte {
	b := beginBatch(nil, "bank")
	h := &batchHeader{log: "bank", first: 1, sequence: 1, time: 7, commits: uint32(commits), events: uint32(commits)}
	for i := range commits {
		b = appendCommit(b, &Commit{Log: "bank", Expected: Version(i),
			Command: Command{ID: CommandID(fmt.Sprint("command-", i)), Type: "deposit", Key: "alice"},
			Events:  []NewEvent{{Type: "Deposited", Data: fmt.Appendf(nil, `{"amount":%d}`, i)}}}, 0)
	}
	m := batchMaker{codec: CodecS2}
	b, _ = m.finish(b, h)
	return b
}

// amounts decodes a batch of packedBatch and checks all of it.
func amounts(b []byte, want int) error {
	got := 0
	batch, err := ReadBatch(b, func(c *Committed) error {
		if e := c.Events[0]; string(e.Data) != fmt.Sprintf(`{"amount":%d}`, got) || e.Position != Position(got+1) || e.Key != "alice" {
			return fmt.Errorf("event %d is %+v", got, e)
		}
		got++
		return nil
	})
	if err == nil && (got != want || batch.Commits != uint32(want) || batch.Hash != hashOf(b)) {
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
		codec Codec
		body  []byte
		want  byte
	}{
		"text":                {CodecS2, bytes.Repeat([]byte("text"), 1000), codecS2},
		"the longest":         {CodecS2, make([]byte, packMost), codecS2},
		"one byte more":       {CodecS2, make([]byte, packMost+1), codecNone},
		"noise":               {CodecS2, noise, codecNone},
		"nobody wants it":     {CodecNone, bytes.Repeat([]byte("text"), 1000), codecNone},
		"a few bytes of text": {CodecS2, []byte("abc"), codecNone},
	} {
		m := batchMaker{codec: c.codec}
		for range 2 { // the second time in memory that is used again
			h := &batchHeader{log: "bank", first: 1, sequence: 1, commits: 1}
			b, _ := m.finish(append(beginBatch(m.take(10), h.log), c.body...), h)
			if b[5] != c.want {
				t.Errorf("%s: codec %d", name, b[5])
			}
			plain, err := Unpacked(b)
			if err != nil || !bytes.Equal(plain[batchHeaderSize+len(h.log):], c.body) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A batch whose records do not unpack is refused with what is wrong, however good its checksum is.
func TestForgedPacking(t *testing.T) {
	good := packedBatch(100)
	head := batchHeaderSize + len("bank")
	for name, body := range map[string][]byte{
		"nothing":            {},
		"cut off":            good[head : len(good)-1],
		"claims 2 GiB":       {0xff, 0xff, 0xff, 0xff, 0x07, 0},
		"claims 4 MiB and 1": {0x81, 0x80, 0x80, 0x02, 0},
		"not S2":             []byte("not S2 at all, but text that somebody has put here"),
	} {
		b := append(bytes.Clone(good[:head]), body...)
		endBatch(b, &batchHeader{log: "bank", first: 1, sequence: 1, commits: 100, events: 100, codec: codecS2})
		_, err := ReadBatch(b, nil)
		if KindOf(err) != KindCorrupt || !strings.Contains(err.Error(), "unpacked") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Unpacked(b); KindOf(err) != KindCorrupt {
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
	for name, c := range map[string]Commit{
		"key":          {Command: Command{ID: "c", Key: strings.Repeat("k", MaxKey+1)}},
		"no key":       {Command: Command{ID: "c"}},
		"id":           {Command: Command{ID: CommandID(strings.Repeat("c", MaxCommandID+1)), Key: "k"}},
		"no id":        {Command: Command{Key: "k"}},
		"command type": {Command: Command{ID: "c", Key: "k", Type: strings.Repeat("t", MaxTypeName+1)}},
		"event type": {Command: Command{ID: "c", Key: "k"},
			Events: []NewEvent{{Type: strings.Repeat("t", MaxTypeName+1)}}},
		"content type": {Command: Command{ID: "c", Key: "k"},
			Events: []NewEvent{{ContentType: strings.Repeat("t", MaxTypeName+1)}}},
		"": {Command: Command{ID: "c", Key: strings.Repeat("k", MaxKey)},
			Events: []NewEvent{{Type: strings.Repeat("t", MaxTypeName)}}},
	} {
		b := appendCommit(beginBatch(nil, "bank"), &c, 0)
		endBatch(b, &batchHeader{log: "bank", first: 1, sequence: 1, commits: 1, events: uint32(len(c.Events))})
		if _, err := ReadBatch(b, nil); (KindOf(err) == KindCorrupt) != (name != "") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
