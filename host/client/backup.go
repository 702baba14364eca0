package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Backup requests a backup of the whole host. It returns a stream, which the caller closes. A stream that
// broke off has no manifest at its end; reading it to the end shows that. o.Progress is called as the stream
// is read.
func (c *Client) Backup(ctx context.Context, o service.BackupOptions) (io.ReadCloser, error) {
	resp, err := c.do(ctx, request{
		method: http.MethodPost, path: "/v1/backup", header: contentType(api.ContentJSON), accept: api.ContentBackup,
		body: body(o.Since), length: int64(len(o.Since)),
	})
	if err != nil {
		return nil, err
	}
	return &download{ReadCloser: resp.Body, client: c, stage: "backing up", progress: o.Progress}, nil
}

// Batches requests a service's log, up to the batch with that sequence (0: to its end), as a stream like that
// of Backup.
func (c *Client) Batches(ctx context.Context, name service.Name, through uint64) (io.ReadCloser, error) {
	resp, err := c.do(ctx, request{
		method: http.MethodGet, path: servicePath(name, "/batches"), accept: api.ContentBackup,
		query: url.Values{"through": {strconv.FormatUint(through, 10)}},
	})
	if err != nil {
		return nil, err
	}
	return &download{ReadCloser: resp.Body, client: c}, nil
}

// Retain deletes the first events of a service.
func (c *Client) Retain(ctx context.Context, name service.Name, r service.Retention) (journal.Retained, error) {
	var done journal.Retained
	text, err := json.Marshal(api.RetentionOf(r))
	if err != nil {
		return done, err
	}
	err = c.call(ctx, request{
		method: http.MethodPost, path: servicePath(name, "/retention"), header: contentType(api.ContentJSON),
		body: body(text), length: int64(len(text)),
	}, &done)
	return done, err
}

// Journal returns the counters of the host's journal and, with measure, also the sizes of all logs.
func (c *Client) Journal(ctx context.Context, measure bool) (service.JournalStats, error) {
	var j service.JournalStats
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/journal",
		query: url.Values{"measure": {strconv.FormatBool(measure)}}}, &j)
	return j, err
}

// download is a stream from a host. It reports its progress, and gives errors of the connection their kind.
// Only one goroutine uses it.
type download struct {
	io.ReadCloser
	client   *Client
	stage    string
	progress func(service.Progress) // may be nil
	done     int64                  // bytes
}

// Read implements io.Reader.
func (d *download) Read(b []byte) (int, error) {
	n, err := d.ReadCloser.Read(b)
	if d.done += int64(n); n > 0 && d.progress != nil {
		d.progress(service.Progress{Stage: d.stage, Done: d.done})
	}
	if err != nil && err != io.EOF {
		err = d.client.broken(err, false)
	}
	return n, err
}
