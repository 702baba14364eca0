package telemetry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func someServices() []service.Status {
	return []service.Status{
		{Spec: service.Spec{Service: "bank"}, State: service.StateRunning, Head: 42,
			Counters: service.Counters{Committed: 7, Fuel: 99, SnapshotsTaken: 3, SnapshotsUsed: 2,
				SnapshotsRefused: 1}, Shards: []service.ShardStatus{{Queued: 2, MemoryBytes: 100},
				{Queued: 3, MemoryBytes: 11}}, SandboxBytes: 500, CodeBytes: 50, ImageBytes: 51, TableBytes: 52},
		{Spec: service.Spec{Service: "shop"}, State: service.StateFailed},
	}
}

func someStats() journal.Stats {
	s := journal.Stats{Commits: 7, Events: 9, EventBytes: 200, Syncs: 3, SyncTime: 1500 * time.Millisecond,
		PendingBytes: 5, Snapshots: 11, SnapshotBytes: 12, SnapshotsDropped: 13, PendingSnapshotBytes: 14, IndexLag: 4}
	s.SyncMicros.Count, s.SyncMicros.Sum = 3, 1_500_000
	s.SyncMicros.Buckets[9], s.SyncMicros.Buckets[10], s.SyncMicros.Buckets[journal.HistogramBuckets-1] = 1, 1, 1
	s.Storage = journal.StorageStats{Written: 600, IndexCacheBytes: 15, IndexCacheHits: 16, IndexCacheMisses: 17,
		Answers: 18, IndexAbandoned: 19}
	return s
}

func someResources() []service.ResourceUsage {
	return []service.ResourceUsage{{Resource: "bytes_in_flight", Used: 21, Limit: 22, Refused: 23},
		{Resource: "readers", Used: 1}}
}

func someLatencies() []service.Latency {
	l := service.Latency{Service: "bank", Type: "open", Sum: 1500 * time.Millisecond}
	l.Buckets[0], l.Buckets[3], l.Buckets[len(service.LatencyBounds)] = 2, 1, 1
	return []service.Latency{l, {Service: "bank", Type: "other"}}
}

// someHost is a host of these.
type someHost struct{}

func (someHost) Services() []service.Status         { return someServices() }
func (someHost) Stats() journal.Stats               { return someStats() }
func (someHost) Resources() []service.ResourceUsage { return someResources() }
func (someHost) Latencies() []service.Latency       { return someLatencies() }
func (someHost) QueryLatencies() []service.Latency  { return someLatencies() }
func (someHost) Readers() service.Readers {
	return service.Readers{AtOnce: 1, Reading: 2, Waiting: 31, Turns: 32}
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
	m := New(Options{Version: "v1", Host: someHost{}})
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
		`bulkhead_service_sandbox_bytes{service="bank"} 500`,
		`bulkhead_service_code_bytes{service="bank"} 50`,
		`bulkhead_service_image_bytes{service="bank"} 51`,
		`bulkhead_service_table_bytes{service="bank"} 52`,
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
		`bulkhead_journal_answers 18`,
		`bulkhead_journal_index_abandoned 19`,
		`bulkhead_journal_sync_seconds_bucket{le="0.000512"} 1`,
		`bulkhead_journal_sync_seconds_bucket{le="0.001024"} 2`,
		`bulkhead_journal_sync_seconds_bucket{le="+Inf"} 3`,
		`bulkhead_journal_sync_seconds_sum 1.5`,
		`bulkhead_command_seconds_bucket{service="bank",type="open",le="0.0005"} 2`,
		`bulkhead_command_seconds_bucket{service="bank",type="open",le="0.002"} 2`,
		`bulkhead_command_seconds_bucket{service="bank",type="open",le="0.004"} 3`,
		`bulkhead_command_seconds_bucket{service="bank",type="open",le="32"} 3`,
		`bulkhead_command_seconds_bucket{service="bank",type="open",le="+Inf"} 4`,
		`bulkhead_command_seconds_sum{service="bank",type="open"} 1.5`,
		`bulkhead_command_seconds_count{service="bank",type="other"} 0`,
		`bulkhead_query_seconds_count{service="bank",type="open"} 4`,
		`bulkhead_budget_used{resource="bytes_in_flight"} 21`,
		`bulkhead_budget_limit{resource="bytes_in_flight"} 22`,
		`bulkhead_budget_refused_total{resource="bytes_in_flight"} 23`,
		`bulkhead_budget_used{resource="readers"} 1`,
		`version="v1"} 1`,
		`go_goroutines`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s", want)
		}
	}
	if strings.Contains(text, `bulkhead_budget_limit{resource="readers"}`) {
		t.Error("a resource without a limit has one")
	}
	if strings.Contains(text, `bulkhead_http_request_seconds_count{route="/v1/stream"}`) {
		t.Error("a stream counts as a long request")
	}
}

// Every metric has a help text, and a name that follows the conventions.
func TestNames(t *testing.T) {
	for line := range strings.Lines(scrape(t, New(Options{Version: "v1", Host: someHost{}}).Handler())) {
		name, kind, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "# TYPE "), " ")
		if !ok || !strings.HasPrefix(line, "# TYPE bulkhead_") {
			continue
		}
		if (kind == "counter") != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is a %s", name, kind)
		}
	}
}

// Each help text is a sentence that is understood without the others.
func TestHelp(t *testing.T) {
	m := New(Options{
		Version: "v1", Host: someHost{}, LogDropped: func() uint64 { return 1 },
	})
	m.Request("/", 200, 1)
	m.Message("x")
	m.Refused("idle")
	m.Stream("sse")
	seen := map[string]string{}
	for line := range strings.Lines(scrape(t, m.Handler())) {
		name, help, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "# HELP "), " ")
		if !strings.HasPrefix(line, "# HELP bulkhead_") {
			continue
		}
		words := strings.Fields(help)
		first := ""
		if len(words) > 0 {
			first = words[0]
		}
		if other, twice := seen[help]; twice {
			t.Errorf("%s and %s have one help text: %s", name, other, help)
		}
		if len(words) < 6 || !strings.HasSuffix(help, ".") || !unicode.IsUpper(rune(help[0])) ||
			slices.Contains([]string{"Those", "Their", "They", "It", "Its"}, first) {
			t.Errorf("%s: %q is no sentence that is understood alone", name, help)
		}
		seen[help] = name
	}
	if len(seen) < 60 {
		t.Errorf("%d help texts", len(seen))
	}
}

// Two hosts in one process do not share metrics, and a nil Telemetry does nothing.
func TestSeparate(t *testing.T) {
	a, b := New(Options{Version: "v1", Host: someHost{}}), New(Options{Version: "v1", Host: someHost{}})
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
