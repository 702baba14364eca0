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

// commits yields the selected commits, by position and key.
func (f *selectFlags) commits(ctx context.Context, all *journalCmd, yield func(*journal.Committed) error) error {
	each := func(c *journal.Committed) error {
		last := c.First + journal.Position(len(c.Events)) - 1
		switch {
		case f.UpTo > 0 && uint64(c.First) > f.UpTo:
			return errEnough
		case last <= journal.Position(f.After) && (len(c.Events) > 0 || c.First <= journal.Position(f.After)),
			len(f.Key) > 0 && !slices.Contains(f.Key, c.Command.Key):
			return nil
		}
		return yield(c)
	}
	read := func() error {
		return all.with(ctx, func(j *commitlog.Journal) error {
			return j.Commits(ctx, journal.LogName(f.Log), journal.Position(f.After), each)
		})
	}
	if len(f.From) > 0 {
		read = func() error { return f.backups(ctx, each) }
	}
	if err := read(); !errors.Is(err, errEnough) {
		return err
	}
	return nil
}

// backups yields the log's commits from files.
func (f *selectFlags) backups(ctx context.Context, yield func(*journal.Committed) error) error {
	files := f.From
	if m, err := backup.ManifestOf(f.From[0]); len(files) > 1 || err != nil || !m.Piece {
		if files, err = backup.Files(f.From...); err != nil {
			return damaged(err)
		}
	}
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
			return damaged(err)
		}
	}
	return nil
}

// wantsEvent reports whether an event of a selected commit is selected, too.
func (f *selectFlags) wantsEvent(e *journal.Event) bool {
	return uint64(e.Position) > f.After && (f.UpTo == 0 || uint64(e.Position) <= f.UpTo) && f.wantsType(e.Type)
}

func (f *selectFlags) wantsType(t string) bool { return len(f.Type) == 0 || slices.Contains(f.Type, t) }

type journalDumpCmd struct {
	Select selectFlags `embed:""`
	Limit  int         `env:"-" placeholder:"N" help:"Stop after this number of commands. Default: no limit."`
}

func (c *journalDumpCmd) Run(e *env, all *journalCmd) error {
	left := c.Limit
	return c.Select.commits(e.ctx, all, func(at *journal.Committed) error {
		wanted := c.Select.wantsType(at.Command.Type)
		for i := range at.Events {
			wanted = wanted || c.Select.wantsType(at.Events[i].Type)
		}
		if !wanted {
			return nil
		}
		if err := writeJSON(e.out, dumped(at), false); err != nil {
			return err
		}
		if left--; left == 0 {
			return errEnough
		}
		return nil
	})
}

// dumpedCommit is one command with its events, as dump prints it. JSON bodies are embedded, others are
// base64.
type dumpedCommit struct {
	Position    uint64            `json:"position"` // of the first event
	Time        time.Time         `json:"time"`
	Key         string            `json:"key"`
	Version     uint64            `json:"version"` // of the entity afterwards
	CommandID   string            `json:"command_id"`
	Command     string            `json:"command"`
	Data        json.RawMessage   `json:"data,omitempty"`
	DataBase64  []byte            `json:"data_base64,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Module      string            `json:"module"`
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
}

func dumped(c *journal.Committed) dumpedCommit {
	d := dumpedCommit{
		Position: uint64(c.First), Time: instant(c.Time), Key: c.Command.Key, Version: uint64(c.Version),
		CommandID: string(c.Command.ID), Command: c.Command.Type, Metadata: pairs(c.Command.Metadata),
		Module: service.Digest(c.Command.Module).String(), Fuel: c.Command.Fuel, Events: []dumpedEvent{},
	}
	d.Data, d.DataBase64 = split(c.Command.Data)
	d.Reply, d.ReplyBase64 = split(c.Command.Reply)
	for i := range c.Events {
		ev := &c.Events[i]
		e := dumpedEvent{Position: uint64(ev.Position), Version: uint64(ev.Version), Type: ev.Type,
			Metadata: pairs(ev.Metadata)}
		e.Data, e.DataBase64 = split(ev.Data)
		d.Events = append(d.Events, e)
	}
	return d
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
