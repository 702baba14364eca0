package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// journalCmd works on the journal of a host that is not running.
type journalCmd struct {
	Data string `default:"bulkhead-data" type:"path" placeholder:"DIR" help:"Directory of the host's data. Default ./bulkhead-data."`

	Verify  journalVerifyCmd  `cmd:"" help:"Verify the whole journal: checksums, hash chain, positions, versions, command ids, index."`
	Dump    journalDumpCmd    `cmd:"" help:"Print a service's log: each command with its events, one JSON object per line. Kept events come first."`
	Export  journalExportCmd  `cmd:"" help:"Write a service's log to a file: one JSON object per event, kept events first, or whole batches."`
	Import  journalImportCmd  `cmd:"" help:"Append exported batches to the journal at the same positions."`
	Logs    journalLogsCmd    `cmd:"" help:"List the logs with their last positions and the types of their events."`
	Stats   journalStatsCmd   `cmd:"" help:"Show the statistics of a running host's journal: sizes by service, syncs, batches, write amplification, index lag."`
	Backup  journalBackupCmd  `cmd:"" help:"Back up a host while it runs: all logs and modules, or what is new since the last backup."`
	Restore journalRestoreCmd `cmd:"" help:"Create a data directory from backups."`
	Retain  journalRetainCmd  `cmd:"" help:"Delete the oldest events of a running service that snapshots cover."`
	Rebuild journalRebuildCmd `cmd:"" help:"Delete all derived data and rebuild it from the log."`
}

// open opens the storage of the journal.
func (c *journalCmd) open() (journal.Storage, error) {
	dir := host.JournalDir(c.Data)
	if _, err := os.Stat(dir); err != nil {
		return journal.Storage{}, usageError{fmt.Errorf("there is no journal in %s: %w", c.Data, err)}
	}
	e, err := storage.Open(dir, storage.Options{})
	return e, c.openError(err)
}

// openError says what to do if a host uses the journal.
func (c *journalCmd) openError(err error) error {
	if journal.KindOf(err) == journal.KindLocked {
		return service.Errorf(service.KindUnavailable, "a host has the journal in %s open; stop it first", c.Data)
	}
	if journal.KindOf(err) == journal.KindFull {
		return &service.Error{Kind: service.KindFull, Message: "the journal cannot be opened, as opening writes",
			Err: err}
	}
	return err
}

// with opens the journal for one use; opening completes the index after a crash.
func (c *journalCmd) with(ctx context.Context, use func(*commitlog.Journal) error) error {
	e, err := c.open()
	if err != nil {
		return err
	}
	j, err := commitlog.Open(ctx, e, commitlog.Options{})
	if err != nil {
		return errors.Join(err, e.Close())
	}
	return errors.Join(use(j), j.Close(ctx))
}

type journalVerifyCmd struct {
	Backups []string `arg:"" optional:"" type:"existing" help:"Verify these backups instead of --data: directories of backups, or the files of one backup."`

	answersFlag
}

// answersFlag is for verifying journals of the first versions.
type answersFlag struct {
	Answers time.Duration `name:"journal-answers" default:"24h" placeholder:"TIME" help:"How long answers to command ids were kept when the first versions wrote the log, whose commits do not record it. Default ${default}."`
}

func (c *journalVerifyCmd) Run(e *env, all *journalCmd) error {
	if len(c.Backups) > 0 {
		return verifyBackups(e, c.Backups)
	}
	report, took, err := all.verify(e, c.Answers)
	if err != nil {
		return err
	}
	e.print(report, func(w io.Writer) { printVerification(w, &report, took) })
	if report.Found > 0 {
		return checkError{fmt.Sprintf("the journal in %s has %d problems", all.Data, report.Found)}
	}
	return nil
}

func (c *journalCmd) verify(e *env, window time.Duration) (verify.Report, time.Duration, error) {
	opened, err := c.open()
	if err != nil {
		return verify.Report{}, 0, err
	}
	bar := e.progress()
	begin := time.Now()
	report, err := verify.Run(e.ctx, opened,
		verify.Options{AnswerWindow: window, Progress: func(p verify.Progress) {
			bar.at("verifying "+string(p.Log), int64(p.Events), 0, countUnit)
		}})
	bar.done()
	return report, time.Since(begin), errors.Join(err, opened.Close())
}

func printVerification(w io.Writer, report *verify.Report, took time.Duration) {
	var names []string
	var events uint64
	for name, l := range report.Logs {
		names = append(names, string(name))
		events += l.Events
	}
	slices.Sort(names)
	for _, name := range names {
		l := report.Logs[journal.LogName(name)]
		fmt.Fprintf(w, "%s: %d events of %d entities, %d commands in %d batches, %s\n", safetext.Text(name), l.Events,
			l.Entities, l.Commits, l.Batches, bytesUnit(int64(l.Bytes)))
		if l.Unindexed > 0 {
			fmt.Fprintf(w, "%s: %d batches are not indexed yet, as after a crash; the next start does it\n",
				safetext.Text(name), l.Unindexed)
		}
	}
	for _, p := range report.Problems {
		fmt.Fprintf(w, "PROBLEM %s\n", safetext.Text(fmt.Sprint(p)))
	}
	if more := report.Found - len(report.Problems); more > 0 {
		fmt.Fprintf(w, "and %d more problems\n", more)
	}
	verdict := "no problem found"
	if report.Found > 0 {
		verdict = fmt.Sprintf("%d problems found", report.Found)
	}
	fmt.Fprintf(w, "%d events verified in %.2f s: %s\n", events, took.Seconds(), verdict)
}

type journalLogsCmd struct{}

// loggedTypes is a log with the types of its events, as --json prints it.
type loggedTypes struct {
	journal.LogInfo
	Types []journal.EventType `json:"types"`
}

func (*journalLogsCmd) Run(e *env, all *journalCmd) error {
	return all.with(e.ctx, func(j *commitlog.Journal) error {
		logs := []loggedTypes{}
		for _, l := range j.Logs() {
			types, err := j.EventTypes(e.ctx, l.Name)
			if err != nil {
				return err
			}
			logs = append(logs, loggedTypes{l, append([]journal.EventType{}, types...)})
		}
		e.print(map[string]any{"logs": logs}, func(w io.Writer) {
			for _, l := range logs {
				note := ""
				if strings.HasPrefix(string(l.Name), "_") {
					note = " (the host's own)"
				}
				fmt.Fprintf(w, "%s: %d events in %d batches%s\n", safetext.Text(string(l.Name)), l.Head, l.Batches,
					note)
				for _, t := range l.Types {
					fmt.Fprintf(w, "  %s, from position %d to %d\n", typeCount(&t), t.First, t.Last)
				}
			}
		})
		return nil
	})
}

// typeCount says how many events have a type.
func typeCount(t *journal.EventType) string {
	return fmt.Sprintf("%d of type %s", t.Count, safetext.Text(t.Type))
}

type journalRebuildCmd struct{}

func (*journalRebuildCmd) Run(e *env, all *journalCmd) error {
	opened, err := all.open()
	if err != nil {
		return err
	}
	bar := e.progress()
	defer bar.done()
	bar.at("clearing what is derived", 0, 0, countUnit)
	if err := errors.Join(commitlog.Reset(e.ctx, opened), opened.Close()); err != nil {
		return err
	}
	bar.at("deriving it again from the log", 0, 0, countUnit)
	var logs []journal.LogInfo
	err = all.with(e.ctx, func(j *commitlog.Journal) error {
		logs = j.Logs()
		for _, log := range j.DamagedLogs() {
			return j.Damage(log)
		}
		return nil
	})
	if err != nil {
		return err
	}
	bar.done()
	var events uint64
	for _, l := range logs {
		events += uint64(l.Head)
	}
	e.print(map[string]any{"logs": len(logs), "events": events}, func(w io.Writer) {
		fmt.Fprintf(w, "the index of %d events in %d logs was rebuilt\n", events, len(logs))
	})
	return nil
}
