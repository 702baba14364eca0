package commitlog

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// versionCache remembers the versions of entities that have nothing in the overlay. A full cache loses an arbitrary
// entry. It is guarded by overlay.mu.
type versionCache struct {
	size   int      // entities
	secret [16]byte // random
	of     map[versionKey]journal.Version
}

// versionKey is an entity's key in the cache of versions. It has no pointer, so the garbage collector need not scan a
// million of them. It is half of a SHA-256 that begins with the cache's secret, so that nobody can search for two names
// with the same key.
type versionKey [16]byte

func newVersionCache(size int) versionCache {
	c := versionCache{size: size, of: map[versionKey]journal.Version{}}
	_, _ = rand.Read(c.secret[:]) // it never fails
	return c
}

func (c *versionCache) key(log journal.LogName, entity string) versionKey {
	b := make([]byte, 0, 128)
	b = append(b, c.secret[:]...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(log))), log...)
	hash := sha256.Sum256(append(b, entity...))
	return versionKey(hash[:])
}

func (c *versionCache) get(k versionKey) (journal.Version, bool) {
	v, ok := c.of[k]
	return v, ok
}

func (c *versionCache) put(k versionKey, v journal.Version) {
	if len(c.of) >= c.size {
		if _, there := c.of[k]; !there {
			for other := range c.of {
				delete(c.of, other)
				break
			}
		}
	}
	c.of[k] = v
}

func (c *versionCache) drop(k versionKey) { delete(c.of, k) }
