package gateway

import (
	"bufio"
	"context"
	"net/http"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// maxManifest bounds the manifest of the backup that is to be continued, in bytes:
// some hundred bytes a service and a module.
const maxManifest = 16 << 20

// maxBackups bounds the backups that are being made at a time.
const maxBackups = 2

// backup streams a backup of the whole host. The stream ends in a manifest, and
// breaks off without one if something fails when it has begun.
func (s *Server) backup(a *answer, r *http.Request) error {
	select {
	case s.backups <- struct{}{}:
		defer func() { <-s.backups }()
	default:
		return &service.Error{Kind: service.KindOverloaded, Message: "other backups are being made", RetryAfter: retrySoon}
	}
	since, err := s.readBody(a, r, maxManifest)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)() // a big backup is no reason to go on
	a.stream = true
	a.Header().Set("Content-Type", api.ContentBackup)
	// What is refused at once becomes a problem, as nothing has been written then.
	w := bufio.NewWriterSize(pieces{a}, backupPiece)
	if err := s.backend.Backup(ctx, w, since); err != nil {
		if s.stopping.Err() != nil {
			err = errStopping()
		}
		return err
	}
	return w.Flush()
}

// backupPiece is how much of a backup is written at a time, in bytes.
const backupPiece = 256 << 10

// pieces gives the client its time for each piece.
type pieces struct{ a *answer }

// Write implements io.Writer.
func (p pieces) Write(b []byte) (int, error) {
	p.a.limitWrite(len(b))
	n, err := p.a.Write(b)
	if err != nil {
		err = service.Errorf(service.KindCanceled, "the client went away: %w", err)
	}
	return n, err
}
