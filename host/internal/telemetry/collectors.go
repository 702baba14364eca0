package telemetry

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// serviceMetric is a number of each service.
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
	c := &services{read: read, info: prometheus.NewDesc("bulkhead_service_info", "Always 1; the labels say what the "+
		"service runs.", []string{"service", "module", "state"}, nil)}
	counter := func(name, help string, of func(*service.Counters) uint64) {
		c.metrics = append(c.metrics, serviceMetric{
			prometheus.NewDesc("bulkhead_service_"+name+"_total", help, []string{"service"}, nil),
			prometheus.CounterValue,
			func(s *service.Status) float64 { return float64(of(&s.Counters)) },
		})
	}
	gauge := func(name, help string, of func(*service.Status) float64) {
		c.metrics = append(c.metrics,
			serviceMetric{prometheus.NewDesc("bulkhead_service_"+name, help, []string{"service"}, nil),
				prometheus.GaugeValue, of})
	}
	counter("committed", "Number of commands of the service that were carried out and whose events are on disk.",
		func(n *service.Counters) uint64 { return n.Committed })
	counter("events", "Number of events of the service that its commands wrote to disk.",
		func(n *service.Counters) uint64 { return n.Events })
	counter("rejected", "Number of commands that the service's module rejected.",
		func(n *service.Counters) uint64 { return n.Rejected })
	counter("failed", "Number of commands of the service that ended in a fault, a trap or a violation of the ABI.",
		func(n *service.Counters) uint64 { return n.Failed })
	counter("overloaded", "Number of commands of the service that were refused because a mailbox was full.",
		func(n *service.Counters) uint64 { return n.Overloaded })
	counter("repeated", "Number of commands of the service that had been carried out before and got their first "+
		"answer again.", func(n *service.Counters) uint64 { return n.Repeated })
	counter("unknown", "Number of commands of the service that ended without a known outcome.",
		func(n *service.Counters) uint64 { return n.Unknown })
	counter("queries", "Number of queries of the service that were answered.",
		func(n *service.Counters) uint64 { return n.Queries })
	counter("hydrated", "Number of times that an entity of the service was rebuilt in a sandbox.",
		func(n *service.Counters) uint64 { return n.Hydrated })
	counter("resets", "Number of times that a sandbox of the service was reset.",
		func(n *service.Counters) uint64 { return n.Resets })
	counter("recycled", "Number of times that a sandbox of the service was reset because its memory had grown.",
		func(n *service.Counters) uint64 { return n.Recycled })
	counter("snapshots_taken", "Number of snapshots of the service's entities that were handed to the journal.",
		func(n *service.Counters) uint64 { return n.SnapshotsTaken })
	counter("snapshots_used", "Number of times that an entity of the service was rebuilt from a snapshot.",
		func(n *service.Counters) uint64 { return n.SnapshotsUsed })
	counter("snapshots_refused", "Number of snapshots of the service that were found and not used: they were "+
		"damaged, of another state schema, or the module did not take them.",
		func(n *service.Counters) uint64 { return n.SnapshotsRefused })
	counter("fuel", "Fuel that the service's guests spent; a unit is about one instruction.",
		func(n *service.Counters) uint64 { return n.Fuel })
	counter("log_lines_dropped", "Number of log lines about the service that were dropped because it logged more "+
		"than its rate allows.", func(n *service.Counters) uint64 { return n.LogLinesDropped })
	counter("log_bytes_dropped", "Bytes of the log lines about the service that were dropped because it logged more "+
		"than its rate allows.", func(n *service.Counters) uint64 { return n.LogBytesDropped })
	gauge("position", "Position of the last event of the service on disk.",
		func(s *service.Status) float64 { return float64(s.Head) })
	gauge("log_bytes", "Bytes of the service's log on disk, and of what is on its way there.",
		func(s *service.Status) float64 { return float64(s.LogBytes) })
	gauge("log_limit_bytes", "Bytes that the service's log may have on disk.",
		func(s *service.Status) float64 { return float64(s.Spec.Limits.WithDefaults().DiskBytes) })
	gauge("shards", "Number of shards that the keys of the service are divided among.",
		func(s *service.Status) float64 { return float64(len(s.Shards)) })
	gauge("sandboxes", "Number of shards of the service whose sandbox runs; a shard makes its sandbox when it is "+
		"first used.", sum(func(s *service.ShardStatus) float64 {
		if s.State == service.StateRunning {
			return 1
		}
		return 0
	}))
	gauge("start_failures", "Number of starts that failed one after the other, of the service and of the sandboxes "+
		"of its shards; it is 0 when all is well.", func(s *service.Status) float64 {
		return float64(s.Failed) + sum(func(s *service.ShardStatus) float64 { return float64(s.Failed) })(s)
	})
	gauge("queued", "Number of commands that wait in the service's mailboxes.",
		sum(func(s *service.ShardStatus) float64 { return float64(s.Queued) }))
	gauge("queued_bytes", "Bytes of the data of commands that wait in the service's mailboxes.",
		sum(func(s *service.ShardStatus) float64 { return float64(s.QueuedBytes) }))
	gauge("resident_entities", "Number of entities that are in the service's sandboxes.",
		sum(func(s *service.ShardStatus) float64 { return float64(s.Resident) }))
	gauge("entity_faults", "Number of entities of the service that its module cannot hydrate, or whose states it "+
		"cannot encode, as far as they are remembered.",
		func(s *service.Status) float64 { return float64(s.Faults.Count) })
	gauge("quarantined_entities", "Number of entities of the service that its module cannot hydrate, so that their "+
		"commands and queries are refused, as far as they are remembered.",
		func(s *service.Status) float64 { return float64(s.Faults.Quarantined) })
	gauge("memory_bytes", "Bytes of the linear memory of the service's sandboxes.",
		sum(func(s *service.ShardStatus) float64 { return float64(s.MemoryBytes) }))
	gauge("sandbox_bytes", "Bytes of the host's sandbox memory that the service holds: machine code, image, linear "+
		"memory, call stacks, tables and resident entities.",
		func(s *service.Status) float64 { return float64(s.SandboxBytes) })
	gauge("code_bytes", "Bytes of the machine code of the service's module.",
		func(s *service.Status) float64 { return float64(s.CodeBytes) })
	gauge("image_bytes", "Bytes of the image that the service's sandboxes begin as.",
		func(s *service.Status) float64 { return float64(s.ImageBytes) })
	gauge("table_bytes", "Bytes of the tables of the service's sandboxes.",
		func(s *service.Status) float64 { return float64(s.TableBytes) })
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
		ch <- prometheus.MustNewConstMetric(c.info, prometheus.GaugeValue, 1, name, s.Spec.Module.String(),
			string(s.State))
		for _, m := range c.metrics {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.of(s), name)
		}
	}
}

// journalMetric is a number of the journal.
type journalMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*journal.Stats) float64
}

// journalHistogram is a distribution of the journal. Its values are multiplied by unit.
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
		c.metrics = append(c.metrics, journalMetric{prometheus.NewDesc("bulkhead_journal_"+name, help, nil, nil), kind,
			of})
	}
	add(prometheus.CounterValue, "syncs_total", "Number of transactions of the journal that were synced to disk.",
		func(j *journal.Stats) float64 { return float64(j.Syncs) })
	add(prometheus.CounterValue, "sync_seconds_total", "Time that the journal's synced transactions took, in seconds.",
		func(j *journal.Stats) float64 { return j.SyncTime.Seconds() })
	add(prometheus.GaugeValue, "last_sync_seconds", "Time that the journal's latest synced transaction took, in "+
		"seconds.", func(j *journal.Stats) float64 { return j.LastSync.Seconds() })
	add(prometheus.CounterValue, "commits_total", "Number of commands that the journal wrote to disk.",
		func(j *journal.Stats) float64 { return float64(j.Commits) })
	add(prometheus.CounterValue, "events_total", "Number of events that the journal wrote to disk.",
		func(j *journal.Stats) float64 { return float64(j.Events) })
	add(prometheus.CounterValue, "batches_total", "Number of batches that the journal wrote to disk.",
		func(j *journal.Stats) float64 { return float64(j.Batches) })
	add(prometheus.CounterValue, "bytes_total", "Bytes of the batches that the journal wrote to disk.",
		func(j *journal.Stats) float64 { return float64(j.Bytes) })
	add(prometheus.GaugeValue, "largest_group_commits", "Largest number of commands that shared one sync of the "+
		"journal.", func(j *journal.Stats) float64 { return float64(j.LargestGroup) })
	add(prometheus.CounterValue, "stalls_total", "Number of times that a command waited for room on its way to the "+
		"journal's disk.", func(j *journal.Stats) float64 { return float64(j.Stalls) })
	add(prometheus.CounterValue, "event_bytes_total", "Bytes of the data and metadata of the events that the journal "+
		"wrote to disk.", func(j *journal.Stats) float64 { return float64(j.EventBytes) })
	add(prometheus.CounterValue, "stall_seconds_total", "Time that commands waited for room on their way to the "+
		"journal's disk, in seconds.", func(j *journal.Stats) float64 { return j.StallTime.Seconds() })
	add(prometheus.GaugeValue, "index_lag_commits", "Number of commands on disk that are not in the journal's index "+
		"yet.", func(j *journal.Stats) float64 { return float64(j.IndexLag) })
	add(prometheus.CounterValue, "index_updates_total", "Number of updates of the journal's index.",
		func(j *journal.Stats) float64 { return float64(j.IndexUpdates) })
	add(prometheus.CounterValue, "index_seconds_total", "Time that the updates of the journal's index took, in "+
		"seconds.", func(j *journal.Stats) float64 { return j.IndexTime.Seconds() })
	add(prometheus.GaugeValue, "log_disk_bytes", "Bytes on disk of the tables that hold the journal's log.",
		func(j *journal.Stats) float64 { return float64(j.Storage.LogBytes) })
	add(prometheus.GaugeValue, "index_disk_bytes", "Bytes on disk of the tables that hold the journal's index.",
		func(j *journal.Stats) float64 { return float64(j.Storage.IndexBytes) })
	add(prometheus.GaugeValue, "index_cache_bytes", "Bytes of memory that hold blocks of the journal's index that "+
		"were read lately.", func(j *journal.Stats) float64 { return float64(j.Storage.IndexCacheBytes) })
	add(prometheus.CounterValue, "index_cache_hits_total", "Number of reads of a block of the journal's index that "+
		"found it in memory.", func(j *journal.Stats) float64 { return float64(j.Storage.IndexCacheHits) })
	add(prometheus.GaugeValue, "answers", "Number of command ids whose answers the journal's index keeps.",
		func(j *journal.Stats) float64 { return float64(j.Storage.Answers) })
	add(prometheus.GaugeValue, "index_abandoned", "Number of indexes that could not be closed; their memory is lost "+
		"until the process ends.", func(j *journal.Stats) float64 { return float64(j.Storage.IndexAbandoned) })
	add(prometheus.CounterValue, "index_cache_misses_total", "Number of reads of a block of the journal's index that "+
		"had to read it from a file.", func(j *journal.Stats) float64 { return float64(j.Storage.IndexCacheMisses) })
	add(prometheus.CounterValue, "written_bytes_total", "Bytes that were written to disk for the journal's log and "+
		"index, reorganising included.", func(j *journal.Stats) float64 { return float64(j.Storage.Written) })
	add(prometheus.GaugeValue, "write_amplification", "Bytes that the journal wrote to disk for each byte of events, "+
		"since the start.", (*journal.Stats).WriteAmplification)
	add(prometheus.CounterValue, "snapshots_total", "Number of snapshots that the journal wrote.",
		func(j *journal.Stats) float64 { return float64(j.Snapshots) })
	add(prometheus.CounterValue, "snapshot_bytes_total", "Bytes of the states in the snapshots that the journal wrote.",
		func(j *journal.Stats) float64 { return float64(j.SnapshotBytes) })
	add(prometheus.CounterValue, "snapshots_dropped_total", "Number of snapshots that the journal did not write "+
		"because too many waited, or because what they rest on was not written either.",
		func(j *journal.Stats) float64 { return float64(j.SnapshotsDropped) })
	add(prometheus.GaugeValue, "pending_snapshot_bytes", "Bytes of the snapshots that wait for the journal to write "+
		"them.", func(j *journal.Stats) float64 { return float64(j.PendingSnapshotBytes) })
	add(prometheus.GaugeValue, "pending_commits", "Number of commands that were handed to the journal and are not in "+
		"its index yet.", func(j *journal.Stats) float64 { return float64(j.Pending) })
	add(prometheus.GaugeValue, "pending_bytes", "Bytes of the commands that were handed to the journal and are not "+
		"in its index yet.", func(j *journal.Stats) float64 { return float64(j.PendingBytes) })
	hist := func(name, help string, unit float64, of func(*journal.Stats) *journal.Histogram) {
		c.histograms = append(c.histograms,
			journalHistogram{prometheus.NewDesc("bulkhead_journal_"+name, help, nil, nil), unit, of})
	}
	hist("sync_seconds", "How long the journal's transactions took, their sync included, in seconds.", 1e-6,
		func(j *journal.Stats) *journal.Histogram { return &j.SyncMicros })
	hist("group_commits", "Number of commands that shared a sync of the journal.", 1,
		func(j *journal.Stats) *journal.Histogram { return &j.GroupCommits })
	hist("batch_bytes", "Sizes of the journal's batches, in bytes.", 1,
		func(j *journal.Stats) *journal.Histogram { return &j.BatchBytes })
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
		for i, n := range counted.Buckets[:journal.HistogramBuckets-1] { // the last one is +Inf
			below += n
			buckets[h.unit*float64(uint64(1)<<i)] = below
		}
		ch <- prometheus.MustNewConstHistogram(h.desc, counted.Count, h.unit*float64(counted.Sum), buckets)
	}
}

// readersStats collects how many readers of logs there are.
type readersStats struct {
	read  func() service.Readers
	state *prometheus.Desc
	turns *prometheus.Desc
}

func newReaders(read func() service.Readers) *readersStats {
	return &readersStats{
		read: read,
		state: prometheus.NewDesc("bulkhead_readers", "Number of readers of logs, by state: reading are those that "+
			"read now, waiting those that wait for their turn, and limit is how many may read at a time.",
			[]string{"state"}, nil),
		turns: prometheus.NewDesc("bulkhead_readers_turns_total", "Number of turns in which logs were read; a turn "+
			"takes about a millisecond.", nil, nil),
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

// resources collects the use of the host's resources.
type resources struct {
	read                 func() []service.ResourceUsage
	used, limit, refused *prometheus.Desc
}

func newResources(read func() []service.ResourceUsage) *resources {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("bulkhead_budget_"+name, help, []string{"resource"}, nil)
	}
	return &resources{
		read: read,
		used: desc("used", "How much of a resource of the host is in use, in the resource's own unit."),
		limit: desc("limit", "How much of a resource of the host may be in use; a resource without a limit is not "+
			"shown."),
		refused: desc("refused_total", "Number of requests that were refused because there was not enough of a "+
			"resource of the host."),
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

// latencies collects how long commands, or queries, took.
type latencies struct {
	read func() []service.Latency
	desc *prometheus.Desc
}

// newLatencies returns a collector of latencies. what is the singular for names of metrics, such as "command"; plural
// is for the help text.
func newLatencies(what, plural string, read func() []service.Latency) *latencies {
	help := fmt.Sprintf("How long %[2]s took from when the host had them until their outcome was known, in seconds, "+
		"by service and type of %[1]s, whichever way they came; %[2]s beyond the host's bound on such series, and of "+
		"types that the service does not have, are of type other.",
		what, plural)
	return &latencies{read, prometheus.NewDesc("bulkhead_"+what+"_seconds", help, []string{"service", "type"}, nil)}
}

// Describe implements prometheus.Collector.
func (c *latencies) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *latencies) Collect(ch chan<- prometheus.Metric) {
	for _, l := range c.read() {
		buckets := map[float64]uint64{}
		var below uint64
		for i, bound := range service.LatencyBounds {
			below += l.Buckets[i]
			buckets[bound.Seconds()] = below
		}
		below += l.Buckets[len(service.LatencyBounds)]
		ch <- prometheus.MustNewConstHistogram(c.desc, below, l.Sum.Seconds(), buckets, string(l.Service),
			string(l.Type))
	}
}
