package pages

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

// backings are all that this system has.
func backings(t *testing.T) map[string]Backing {
	all := map[string]Backing{"copying": Copying{}}
	if a, err := NewArena(); err == nil {
		t.Cleanup(func() {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		})
		all["arena"] = a
	}
	return all
}

// A memory that shows an image is equal to it, whatever was written before, and what is written to one memory is not
// seen in another.
func TestMemoriesBeginAsTheirImage(t *testing.T) {
	random := rand.New(rand.NewPCG(prove.Seed(t), 0))
	for name, b := range backings(t) {
		for range 50 {
			size := (1 + random.IntN(20)) * guestPage
			image := make([]byte, size)
			for range random.IntN(10) {
				image[random.IntN(size)] = byte(random.Uint32())
			}
			kept, err := b.Keep(image[:Used(image)])
			if err != nil {
				t.Fatal(err)
			}
			var spaces [2]Space
			for i := range spaces {
				if spaces[i], err = b.Reserve(uint64(size)); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				for _, s := range spaces {
					memory, err := s.Show(kept, uint64(size))
					if err != nil || !bytes.Equal(memory, image) {
						t.Fatalf("%s: %d bytes differ from their image, %v", name, size, err)
					}
					memory[random.IntN(size)]++
				}
			}
			if _, err := spaces[0].Show(kept, uint64(size+guestPage)); err == nil {
				t.Errorf("%s: an image of another size is shown", name)
			}
			for _, s := range spaces {
				s.Release()
			}
			kept.Drop()
		}
	}
}

// A memory grows by zeros up to its limit, keeps what it has, and holds at least what it shows.
func TestMemoriesGrow(t *testing.T) {
	const limit = 16 * guestPage
	for name, b := range backings(t) {
		s, err := b.Reserve(limit)
		if err != nil {
			t.Fatal(err)
		}
		for size := uint64(guestPage); size <= limit; size += guestPage {
			if held := s.Held(size); held < size || held > limit {
				t.Errorf("%s: a memory of %d bytes holds %d", name, size, held)
			}
			memory, err := s.Grow(size)
			if err != nil || uint64(len(memory)) != size {
				t.Fatalf("%s: %d bytes instead of %d: %v", name, len(memory), size, err)
			}
			for at := uint64(0); at < size; at += guestPage {
				if want := at+guestPage < size; (memory[at] == 1) != want {
					t.Errorf("%s: byte %d of %d is %d", name, at, size, memory[at])
				}
			}
			memory[size-guestPage] = 1
		}
		if _, err := s.Grow(limit + guestPage); err == nil {
			t.Errorf("%s: a memory grows out of its space", name)
		}
		s.Release()
	}
}

func TestUsed(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, 3*4096 + 7} {
		b := make([]byte, 4*4096)
		if n > 0 {
			b[n-1] = 1
		}
		if got := Used(b); got != n {
			t.Errorf("%d bytes are used, not %d", n, got)
		}
	}
}
