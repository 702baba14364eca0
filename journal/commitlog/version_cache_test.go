package commitlog

import (
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

func TestVersionCacheIsBounded(t *testing.T) {
	c := newVersionCache(10)
	for i := range 100 {
		k := c.key("bank", fmt.Sprint("k", i))
		c.put(k, journal.Version(i))
		if v, ok := c.get(k); !ok || v != journal.Version(i) {
			t.Fatalf("entity %d: version %d, %v", i, v, ok)
		}
	}
	if len(c.of) != 10 {
		t.Errorf("it has %d entities, want 10", len(c.of))
	}
	k := c.key("bank", "k99")
	c.put(k, 7) // which is there, so nothing is lost
	if v, _ := c.get(k); v != 7 || len(c.of) != 10 {
		t.Errorf("version %d of %d entities", v, len(c.of))
	}
	if c.drop(k); len(c.of) != 9 {
		t.Errorf("it has %d entities, want 9", len(c.of))
	}
}

// The length of the log's name is part of a key, and so is a secret.
func TestVersionKeysDiffer(t *testing.T) {
	a, b := newVersionCache(1), newVersionCache(1)
	if a.key("ab", "c") == a.key("a", "bc") {
		t.Error("two entities have the same key")
	}
	if a.key("a", "b") == b.key("a", "b") {
		t.Error("the key of an entity can be known beforehand")
	}
}
