package engine

import (
	"crypto/rand"
	"encoding/hex"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// random hands out cryptographic randomness from a buffer, as a system call a
// command would cost more than the command. Its owner is one shard. What has
// been handed out is erased.
type random struct {
	buffer [4096]byte
	used   int // bytes of buffer handed out
	filled bool
}

func (r *random) seed() (seed [abi.SeedSize]byte) {
	if !r.filled || len(r.buffer)-r.used < len(seed) {
		rand.Read(r.buffer[:]) // never fails: it would end the process
		r.used, r.filled = 0, true
	}
	from := r.buffer[r.used : r.used+len(seed)]
	copy(seed[:], from)
	clear(from)
	r.used += len(seed)
	return seed
}

// commandID makes an id that no other command has.
func (r *random) commandID() service.CommandID {
	b := r.seed()
	var text [2 * len(b)]byte
	hex.Encode(text[:], b[:])
	return service.CommandID(text[:])
}
