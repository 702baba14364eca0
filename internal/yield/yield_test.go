package yield

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"runtime"
	"testing"
)

// Appending in steps gives the same as append, for all lengths near a step.
func TestAppend(t *testing.T) {
	all := make([]byte, 3*Step+2)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(all)
	for _, n := range []int{0, 1, Step - 1, Step, Step + 1, 2 * Step, 3*Step + 2} {
		if got := Append([]byte("front"), all[:n]); !bytes.Equal(got, append([]byte("front"), all[:n]...)) {
			t.Errorf("%d bytes are not the same", n)
		}
	}
}

// Writing in steps gives the same as writing at once.
func TestWrite(t *testing.T) {
	all := bytes.Repeat([]byte("once more "), Step/3)
	h := sha256.New()
	Write(h, all)
	if want := sha256.Sum256(all); !bytes.Equal(h.Sum(nil), want[:]) {
		t.Error("the hash is another one")
	}
}

// Uncleared memory can be filled to its capacity without being moved.
func TestUncleared(t *testing.T) {
	for _, n := range []int{0, 1, Step - 1, Step, 5*Step + 7} {
		b := Uncleared(n)
		if len(b) != 0 || cap(b) < n {
			t.Fatalf("of %d bytes: length %d, capacity %d", n, len(b), cap(b))
		}
		var first *byte
		for range n {
			if b = append(b, 0xa5); first == nil {
				first = &b[0]
			}
		}
		runtime.GC()
		if n > 0 && &b[0] != first {
			t.Errorf("of %d bytes: it was moved", n)
		}
		if bytes.Count(b, []byte{0xa5}) != n {
			t.Errorf("of %d bytes: some were lost", n)
		}
	}
}

// Others run on the same processor during long work, without an interrupt. The work yields often, as the scheduler
// sometimes resumes a goroutine at once after it has yielded.
func TestOthersRunMeanwhile(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for name, work := range map[string]func(){
		"append": func() { Append(nil, make([]byte, 32*Step)) },
		"write":  func() { Write(sha256.New(), make([]byte, 32*Step)) },
		"work": func() {
			var w Work
			for range 32 * 32 {
				w.Did(Step / 32)
			}
		},
	} {
		ran := make(chan struct{})
		go close(ran)
		work()
		select {
		case <-ran:
		default:
			t.Errorf("%s: nobody else has run", name)
		}
	}
}
