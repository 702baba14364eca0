package engine

import (
	"crypto/rand"
	"encoding/hex"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// random hands out cryptographic random bytes from a buffer: a system call for each command would
// cost more than the command. One shard owns it. Bytes that were handed out are erased.
type random struct {
	buffer [4096]byte
	used   int // bytes of buffer handed out
	filled bool
}

func (r *random) seed() (seed [abi.SeedSize]byte) {
	if !r.filled || len(r.buffer)-r.used < len(seed) {
		rand.Read(r.buffer[:]) // never fails: the runtime ends the process instead
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
