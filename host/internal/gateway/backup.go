package gateway

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strconv"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/backup"
)

// keeper copies and deletes the content of logs.
type keeper interface {
	// Backup writes a backup of everything. If it cannot continue the given backup, it returns an error of
	// KindConflicting before it writes anything.
	Backup(ctx context.Context, w io.Writer, o service.BackupOptions) (*backup.Manifest, error)
	// Batches writes a service's log, up to the batch with that sequence (0: to its end), as a piece that can
	// be imported.
	Batches(ctx context.Context, name service.Name, w io.Writer, through uint64) (*backup.Manifest, error)
	// Retain deletes the first events of a service. An error of KindConflicting comes before anything is
	// deleted.
	Retain(ctx context.Context, name service.Name, r service.Retention) (journal.Retained, error)
}

// keeperRoutes are the routes of a keeper.
func (s *Server) keeperRoutes() []route {
	return []route{
		{
			"GET", "/v1/services/{service}/batches", guarded,
			takes{params: []string{"through"}, answers: backups}, s.batches,
		},
		{"POST", "/v1/services/{service}/retention", guarded, takes{body: jsonBody}, s.retain},
		{"POST", "/v1/backup", guarded, takes{body: jsonBody, answers: backups}, s.backup},
	}
}

// maxManifest is the maximum size of the manifest of the backup to be continued, in bytes. A manifest has
// some hundred bytes for each service and module.
const maxManifest = 16 << 20

// maxBackups is the maximum number of concurrent backups.
const maxBackups = 2

// backup streams a backup of the whole host. The stream ends in a manifest. If something fails after the
// beginning, it breaks off without one.
func (s *Server) backup(a *answer, r *http.Request) error {
	u := s.uploads.begin() // it may be as large as a module
	defer u.end()
	since, err := s.readInto(a, r, maxManifest, u.hold)
	if err != nil {
		return err
	}
	if len(since) > 0 {
		if err := service.DecodeJSON(since, new(backup.Manifest)); err != nil {
			return prefixError("the manifest of a backup", err)
		}
	}
	select { // after the body has been read, so that a slow one takes no place
	case s.backups <- struct{}{}:
		defer func() { <-s.backups }()
	default:
		return &service.Error{Kind: service.KindOverloaded, Message: "other backups are being made",
			RetryAfter: flight.RetrySoon,
			Resource:   "backups", Used: int64(len(s.backups)), Limit: maxBackups}
	}
	return s.streamBackup(a, r, func(ctx context.Context, w io.Writer) error {
		_, err := s.keeper.Backup(ctx, w, service.BackupOptions{Since: since})
		return err
	})
}

// batches streams a service's log as a piece that can be imported.
func (s *Server) batches(a *answer, r *http.Request) error {
	name, err := pathService(r)
	if err != nil {
		return err
	}
	through := uint64(0)
	if text := a.params.Get("through"); text != "" {
		if through, err = strconv.ParseUint(text, 10, 64); err != nil {
			return service.Errorf(service.KindInvalid, "through is %.80q; it is the sequence of a batch", text)
		}
	}
	if _, err := s.reader.Head(name); err != nil {
		return err
	}
	return s.streamBackup(a, r, func(ctx context.Context, w io.Writer) error {
		_, err := s.keeper.Batches(ctx, name, w, through)
		return err
	})
}

// streamBackup answers with what write writes, or with its error if it has written nothing.
func (s *Server) streamBackup(a *answer, r *http.Request, write func(context.Context, io.Writer) error) error {
	if err := a.Take(backupPiece); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)() // a large backup does not delay a stop
	a.stream = true
	a.Header().Set("Content-Type", api.ContentBackup)
	w := bufio.NewWriterSize(pieces{a}, backupPiece)
	if err := write(ctx, w); err != nil {
		if s.stopping.Err() != nil {
			err = flight.Stopping()
		}
		return err
	}
	return w.Flush()
}

// retain deletes the first events of a service. It goes on if the client goes away, but not if the server
// stops: then the next start deletes the rest.
func (s *Server) retain(a *answer, r *http.Request) error {
	name, err := pathService(r)
	if err != nil {
		return err
	}
	body, err := s.readBody(a, r, maxDeployment)
	if err != nil {
		return err
	}
	var want api.Retention
	if err := service.DecodeJSON(body, &want); err != nil {
		return prefixError("the retention", err)
	}
	retention, err := want.Value()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	a.stream = true // its duration is not counted
	done, err := s.keeper.Retain(ctx, name, retention)
	if err != nil {
		return err
	}
	return a.json(http.StatusOK, done)
}

// backupPiece is how much of a backup is written at a time, in bytes.
const backupPiece = 256 << 10

// pieces gives the client its time for each piece.
type pieces struct{ a *answer }

// Write implements io.Writer.
func (p pieces) Write(b []byte) (int, error) {
	p.a.LimitWrite()
	n, err := p.a.Write(b)
	if err != nil {
		err = service.Errorf(service.KindCanceled, "the client went away: %w", err)
	}
	return n, err
}
