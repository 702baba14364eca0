package journal_test

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

var (
	modelTime = flag.Duration("model.time", 2*time.Second, "how long TestModel runs")
	modelSeed = flag.Uint64("model.seed", 0, "repeat TestModel from this seed; 0 takes a new one")
)

func TestModel(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-model.seed %d", seed)
	journaltest.Model(t, journaltest.MemoryDisk(), seed, *modelTime)
}
