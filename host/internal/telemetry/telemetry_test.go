package telemetry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func someServices() []service.Status {
	return []service.Status{
		{Spec: service.Spec{Service: "bank"}, State: service.StateRunning, Head: 42, Counters: service.Counters{Committed: 7, Fuel: 99, SnapshotsTaken: 3, SnapshotsUsed: 2, SnapshotsRefused: 1}, Shards: []service.ShardStatus{{Queued: 2, MemoryBytes: 100}, {Queued: 3, MemoryBytes: 11}}},
		{Spec: service.Spec{Service: "shop"}, State: service.StateFailed},
	}
}

func someStats() journal.Stats {
	s := journal.Stats{Commits: 7, Events: 9, EventBytes: 200, Syncs: 3, SyncTime: 1500 * time.Millisecond, PendingBytes: 5, Snapshots: 11, SnapshotBytes: 12, SnapshotsDropped: 13, PendingSnapshotBytes: 14, IndexLag: 4}
	s.SyncMicros.Count, s.SyncMicros.Sum = 3, 1_500_000
	s.SyncMicros.Buckets[9], s.SyncMicros.Buckets[10], s.SyncMicros.Buckets[journal.HistogramBuckets-1] = 1, 1, 1
	s.Engine = journal.EngineStats{Written: 600, IndexCacheBytes: 15, IndexCacheHits: 16, IndexCacheMisses: 17}
	return s
}

func scrape(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text, err := io.ReadAll(w.Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("%d %v: %s", w.Code, err, text)
	}
	return string(text)
}

func TestMetrics(t *testing.T) {
	m := New(Options{Version: "v1", Services: someServices, Journal: someStats, Readers: func() service.Readers { return service.Readers{AtOnce: 1, Reading: 2, Waiting: 31, Turns: 32} }})
	m.Request("/v1/services", 200, 3*time.Millisecond)
	m.Request("/v1/stream", 101, 0)
	m.Message("command")
	m.Refused("idle")
	ended := m.Stream("sse")
	m.Stream("sse")
	ended()
	text := scrape(t, m.Handler())
	for _, want := range []string{
		`bulkhead_http_requests_total{route="/v1/services",status="200"} 1`,
		`bulkhead_http_requests_total{route="/v1/stream",status="101"} 1`,
		`bulkhead_http_request_seconds_bucket{route="/v1/services",le="0.004"} 1`,
		`bulkhead_streams_open{protocol="sse"} 1`,
		`bulkhead_stream_messages_total{op="command"} 1`,
		`bulkhead_connections_refused_total{which="idle"} 1`,
		`bulkhead_service_committed_total{service="bank"} 7`,
		`bulkhead_service_fuel_total{service="bank"} 99`,
		`bulkhead_service_snapshots_taken_total{service="bank"} 3`,
		`bulkhead_service_snapshots_used_total{service="bank"} 2`,
		`bulkhead_service_snapshots_refused_total{service="bank"} 1`,
		`bulkhead_journal_snapshots_total 11`,
		`bulkhead_journal_snapshot_bytes_total 12`,
		`bulkhead_journal_snapshots_dropped_total 13`,
		`bulkhead_journal_pending_snapshot_bytes 14`,
		`bulkhead_service_position{service="bank"} 42`,
		`bulkhead_service_queued{service="bank"} 5`,
		`bulkhead_service_memory_bytes{service="bank"} 111`,
		`bulkhead_service_shards{service="shop"} 0`,
		`state="failed"} 1`,
		`bulkhead_journal_commits_total 7`,
		`bulkhead_journal_sync_seconds_total 1.5`,
		`bulkhead_journal_pending_bytes 5`,
		`bulkhead_journal_index_lag_commits 4`,
		`bulkhead_journal_write_amplification 3`,
		`bulkhead_readers{state="limit"} 1`, `bulkhead_readers{state="reading"} 2`, `bulkhead_readers{state="waiting"} 31`, `bulkhead_readers_turns_total 32`,
		`bulkhead_journal_index_cache_bytes 15`,
		`bulkhead_journal_index_cache_hits_total 16`,
		`bulkhead_journal_index_cache_misses_total 17`,
		`bulkhead_journal_sync_seconds_bucket{le="0.000512"} 1`,
		`bulkhead_journal_sync_seconds_bucket{le="0.001024"} 2`,
		`bulkhead_journal_sync_seconds_bucket{le="+Inf"} 3`,
		`bulkhead_journal_sync_seconds_sum 1.5`,
		`version="v1"} 1`,
		`go_goroutines`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s", want)
		}
	}
	if strings.Contains(text, `bulkhead_http_request_seconds_count{route="/v1/stream"}`) {
		t.Error("a stream counts as a long request")
	}
}

// Every metric has a help text and a name by the conventions.
func TestNames(t *testing.T) {
	for line := range strings.Lines(scrape(t, New(Options{Version: "v1", Services: someServices, Journal: someStats}).Handler())) {
		name, kind, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "# TYPE "), " ")
		if !ok || !strings.HasPrefix(line, "# TYPE bulkhead_") {
			continue
		}
		if (kind == "counter") != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is a %s", name, kind)
		}
	}
}

// Two hosts in one process do not share metrics; none at all takes everything.
func TestSeparate(t *testing.T) {
	a, b := New(Options{Version: "v1", Services: someServices, Journal: someStats}), New(Options{Version: "v1", Services: someServices, Journal: someStats})
	a.Message("ping")
	if strings.Contains(scrape(t, b.Handler()), `op="ping"`) {
		t.Error("one shows what the other counted")
	}
	var none *Telemetry
	none.Request("/", 200, 1)
	none.Message("x")
	none.Refused("x")
	none.Stream("x")()
}
