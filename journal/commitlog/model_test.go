package commitlog_test

import (
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

func TestModel(t *testing.T) {
	journaltest.Model(t, journaltest.MemoryDisk(), prove.Seed(t), prove.Time(t, 2*time.Second, 3*time.Minute))
}
