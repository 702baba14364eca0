package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/backup"
)

// journalRetainCmd deletes the first events of a service.
type journalRetainCmd struct {
	Service   nameArg       `arg:"" help:"The service."`
	Before    uint64        `env:"-" placeholder:"POSITION" help:"Delete events before this position."`
	OlderThan time.Duration `env:"-" name:"older-than" placeholder:"AGE" help:"Delete events that are older than this, such as 720h."`
	Archive   string        `env:"-" type:"path" placeholder:"DIR" help:"Directory to which the deleted events are exported first, for journal import."`
	MaxKept   *size         `env:"-" name:"max-kept" placeholder:"SIZE" help:"Maximum size of the events that are kept because their entity has no snapshot. If they need more, the deletion ends before the first event that does not fit. 0 keeps none. Default: 64MiB, or 0 if the service does not run."`
	DryRun    bool          `env:"-" name:"dry-run" help:"Only show what would be deleted."`
	Force     bool          `env:"-" help:"Delete events even if no snapshot covers them, which loses the states of their entities, and answers to command ids that are still promised."`

	Remote remoteFlags `embed:"" group:"Host"`
}

// retainedEvents is what retain did, as --json prints it.
type retainedEvents struct {
	journal.Retained
	Service service.Name `json:"service"`
	DryRun  bool         `json:"dry_run"`
	Archive string       `json:"archive,omitempty"`
}

func (c *journalRetainCmd) Run(e *env) error {
	if c.Before == 0 && c.OlderThan <= 0 {
		return usageError{errors.New("name what to delete: --before a position, or --older-than an age")}
	}
	cl, err := c.Remote.connect(e)
	if err != nil {
		return err
	}
	bar := e.progress()
	defer bar.done()
	name := service.Name(c.Service)
	want := service.Retention{Before: service.Position(c.Before), OlderThan: c.OlderThan, DryRun: c.DryRun ||
		c.Archive != "", Force: c.Force}
	if c.MaxKept != nil {
		want.MaxKept = cmp.Or(int64(*c.MaxKept), -1) // 0 means none
	}
	bar.at("looking for what may go, and taking snapshots", 0, 0, countUnit)
	done, err := cl.Retain(e.ctx, name, want)
	if err != nil {
		return err
	}
	out := retainedEvents{Service: name, DryRun: c.DryRun, Retained: done}
	if c.Archive != "" && !c.DryRun && done.Through > 0 {
		if out.Archive, err = c.archive(e, cl, done.Through, bar); err != nil {
			return err
		}
		// No more than the archive contains now.
		bar.at("deleting", 0, 0, countUnit)
		want.DryRun, want.Through = false, done.Through
		deleted, err := cl.Retain(e.ctx, name, want)
		if err != nil {
			return err
		}
		out.Retained = sinceLooked(done, deleted)
	}
	bar.done()
	e.print(out, func(w io.Writer) { printRetained(w, &out) })
	return nil
}

// sinceLooked is what was deleted, with the reason from the dry run why no more could be deleted: the
// deletion itself ends where the archive does.
func sinceLooked(looked, deleted journal.Retained) journal.Retained {
	deleted.Promised = deleted.Promised || looked.Promised
	if deleted.Held == 0 {
		deleted.Held, deleted.HeldBy = looked.Held, looked.HeldBy
	}
	return deleted
}

// archive saves the batches that are about to be deleted in a file.
func (c *journalRetainCmd) archive(e *env, cl *client.Client, through uint64, bar *progress) (string, error) {
	if err := os.MkdirAll(c.Archive, 0o700); err != nil {
		return "", err
	}
	stream, err := cl.Batches(e.ctx, service.Name(c.Service), through)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	name := filepath.Join(c.Archive, fmt.Sprintf("%s-%012d%s", c.Service, through, backup.Extension))
	var last, bytes uint64
	err = backup.Create(name, func(f *os.File) error {
		_, err := backup.Read(io.TeeReader(stream, f), backup.Handler{Batch: func(b *journal.Batch, data []byte) error {
			last, bytes = b.Sequence, bytes+uint64(len(data))
			bar.at("archiving", int64(bytes), 0, bytesUnit)
			return nil
		}})
		if err == nil && last != through {
			err = service.Errorf(service.KindUnavailable, "the archive ends with batch %d and should with %d", last,
				through)
		}
		return err
	})
	if journal.KindOf(err) == journal.KindCorrupt {
		err = service.Errorf(service.KindUnavailable, "the host ended the archive before it was whole; nothing was "+
			"deleted: %w", err)
	}
	return name, err
}

func printRetained(w io.Writer, r *retainedEvents) {
	verb := "deleted"
	if r.DryRun {
		verb = "would be deleted"
	}
	if r.Through == 0 {
		fmt.Fprintf(w, "%s: nothing %s; the first event has position %d\n", r.Service, verb, r.First)
	} else {
		fmt.Fprintf(w, "%s: %d events in %d batches, %s, %s; the first event has position %d\n", r.Service, r.Events,
			r.Batches, bytesUnit(int64(r.Bytes)), verb, r.First)
		fmt.Fprintf(w, "%d entities go on from snapshots\n", r.Entities-r.Uncovered-r.Kept)
	}
	if r.Kept > 0 {
		is := "are"
		if r.DryRun {
			is = "would be"
		}
		fmt.Fprintf(w, "%d events, %s, of %d entities %s kept apart, as these have no snapshot and none could be "+
			"had: %s\n",
			r.KeptEvents, bytesUnit(int64(r.KeptBytes)), r.Kept, is, safetext.Text(strings.Join(r.KeptOf, ", ")))
	}
	if r.Uncovered > 0 {
		fmt.Fprintf(w, "the states of %d entities are lost\n", r.Uncovered)
	}
	if r.Held > 0 {
		fmt.Fprintf(w, "the rest stays, as %d entities have no snapshot and none could be had, "+
			"and the bound of what is kept apart has no room for their events: %s\n", r.Held,
			safetext.Text(strings.Join(r.HeldBy, ", ")))
	}
	if r.Promised {
		fmt.Fprintln(w, "the rest stays, as answers to its command ids are still promised")
	}
	if r.Archive != "" {
		fmt.Fprintf(w, "what was deleted is in %s\n", relative(r.Archive))
	}
}
