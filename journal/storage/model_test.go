package storage

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// modelDisk is a model's disk that is a directory. Operations fail before the storage sees them, or after; TestKill9
// finds out what a crash does to it.
type modelDisk struct {
	dir     string
	options Options
	journaltest.Faulty
}

func (d *modelDisk) Open(t testing.TB, _ *rand.Rand) journal.Storage {
	d.FailAt(0)
	return d.Wrap(openStorage(t, d.dir, d.options))
}

// smallFiles has several files of everything.
var smallFiles = Options{IndexCacheBytes: 8 << 20, ValueFileBytes: 4 << 20}

func TestModel(t *testing.T) {
	t.Parallel()
	disk := &modelDisk{dir: t.TempDir(), options: smallFiles}
	journaltest.Model(t, disk, prove.Seed(t), prove.Time(t, 2*time.Second, 3*time.Minute))
}
