package yield

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"testing"
)

// What is appended in steps is what append makes of it, at any length about a step.
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

// Long work lets others run on the same processor, without being interrupted.
func TestOthersRunMeanwhile(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for name, work := range map[string]func(){
		"append": func() { Append(nil, make([]byte, 2*Step)) },
		"work": func() {
			var w Work
			for range 64 {
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
