package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/backup"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// journalBackupCmd makes a backup through a running host, or of a directory.
type journalBackupCmd struct {
	To      string `arg:"" type:"path" help:"Directory of backups, created if it does not exist. The first backup is complete, each further one adds a file with what is new. Or the name of a new file that ends in .bulkhead."`
	Since   string `env:"-" type:"existingfile" placeholder:"FILE" help:"Backup that a single file continues. Default: the file is a complete backup."`
	Full    bool   `env:"-" help:"Start a directory of backups again with a complete backup."`
	Offline bool   `env:"-" help:"Back up the directory --data, which no host uses, instead of a running host."`

	Remote remoteFlags `embed:"" group:"Host"`
}

func (c *journalBackupCmd) Run(e *env, all *journalCmd) error {
	name, since, err := c.target()
	if err != nil {
		return damaged(err)
	}
	var o service.BackupOptions
	if since != nil {
		if o.Since, err = json.Marshal(since); err != nil {
			return err
		}
	}
	bar := e.progress()
	defer bar.done()
	var m *backup.Manifest
	err = backup.Create(name, func(f *os.File) error {
		if c.Offline {
			if _, err := os.Stat(host.JournalDir(all.Data)); err != nil {
				return usageError{fmt.Errorf("there is no journal in %s: %w", all.Data, err)}
			}
			o.Progress = func(p service.Progress) { bar.at(p.Stage, p.Done, p.Total, countUnit) }
			m, err = host.BackupDir(e.ctx, all.Data, f, o)
			return err
		}
		o.Progress = func(p service.Progress) { bar.at(p.Stage, p.Done, p.Total, bytesUnit) }
		m, err = c.fetch(e, f, o)
		return err
	})
	if err != nil {
		return damaged(err)
	}
	bar.done()
	e.print(backedUp{name, m}, func(w io.Writer) { printManifest(w, relative(name), m) })
	return nil
}

// backedUp is a backup as --json prints it.
type backedUp struct {
	File string `json:"file"`
	*backup.Manifest
}

// target finds the file to write, and the backup that it continues.
func (c *journalBackupCmd) target() (name string, since *backup.Manifest, err error) {
	info, err := os.Stat(c.To)
	isDir := err == nil && info.IsDir()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", nil, err
	}
	if !isDir && filepath.Ext(c.To) == backup.Extension {
		if c.Full {
			return "", nil, usageError{errors.New("--full is for a directory of backups; a file is complete if " +
				"--since does not say otherwise")}
		}
		if c.Since != "" {
			if since, err = backup.ManifestOf(c.Since); err != nil {
				return "", nil, err
			}
		}
		return c.To, since, nil
	}
	if c.Since != "" {
		return "", nil, usageError{fmt.Errorf("--since is for a single file, whose name ends in %s; in a directory "+
			"each backup continues the last", backup.Extension)}
	}
	if err := os.MkdirAll(c.To, 0o700); err != nil {
		return "", nil, err
	}
	return backup.Next(c.To, c.Full)
}

// fetch receives a backup from a host, and checks it meanwhile.
func (c *journalBackupCmd) fetch(e *env, to io.Writer, o service.BackupOptions) (*backup.Manifest, error) {
	cl, err := c.Remote.connect(e)
	if err != nil {
		return nil, err
	}
	stream, err := cl.Backup(e.ctx, o)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	m, err := backup.Read(io.TeeReader(stream, to), backup.Handler{})
	if journal.KindOf(err) == journal.KindCorrupt {
		return nil, service.Errorf(service.KindUnavailable, "the host ended the backup before it was whole; its log "+
			"says why: %w", err)
	}
	return m, err
}

// printManifest prints the content of a file.
func printManifest(w io.Writer, name string, m *backup.Manifest) {
	what := "a complete backup"
	if m.Previous != "" {
		what = "what is new since the backup before it"
	}
	if m.Piece {
		what = "a piece of a log"
	}
	fmt.Fprintf(w, "%s: %s, %d batches, %s\n", name, what, m.Batches, bytesUnit(int64(m.Bytes)))
	for _, l := range m.Logs {
		fmt.Fprintf(w, "%s: up to position %d; %d events in %d batches here\n", safetext.Text(string(l.Name)),
			l.Position, l.Events, l.Batches)
	}
}

// damaged turns the error of a damaged file into a failed check.
func damaged(err error) error {
	var known *service.Error
	if errors.As(err, &known) {
		return err
	}
	switch journal.KindOf(err) {
	case journal.KindCorrupt:
		return checkError{err.Error()}
	case journal.KindInvalid:
		return service.Errorf(service.KindInvalid, "%w", err)
	}
	return err
}

// verifyBackups verifies backup files.
func verifyBackups(e *env, names []string) error {
	files, err := names, error(nil)
	if m, damage := backup.ManifestOf(names[0]); len(names) > 1 || damage != nil || !m.Piece {
		if files, err = backup.Files(names...); err != nil {
			return damaged(err)
		}
	}
	bar := e.progress()
	defer bar.done()
	m, err := backup.Check(e.ctx, files, backup.RestoreOptions{Progress: func(p backup.Progress) {
		bar.at("verifying", int64(p.Bytes), 0, bytesUnit)
	}})
	if err != nil {
		return damaged(err)
	}
	bar.done()
	e.print(map[string]any{"files": files, "manifest": m}, func(w io.Writer) {
		for _, l := range m.Logs {
			fmt.Fprintf(w, "%s: up to position %d, batch %d\n", safetext.Text(string(l.Name)), l.Position, l.Sequence)
		}
		fmt.Fprintf(w, "%d files of backups verified: no problem found\n", len(files))
	})
	return nil
}

// journalRestoreCmd makes a data directory from backups.
type journalRestoreCmd struct {
	From     []string `arg:"" type:"existing" name:"from" help:"Directory of backups, or files in any order: a complete backup and those that continue it."`
	Force    bool     `env:"-" help:"Replace --data. The old directory is kept next to it under another name."`
	NoVerify bool     `env:"-" name:"no-verify" help:"Do not verify the whole journal before it replaces --data."`

	answersFlag
}

// restoredDir is what restore did, as --json prints it.
type restoredDir struct {
	Data     string           `json:"data"`
	Files    []string         `json:"files"`
	Replaced string           `json:"replaced,omitempty"`
	Manifest *backup.Manifest `json:"manifest"`
	Report   *verify.Report   `json:"report,omitempty"`
}

func (c *journalRestoreCmd) Run(e *env, all *journalCmd) error {
	files, err := backup.Files(c.From...)
	if err != nil {
		return damaged(err)
	}
	bar := e.progress()
	defer bar.done()
	r, err := host.RestoreDir(e.ctx, all.Data, files, host.RestoreOptions{
		Force: c.Force, NoVerify: c.NoVerify, AnswerWindow: c.Answers,
		Progress: func(p service.Progress) { bar.at(p.Stage, p.Done, p.Total, countUnit) },
	})
	if err != nil {
		return damaged(err)
	}
	bar.done()
	e.print(restoredDir{all.Data, files, r.Replaced, r.Manifest, r.Report}, func(w io.Writer) {
		for _, l := range r.Manifest.Logs {
			fmt.Fprintf(w, "%s: up to position %d\n", safetext.Text(string(l.Name)), l.Position)
		}
		proof := "not verified"
		if r.Report != nil {
			proof = "verified, no problem found"
		}
		fmt.Fprintf(w, "%s holds what %d files of backups say: %s\n", relative(all.Data), len(files), proof)
		if r.Replaced != "" {
			fmt.Fprintf(w, "what was there before is in %s\n", relative(r.Replaced))
		}
	})
	return nil
}
