package main

import (
	"fmt"
	"io"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

// journalStatsCmd prints the journal's counters and sizes.
type journalStatsCmd struct {
	Measure bool `env:"-" help:"Also measure the sizes of all logs, which reads them completely. Implied by --offline."`
	Offline bool `env:"-" help:"Read the directory --data, which no host uses, instead of asking a host. Only sizes are shown then."`

	Remote remoteFlags `embed:"" group:"Host"`
}

func (c *journalStatsCmd) Run(e *env, all *journalCmd) error {
	var got service.JournalStats
	if c.Offline {
		err := all.with(e.ctx, func(j *commitlog.Journal) error {
			got.Stats = j.Stats()
			for _, l := range j.Logs() {
				size, err := j.Measure(e.ctx, l.Name, nil)
				if err != nil {
					return damaged(err)
				}
				got.Logs = append(got.Logs, service.MeasuredLog(size))
			}
			return nil
		})
		if err != nil {
			return err
		}
	} else {
		cl, err := c.Remote.connect(e)
		if err != nil {
			return err
		}
		if got, err = cl.Journal(e.ctx, c.Measure); err != nil {
			return err
		}
	}
	e.print(got, func(w io.Writer) { printStats(w, &got, c.Offline) })
	return nil
}

func printStats(w io.Writer, got *service.JournalStats, offline bool) {
	for _, l := range got.Logs {
		fmt.Fprintf(w, "%s: up to position %d in %d batches", safetext.Text(string(l.Name)), l.Head,
			l.Batches-l.Deleted)
		if l.Bytes != nil {
			fmt.Fprintf(w, "; %d commands, %d events of %d types, %s", *l.Commits, *l.Events, *l.Types,
				bytesUnit(int64(*l.Bytes)))
		}
		fmt.Fprintln(w)
	}
	s := &got.Stats
	fmt.Fprintf(w, "on disk: log %s, index %s\n", bytesUnit(s.Storage.LogBytes), bytesUnit(s.Storage.IndexBytes))
	fmt.Fprintf(w, "answers: those to %d command ids are kept\n", s.Storage.Answers)
	if offline {
		return
	}
	fmt.Fprintf(w, "since the start: %d commands, %d events, %s of batches\n", s.Commits, s.Events,
		bytesUnit(int64(s.Bytes)))
	fmt.Fprintf(w, "written: %s, %.1f bytes for each byte of events\n", bytesUnit(int64(s.Storage.Written)),
		got.WriteAmplification)
	micros := func(v uint64) time.Duration { return time.Duration(v) * time.Microsecond }
	fmt.Fprintf(w, "syncs: %d; half within %s, 99%% within %s\n", s.Syncs, micros(s.SyncMicros.Quantile(0.5)),
		micros(s.SyncMicros.Quantile(0.99)))
	fmt.Fprintf(w, "commands that shared a sync: half up to %d, 99%% up to %d, most %d\n", s.GroupCommits.Quantile(0.5),
		s.GroupCommits.Quantile(0.99), s.LargestGroup)
	fmt.Fprintf(w, "batches: half up to %s, 99%% up to %s\n", bytesUnit(int64(s.BatchBytes.Quantile(0.5))),
		bytesUnit(int64(s.BatchBytes.Quantile(0.99))))
	fmt.Fprintf(w, "index: %d commands behind the log; %d snapshots written, %d dropped\n", s.IndexLag, s.Snapshots,
		s.SnapshotsDropped)
	fmt.Fprintf(w, "index in memory: %s; %d blocks were found there, %d were read from a file\n",
		bytesUnit(s.Storage.IndexCacheBytes), s.Storage.IndexCacheHits, s.Storage.IndexCacheMisses)
	if r := got.Readers; r != nil {
		fmt.Fprintf(w, "readers: %d of %d read, %d wait; %d turns so far, in which was read for %s and for which was "+
			"waited for %s; %s are kept for others who come to the same place\n",
			r.Reading, r.AtOnce, r.Waiting, r.Turns, r.ReadTime.Round(time.Millisecond),
			r.WaitTime.Round(time.Millisecond), bytesUnit(r.SharedBytes))
	}
	fmt.Fprintf(w, "waited for room: %d times, %s\n", s.Stalls, s.StallTime.Round(time.Millisecond))
	for i, n := range s.SyncMicros.Buckets {
		if n > 0 {
			fmt.Fprintf(w, "  syncs within %s: %d\n", micros(1<<i), n)
		}
	}
}
