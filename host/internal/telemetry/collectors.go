package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// serviceMetric is one number of a service.
type serviceMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*service.Status) float64
}

type services struct {
	read    func() []service.Status
	metrics []serviceMetric
	info    *prometheus.Desc
}

func newServices(read func() []service.Status) *services {
	c := &services{read: read, info: prometheus.NewDesc("bulkhead_service_info", "Always 1; the labels say what the service runs.", []string{"service", "module", "state"}, nil)}
	counter := func(name, help string, of func(*service.Counters) uint64) {
		c.metrics = append(c.metrics, serviceMetric{
			prometheus.NewDesc("bulkhead_service_"+name+"_total", help, []string{"service"}, nil), prometheus.CounterValue,
			func(s *service.Status) float64 { return float64(of(&s.Counters)) },
		})
	}
	gauge := func(name, help string, of func(*service.Status) float64) {
		c.metrics = append(c.metrics, serviceMetric{prometheus.NewDesc("bulkhead_service_"+name, help, []string{"service"}, nil), prometheus.GaugeValue, of})
	}
	counter("committed", "Commands whose events are on disk.", func(n *service.Counters) uint64 { return n.Committed })
	counter("events", "Events on disk.", func(n *service.Counters) uint64 { return n.Events })
	counter("rejected", "Commands that the service refused.", func(n *service.Counters) uint64 { return n.Rejected })
	counter("failed", "Commands that ended in a fault, a trap or a violation.", func(n *service.Counters) uint64 { return n.Failed })
	counter("overloaded", "Commands refused as a mailbox was full.", func(n *service.Counters) uint64 { return n.Overloaded })
	counter("repeated", "Commands answered from the journal.", func(n *service.Counters) uint64 { return n.Repeated })
	counter("unknown", "Commands that ended without a known outcome.", func(n *service.Counters) uint64 { return n.Unknown })
	counter("queries", "Queries answered.", func(n *service.Counters) uint64 { return n.Queries })
	counter("hydrated", "Entities made resident.", func(n *service.Counters) uint64 { return n.Hydrated })
	counter("resets", "Sandboxes thrown away.", func(n *service.Counters) uint64 { return n.Resets })
	counter("recycled", "Sandboxes thrown away for their size.", func(n *service.Counters) uint64 { return n.Recycled })
	counter("snapshots_taken", "Snapshots of entities that were handed to the journal.", func(n *service.Counters) uint64 { return n.SnapshotsTaken })
	counter("snapshots_used", "Entities made resident from a snapshot.", func(n *service.Counters) uint64 { return n.SnapshotsUsed })
	counter("snapshots_refused", "Snapshots found and not used: damaged, of another state schema, or not taken by the module.", func(n *service.Counters) uint64 { return n.SnapshotsRefused })
	counter("fuel", "Fuel spent: instructions that the service's guests executed.", func(n *service.Counters) uint64 { return n.Fuel })
	counter("log_lines_dropped", "Log lines about the service that were dropped, as it logged more than its rate allows.", func(n *service.Counters) uint64 { return n.LogLinesDropped })
	counter("log_bytes_dropped", "Bytes of the log lines about the service that were dropped, as it logged more than its rate allows.", func(n *service.Counters) uint64 { return n.LogBytesDropped })
	gauge("position", "Position of the last event on disk.", func(s *service.Status) float64 { return float64(s.Head) })
	gauge("log_bytes", "Bytes of the service's log on disk, and of what is on its way there.", func(s *service.Status) float64 { return float64(s.LogBytes) })
	gauge("log_limit_bytes", "Bytes that the service's log may have on disk.", func(s *service.Status) float64 { return float64(s.Spec.Limits.WithDefaults().DiskBytes) })
	gauge("shards", "Number of shards that the keys of the service are divided among.", func(s *service.Status) float64 { return float64(len(s.Shards)) })
	gauge("sandboxes", "Number of shards of the service whose sandbox runs; a shard makes its sandbox when it is first used.", sum(func(s *service.ShardStatus) float64 {
		if s.State == service.StateRunning {
			return 1
		}
		return 0
	}))
	gauge("start_failures", "Number of starts that failed one after the other, of the service and of the sandboxes of its shards; it is 0 when all is well.", func(s *service.Status) float64 {
		return float64(s.Failed) + sum(func(s *service.ShardStatus) float64 { return float64(s.Failed) })(s)
	})
	gauge("queued", "Commands that wait in mailboxes.", sum(func(s *service.ShardStatus) float64 { return float64(s.Queued) }))
	gauge("queued_bytes", "Data of commands that wait in mailboxes.", sum(func(s *service.ShardStatus) float64 { return float64(s.QueuedBytes) }))
	gauge("resident_entities", "Entities in sandboxes.", sum(func(s *service.ShardStatus) float64 { return float64(s.Resident) }))
	gauge("entity_faults", "Entities that the module cannot hydrate, or whose states it cannot encode, as far as they are remembered.", func(s *service.Status) float64 { return float64(s.Faults.Count) })
	gauge("memory_bytes", "Linear memory of sandboxes.", sum(func(s *service.ShardStatus) float64 { return float64(s.MemoryBytes) }))
	gauge("sandbox_bytes", "Bytes of the host's sandbox memory that the service holds: machine code, image, linear memory, call stacks, tables and resident entities.", func(s *service.Status) float64 { return float64(s.SandboxBytes) })
	gauge("code_bytes", "Bytes of the machine code of the service's module.", func(s *service.Status) float64 { return float64(s.CodeBytes) })
	gauge("image_bytes", "Bytes of the image that the service's sandboxes begin as.", func(s *service.Status) float64 { return float64(s.ImageBytes) })
	gauge("table_bytes", "Bytes of the tables of the service's sandboxes.", func(s *service.Status) float64 { return float64(s.TableBytes) })
	return c
}

func sum(of func(*service.ShardStatus) float64) func(*service.Status) float64 {
	return func(s *service.Status) (n float64) {
		for i := range s.Shards {
			n += of(&s.Shards[i])
		}
		return n
	}
}

// Describe implements prometheus.Collector.
func (c *services) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.info
	for _, m := range c.metrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *services) Collect(ch chan<- prometheus.Metric) {
	all := c.read()
	for i := range all {
		s := &all[i]
		name := string(s.Spec.Service)
		ch <- prometheus.MustNewConstMetric(c.info, prometheus.GaugeValue, 1, name, s.Spec.Module.String(), string(s.State))
		for _, m := range c.metrics {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.of(s), name)
		}
	}
}

// journalMetric is one number of the journal.
type journalMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*journal.Stats) float64
}

// journalHistogram is one distribution of the journal. unit is what 1 of it is worth.
type journalHistogram struct {
	desc *prometheus.Desc
	unit float64
	of   func(*journal.Stats) *journal.Histogram
}

type journalStats struct {
	read       func() journal.Stats
	metrics    []journalMetric
	histograms []journalHistogram
}

func newJournal(read func() journal.Stats) *journalStats {
	c := &journalStats{read: read}
	add := func(kind prometheus.ValueType, name, help string, of func(*journal.Stats) float64) {
		c.metrics = append(c.metrics, journalMetric{prometheus.NewDesc("bulkhead_journal_"+name, help, nil, nil), kind, of})
	}
	add(prometheus.CounterValue, "syncs_total", "Transactions that were synced.", func(j *journal.Stats) float64 { return float64(j.Syncs) })
	add(prometheus.CounterValue, "sync_seconds_total", "Time that they took.", func(j *journal.Stats) float64 { return j.SyncTime.Seconds() })
	add(prometheus.GaugeValue, "last_sync_seconds", "Time that the latest took.", func(j *journal.Stats) float64 { return j.LastSync.Seconds() })
	add(prometheus.CounterValue, "commits_total", "Commands on disk.", func(j *journal.Stats) float64 { return float64(j.Commits) })
	add(prometheus.CounterValue, "events_total", "Events on disk.", func(j *journal.Stats) float64 { return float64(j.Events) })
	add(prometheus.CounterValue, "batches_total", "Batches on disk.", func(j *journal.Stats) float64 { return float64(j.Batches) })
	add(prometheus.CounterValue, "bytes_total", "Bytes of batches on disk.", func(j *journal.Stats) float64 { return float64(j.Bytes) })
	add(prometheus.GaugeValue, "largest_group_commits", "Most commands that shared a sync.", func(j *journal.Stats) float64 { return float64(j.LargestGroup) })
	add(prometheus.CounterValue, "stalls_total", "Times that a command waited for room on its way to the disk.", func(j *journal.Stats) float64 { return float64(j.Stalls) })
	add(prometheus.CounterValue, "event_bytes_total", "Data and metadata of events on disk.", func(j *journal.Stats) float64 { return float64(j.EventBytes) })
	add(prometheus.CounterValue, "stall_seconds_total", "Time that commands waited so.", func(j *journal.Stats) float64 { return j.StallTime.Seconds() })
	add(prometheus.GaugeValue, "index_lag_commits", "Commands on disk that are not in the index yet.", func(j *journal.Stats) float64 { return float64(j.IndexLag) })
	add(prometheus.CounterValue, "index_updates_total", "Updates of the index.", func(j *journal.Stats) float64 { return float64(j.IndexUpdates) })
	add(prometheus.CounterValue, "index_seconds_total", "Time that they took.", func(j *journal.Stats) float64 { return j.IndexTime.Seconds() })
	add(prometheus.GaugeValue, "log_disk_bytes", "Size of the log's tables on disk.", func(j *journal.Stats) float64 { return float64(j.Engine.LogBytes) })
	add(prometheus.GaugeValue, "index_disk_bytes", "Size of the index's tables on disk.", func(j *journal.Stats) float64 { return float64(j.Engine.IndexBytes) })
	add(prometheus.GaugeValue, "index_cache_bytes", "Memory for blocks of the index that were read lately.", func(j *journal.Stats) float64 { return float64(j.Engine.IndexCacheBytes) })
	add(prometheus.CounterValue, "index_cache_hits_total", "Blocks of the index that look-ups, and scans at their begin, found there.", func(j *journal.Stats) float64 { return float64(j.Engine.IndexCacheHits) })
	add(prometheus.CounterValue, "index_cache_misses_total", "Those that were read from a file.", func(j *journal.Stats) float64 { return float64(j.Engine.IndexCacheMisses) })
	add(prometheus.CounterValue, "written_bytes_total", "Bytes written to disk for log and index, reorganising included.", func(j *journal.Stats) float64 { return float64(j.Engine.Written) })
	add(prometheus.GaugeValue, "write_amplification", "Bytes written to disk for each byte of events, since the start.", (*journal.Stats).WriteAmplification)
	add(prometheus.CounterValue, "snapshots_total", "Snapshots written.", func(j *journal.Stats) float64 { return float64(j.Snapshots) })
	add(prometheus.CounterValue, "snapshot_bytes_total", "Bytes of their states.", func(j *journal.Stats) float64 { return float64(j.SnapshotBytes) })
	add(prometheus.CounterValue, "snapshots_dropped_total", "Snapshots that were not written: too many waited, or what they rest on was not written either.", func(j *journal.Stats) float64 { return float64(j.SnapshotsDropped) })
	add(prometheus.GaugeValue, "pending_snapshot_bytes", "Bytes of the snapshots that wait to be written.", func(j *journal.Stats) float64 { return float64(j.PendingSnapshotBytes) })
	add(prometheus.GaugeValue, "pending_commits", "Commands handed in that are not indexed yet.", func(j *journal.Stats) float64 { return float64(j.Pending) })
	add(prometheus.GaugeValue, "pending_bytes", "Their size.", func(j *journal.Stats) float64 { return float64(j.PendingBytes) })
	hist := func(name, help string, unit float64, of func(*journal.Stats) *journal.Histogram) {
		c.histograms = append(c.histograms, journalHistogram{prometheus.NewDesc("bulkhead_journal_"+name, help, nil, nil), unit, of})
	}
	hist("sync_seconds", "How long transactions took, sync included.", 1e-6, func(j *journal.Stats) *journal.Histogram { return &j.SyncMicros })
	hist("group_commits", "Commands that shared a sync.", 1, func(j *journal.Stats) *journal.Histogram { return &j.GroupCommits })
	hist("batch_bytes", "Sizes of batches.", 1, func(j *journal.Stats) *journal.Histogram { return &j.BatchBytes })
	return c
}

// Describe implements prometheus.Collector.
func (c *journalStats) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		ch <- m.desc
	}
	for _, h := range c.histograms {
		ch <- h.desc
	}
}

// Collect implements prometheus.Collector.
func (c *journalStats) Collect(ch chan<- prometheus.Metric) {
	j := c.read()
	for _, m := range c.metrics {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.of(&j))
	}
	for _, h := range c.histograms {
		counted := h.of(&j)
		buckets := map[float64]uint64{}
		var below uint64
		for i, n := range counted.Buckets[:journal.HistogramBuckets-1] { // the last is +Inf
			below += n
			buckets[h.unit*float64(uint64(1)<<i)] = below
		}
		ch <- prometheus.MustNewConstHistogram(h.desc, counted.Count, h.unit*float64(counted.Sum), buckets)
	}
}

// readersStats is who reads logs.
type readersStats struct {
	read  func() service.Readers
	state *prometheus.Desc
	turns *prometheus.Desc
}

func newReaders(read func() service.Readers) *readersStats {
	return &readersStats{
		read:  read,
		state: prometheus.NewDesc("bulkhead_readers", "Readers of logs, by state: those that read now, those that wait for their turn, and how many may read at a time (limit).", []string{"state"}, nil),
		turns: prometheus.NewDesc("bulkhead_readers_turns_total", "Turns in which logs were read, of about a millisecond each.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *readersStats) Describe(ch chan<- *prometheus.Desc) { ch <- c.state; ch <- c.turns }

// Collect implements prometheus.Collector.
func (c *readersStats) Collect(ch chan<- prometheus.Metric) {
	r := c.read()
	for state, n := range map[string]int{"reading": r.Reading, "waiting": r.Waiting, "limit": r.AtOnce} {
		ch <- prometheus.MustNewConstMetric(c.state, prometheus.GaugeValue, float64(n), state)
	}
	ch <- prometheus.MustNewConstMetric(c.turns, prometheus.CounterValue, float64(r.Turns))
}

// resources shows the host's budget.
type resources struct {
	read                 func() []service.ResourceUsage
	used, limit, refused *prometheus.Desc
}

func newResources(read func() []service.ResourceUsage) *resources {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("bulkhead_budget_"+name, help, []string{"resource"}, nil)
	}
	return &resources{
		read:    read,
		used:    desc("used", "How much of a resource of the host is in use, in the resource's own unit."),
		limit:   desc("limit", "How much of a resource of the host may be in use; a resource without a limit is not shown."),
		refused: desc("refused_total", "Requests that were refused because there was not enough of a resource of the host."),
	}
}

// Describe implements prometheus.Collector.
func (c *resources) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.used
	ch <- c.limit
	ch <- c.refused
}

// Collect implements prometheus.Collector.
func (c *resources) Collect(ch chan<- prometheus.Metric) {
	for _, r := range c.read() {
		ch <- prometheus.MustNewConstMetric(c.used, prometheus.GaugeValue, float64(r.Used), r.Resource)
		if r.Limit > 0 {
			ch <- prometheus.MustNewConstMetric(c.limit, prometheus.GaugeValue, float64(r.Limit), r.Resource)
		}
		ch <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue, float64(r.Refused), r.Resource)
	}
}
