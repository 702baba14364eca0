package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/backup"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

// selectFlags select a part of a log, and say where the log is.
type selectFlags struct {
	Log   string   `arg:"" help:"Name of the service; _host is the host's own log."`
	From  []string `env:"-" type:"existing" placeholder:"BACKUP" help:"Read a directory of backups, or the files of one backup, instead of --data. May be repeated."`
	After uint64   `env:"-" placeholder:"POSITION" help:"Start after this position."`
	UpTo  uint64   `env:"-" name:"up-to" placeholder:"POSITION" help:"Stop after this position. Default: the end of the log."`
	Key   []string `env:"-" placeholder:"KEY" help:"Show only this entity. May be repeated."`
	Type  []string `env:"-" placeholder:"TYPE" help:"Show only commands and events of this type. May be repeated."`
}

// selected gets what is selected of a log.
type selected struct {
	kept   func(*journal.Event) error     // each kept event, before the commits
	commit func(*journal.Committed) error // each commit that may have selected events

	// snapshot, if not nil, gets each snapshot that stands for deleted events, before all else. It is not called for
	// backups.
	snapshot func(key string, s *journal.Snapshot) error
}

// each yields what is selected: kept events by position, key and type, and commits by position and key. If the kept
// events are damaged, it yields the commits all the same, and returns the error afterwards.
func (f *selectFlags) each(ctx context.Context, all *journalCmd, to selected) error {
	kept := func(e *journal.Event) error {
		if !f.wantsKey(e.Key) || !f.wantsPosition(e.Position) || !f.wantsType(e.Type) && !f.wantsType(e.CommandType) {
			return nil
		}
		return to.kept(e)
	}
	commit := func(c *journal.Committed) error {
		last := c.First + journal.Position(len(c.Events)) - 1
		switch {
		case f.UpTo > 0 && uint64(c.First) > f.UpTo:
			return errEnough
		case last <= journal.Position(f.After) && (len(c.Events) > 0 || c.First <= journal.Position(f.After)),
			!f.wantsKey(c.Command.Key):
			return nil
		}
		return to.commit(c)
	}
	if len(f.From) > 0 {
		return f.backups(ctx, kept, commit)
	}
	return all.with(ctx, func(j *commitlog.Journal) error {
		log := journal.LogName(f.Log)
		if err := f.snapshots(ctx, j, to.snapshot); err != nil {
			return err
		}
		return keptFirst(func() error { return j.Kept(ctx, log, kept) },
			func() error { return j.Commits(ctx, log, journal.Position(f.After), commit) })
	})
}

// snapshots yields the snapshots that stand for deleted events. Those of entities whose events are all kept are not
// needed.
func (f *selectFlags) snapshots(
	ctx context.Context, j *commitlog.Journal, yield func(string, *journal.Snapshot) error,
) error {
	if yield == nil {
		return nil
	}
	return j.AllTrimmed(ctx, journal.LogName(f.Log), "", func(t journal.Trimmed) error {
		if t.Snapshot == nil || t.Gone() == 0 || !f.wantsKey(t.Key) {
			return nil
		}
		return yield(t.Key, t.Snapshot)
	})
}

// keptFirst reads the kept events of a log and then its commits, unless errEnough ends it before.
func keptFirst(kept, commits func() error) error {
	err := kept()
	if err != nil && journal.KindOf(err) != journal.KindCorrupt {
		return unlessEnough(err)
	}
	if later := unlessEnough(commits()); later != nil {
		return later
	}
	return err
}

func unlessEnough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// backups yields the log's kept events and commits from files.
func (f *selectFlags) backups(
	ctx context.Context, kept func(*journal.Event) error, commit func(*journal.Committed) error,
) error {
	files := f.From
	if m, err := backup.ManifestOf(f.From[0]); len(files) > 1 || err != nil || !m.Piece {
		if files, err = backup.Files(f.From...); err != nil {
			return damaged(err)
		}
	}
	err := keptFirst(func() error { return backup.Kept(ctx, files, journal.LogName(f.Log), kept) },
		func() error { return f.committed(ctx, files, commit) })
	if err != nil {
		return damaged(err)
	}
	return nil
}

// committed yields the log's commits from files.
func (f *selectFlags) committed(ctx context.Context, files []string, yield func(*journal.Committed) error) error {
	for _, name := range files {
		in, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = backup.Read(in, backup.Handler{Commit: func(c *journal.Committed) error {
			if err := ctx.Err(); err != nil || c.Log != journal.LogName(f.Log) {
				return err
			}
			return yield(c)
		}})
		if err := errors.Join(err, in.Close()); err != nil {
			return err
		}
	}
	return nil
}

// wantsEvent reports whether an event of a selected commit is selected, too.
func (f *selectFlags) wantsEvent(e *journal.Event) bool {
	return f.wantsPosition(e.Position) && f.wantsType(e.Type)
}

func (f *selectFlags) wantsPosition(p journal.Position) bool {
	return uint64(p) > f.After && (f.UpTo == 0 || uint64(p) <= f.UpTo)
}

func (f *selectFlags) wantsKey(key string) bool {
	return len(f.Key) == 0 || slices.Contains(f.Key, key)
}

func (f *selectFlags) wantsType(t string) bool { return len(f.Type) == 0 || slices.Contains(f.Type, t) }

type journalDumpCmd struct {
	Select selectFlags `embed:""`
	Limit  int         `env:"-" placeholder:"N" help:"Stop after this number of commands. Default: no limit."`
}

func (c *journalDumpCmd) Run(e *env, all *journalCmd) error {
	left := c.Limit
	write := func(d dumpedCommit) error {
		if err := writeJSON(e.out, d, false); err != nil {
			return err
		}
		if left--; left == 0 {
			return errEnough
		}
		return nil
	}
	return c.Select.each(e.ctx, all, selected{
		kept: func(ev *journal.Event) error { return write(dumpedKept(ev)) },
		commit: func(at *journal.Committed) error {
			wanted := c.Select.wantsType(at.Command.Type)
			for i := range at.Events {
				wanted = wanted || c.Select.wantsType(at.Events[i].Type)
			}
			if !wanted {
				return nil
			}
			return write(dumped(at))
		},
	})
}

// dumpedCommit is one command with its events, as dump prints it. JSON bodies are embedded, others are
// base64. Of the command of a kept event only its id and type are left; it is printed once for each of its kept events.
type dumpedCommit struct {
	Kept        bool              `json:"kept,omitempty"`
	Position    uint64            `json:"position"` // of the first event
	Time        time.Time         `json:"time"`
	CommandTime time.Time         `json:"command_time"`
	Key         string            `json:"key"`
	Version     uint64            `json:"version"` // of the entity afterwards
	CommandID   string            `json:"command_id"`
	Command     string            `json:"command"`
	Data        json.RawMessage   `json:"data,omitempty"`
	DataBase64  []byte            `json:"data_base64,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Module      string            `json:"module,omitempty"`
	Fuel        uint64            `json:"fuel,omitempty"`
	Reply       json.RawMessage   `json:"reply,omitempty"`
	ReplyBase64 []byte            `json:"reply_base64,omitempty"`
	Events      []dumpedEvent     `json:"events"`
}

type dumpedEvent struct {
	Position   uint64            `json:"position"`
	Version    uint64            `json:"version"`
	Type       string            `json:"type"`
	Data       json.RawMessage   `json:"data,omitempty"`
	DataBase64 []byte            `json:"data_base64,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Emitted    map[string]string `json:"emitted_metadata,omitempty"` // what the event's module gave it
}

func dumped(c *journal.Committed) dumpedCommit {
	d := dumpedCommit{
		Position: uint64(c.First), Time: instant(c.Time), Key: c.Command.Key, Version: uint64(c.Version),
		CommandID: string(c.Command.ID), Command: c.Command.Type, CommandTime: instant(c.Command.Time),
		Metadata: pairs(c.Command.Metadata),
		Module:   service.Digest(c.Command.Module).String(), Fuel: c.Command.Fuel, Events: []dumpedEvent{},
	}
	d.Data, d.DataBase64 = split(c.Command.Data)
	d.Reply, d.ReplyBase64 = split(c.Command.Reply)
	for i := range c.Events {
		d.Events = append(d.Events, dumpedOf(&c.Events[i]))
	}
	return d
}

func dumpedKept(e *journal.Event) dumpedCommit {
	return dumpedCommit{Kept: true, Position: uint64(e.Position), Time: instant(e.Time), Key: e.Key,
		Version: uint64(e.Version), CommandID: string(e.CommandID), Command: e.CommandType,
		CommandTime: instant(e.CommandTime), Events: []dumpedEvent{dumpedOf(e)}}
}

func dumpedOf(ev *journal.Event) dumpedEvent {
	e := dumpedEvent{Position: uint64(ev.Position), Version: uint64(ev.Version), Type: ev.Type,
		Metadata: pairs(ev.Metadata), Emitted: pairs(service.OwnMetadata(ev.Metadata))}
	e.Data, e.DataBase64 = split(ev.Data)
	return e
}

// pairs are the pairs of metadata; nil if there are none.
func pairs(m abi.Metadata) (all map[string]string) {
	for name, value := range service.Pairs(m) {
		if all == nil {
			all = map[string]string{}
		}
		all[string(name)] = string(value)
	}
	return all
}

func instant(t journal.UnixNano) time.Time { return time.Unix(0, int64(t)).UTC() }
