package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/backup"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
)

// journalExportCmd writes a part of a log to a file.
type journalExportCmd struct {
	Select    selectFlags `embed:""`
	Output    string      `short:"o" env:"-" type:"path" placeholder:"FILE" help:"Name of the new file. Default: standard output."`
	Commands  bool        `env:"-" help:"Write the commands too, each before its events. The commands of kept events are deleted."`
	Snapshots bool        `env:"-" help:"Write the snapshots first that retentions have left in place of events, one for each entity. It cannot be used with --from."`
	Native    bool        `env:"-" help:"Write whole batches for journal import, from the batch that holds --after to the batch that holds --up-to. It cannot be used with --key or --type."`
}

// exportedLine is one line: an event, or the command that caused the following events. JSON data is embedded,
// other data is base64.
type exportedLine struct {
	Kind        string            `json:"kind"` // event or command
	Log         string            `json:"log"`
	Position    uint64            `json:"position"` // of a command: of its first event
	Key         string            `json:"key"`
	Version     uint64            `json:"version"` // of a command: of the entity afterwards
	Type        string            `json:"type"`
	Time        time.Time         `json:"time"`
	ContentType string            `json:"content_type,omitempty"`
	Data        json.RawMessage   `json:"data,omitempty"`
	DataBase64  []byte            `json:"data_base64,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Emitted     map[string]string `json:"emitted_metadata,omitempty"` // of an event: what its module gave it
	CommandID   string            `json:"command_id"`
	Command     string            `json:"command,omitempty"` // of an event: the command's type
	CommandTime time.Time         `json:"command_time"`
	Events      *int              `json:"events,omitempty"` // of a command: number of events that follow
	Module      string            `json:"module,omitempty"`
	Fuel        uint64            `json:"fuel,omitempty"`
	Reply       json.RawMessage   `json:"reply,omitempty"`
	ReplyBase64 []byte            `json:"reply_base64,omitempty"`
	Kept        bool              `json:"kept,omitempty"` // of an event: a retention has kept it apart from the log
}

// exportedSnapshot is the line of a snapshot that stands for deleted events.
type exportedSnapshot struct {
	Kind        string          `json:"kind"` // snapshot
	Log         string          `json:"log"`
	Key         string          `json:"key"`
	Version     uint64          `json:"version"` // up to which its events are in it
	StateSchema uint32          `json:"state_schema"`
	Data        json.RawMessage `json:"data,omitempty"`
	DataBase64  []byte          `json:"data_base64,omitempty"`
}

// split puts JSON in one member and everything else in the other.
func split(b []byte) (text json.RawMessage, other []byte) {
	if len(b) == 0 {
		return nil, nil
	}
	if utf8.Valid(b) && json.Valid(b) {
		return b, nil
	}
	return nil, b
}

func exportedEvent(e *journal.Event) exportedLine {
	l := exportedLine{
		Kind: "event", Log: string(e.Log), Position: uint64(e.Position), Key: e.Key, Version: uint64(e.Version),
		Type: e.Type,
		Time: instant(e.Time), ContentType: e.ContentType, Metadata: pairs(abi.Metadata(e.Metadata)),
		Emitted: pairs(service.OwnMetadata(e.Metadata)), CommandID: string(e.CommandID), Command: e.CommandType,
		CommandTime: instant(e.CommandTime),
	}
	l.Data, l.DataBase64 = split(e.Data)
	return l
}

func exportedCommand(c *journal.Committed) exportedLine {
	n := len(c.Events)
	l := exportedLine{
		Kind: "command", Log: string(c.Log), Position: uint64(c.First), Key: c.Command.Key, Version: uint64(c.Version),
		Type: c.Command.Type,
		Time: instant(c.Time), Metadata: pairs(abi.Metadata(c.Command.Metadata)), CommandID: string(c.Command.ID),
		CommandTime: instant(c.Command.Time), Events: &n, Module: service.Digest(c.Command.Module).String(),
		Fuel: c.Command.Fuel,
	}
	l.Data, l.DataBase64 = split(c.Command.Data)
	l.Reply, l.ReplyBase64 = split(c.Command.Reply)
	return l
}

func (c *journalExportCmd) Run(e *env, all *journalCmd) error {
	switch {
	case c.Native:
		return c.native(e, all)
	case c.Snapshots && len(c.Select.From) > 0:
		return usageError{errors.New("--snapshots needs the index of --data: restore the backup first")}
	}
	if c.Output == "" {
		return c.lines(e, all, e.out)
	}
	return backup.Create(c.Output, func(f *os.File) error { return c.lines(e, all, f) })
}

func (c *journalExportCmd) lines(e *env, all *journalCmd, out io.Writer) error {
	w := bufio.NewWriterSize(out, 256<<10)
	event := func(ev *journal.Event, kept bool) error {
		if !c.Select.wantsEvent(ev) {
			return nil
		}
		line := exportedEvent(ev)
		line.Kept = kept
		return writeJSON(w, line, false)
	}
	to := selected{
		kept: func(ev *journal.Event) error { return event(ev, true) },
		commit: func(at *journal.Committed) error {
			if c.Commands && c.Select.wantsType(at.Command.Type) {
				if err := writeJSON(w, exportedCommand(at), false); err != nil {
					return err
				}
			}
			for i := range at.Events {
				if err := event(&at.Events[i], false); err != nil {
					return err
				}
			}
			return nil
		},
	}
	if c.Snapshots {
		to.snapshot = func(key string, s *journal.Snapshot) error { return writeJSON(w, c.snapshot(key, s), false) }
	}
	return errors.Join(c.Select.each(e.ctx, all, to), w.Flush())
}

func (c *journalExportCmd) snapshot(key string, s *journal.Snapshot) exportedSnapshot {
	l := exportedSnapshot{Kind: "snapshot", Log: c.Select.Log, Key: key, Version: uint64(s.Version),
		StateSchema: s.Schema}
	l.Data, l.DataBase64 = split(s.State)
	return l
}

func (c *journalExportCmd) native(e *env, all *journalCmd) error {
	switch {
	case len(c.Select.Key)+len(c.Select.Type) > 0 || c.Commands || c.Snapshots || len(c.Select.From) > 0:
		return usageError{errors.New("--native writes batches as they stand in the log of --data: --key, --type, " +
			"--commands, --snapshots and --from do not go with it")}
	case filepath.Ext(c.Output) != backup.Extension:
		return usageError{fmt.Errorf("--native needs --output with a file whose name ends in %s", backup.Extension)}
	}
	bar := e.progress()
	defer bar.done()
	var m *backup.Manifest
	err := all.with(e.ctx, func(j *commitlog.Journal) error {
		return backup.Create(c.Output, func(f *os.File) (err error) {
			o := backup.Options{Progress: func(p backup.Progress) { bar.at("exporting", int64(p.Bytes), 0, bytesUnit) }}
			m, err = backup.WritePiece(e.ctx, f, j, journal.LogName(c.Select.Log), journal.Position(c.Select.After),
				journal.Position(c.Select.UpTo), o)
			return err
		})
	})
	if err != nil {
		return damaged(err)
	}
	bar.done()
	e.print(backedUp{c.Output, m}, func(w io.Writer) { printManifest(w, relative(c.Output), m) })
	return nil
}

// journalImportCmd appends exported batches to a journal.
type journalImportCmd struct {
	Files []string `arg:"" type:"existingfile" name:"file" help:"Files of journal export --native, in order. Batches that the journal already has are skipped."`
}

func (c *journalImportCmd) Run(e *env, all *journalCmd) error {
	if err := os.MkdirAll(all.Data, 0o700); err != nil {
		return err
	}
	opened, err := storage.Open(host.JournalDir(all.Data), storage.Options{})
	if err != nil {
		return all.openError(err)
	}
	bar := e.progress()
	defer bar.done()
	var done []backedUp
	for _, name := range c.Files {
		m, err := backup.Import(e.ctx, opened, name, backup.RestoreOptions{Progress: func(p backup.Progress) {
			bar.at("importing "+relative(name), int64(p.Bytes), 0, bytesUnit)
		}})
		if err != nil {
			return errors.Join(damaged(err), opened.Close())
		}
		done = append(done, backedUp{name, m})
	}
	if err := opened.Close(); err != nil {
		return err
	}
	bar.at("indexing", 0, 0, countUnit)
	var logs []journal.LogInfo
	if err := all.with(e.ctx, func(j *commitlog.Journal) error { logs = j.Logs(); return nil }); err != nil {
		return err
	}
	bar.done()
	e.print(map[string]any{"imported": done, "logs": logs}, func(w io.Writer) {
		for _, d := range done {
			printManifest(w, relative(d.File), d.Manifest)
		}
		fmt.Fprintf(w, "imported into %s\n", relative(all.Data))
	})
	return nil
}
