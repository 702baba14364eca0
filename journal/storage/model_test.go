package storage

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// directory is a model's disk whose bytes are Badger's. Operations fail before it sees
// them, or after; what a crash does to it is TestKill9's to find out.
type directory struct {
	dir     string
	options Options
	journaltest.Faulty
}

func (d *directory) Open(t testing.TB, _ *rand.Rand) journal.Engine {
	e, err := Open(d.dir, d.options)
	if err != nil {
		t.Fatal(err)
	}
	d.Engine = e
	d.FailAt(0)
	return &d.Faulty
}

// smallFiles has several files of everything.
var smallFiles = Options{IndexCacheBytes: 8 << 20, ValueFileBytes: 4 << 20}

func TestModel(t *testing.T) {
	t.Parallel()
	disk := &directory{dir: t.TempDir(), options: smallFiles}
	journaltest.Model(t, disk, prove.Seed(t), prove.Time(t, 2*time.Second, 3*time.Minute))
}
