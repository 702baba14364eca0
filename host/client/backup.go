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

// Backup asks for a backup of the whole host, which comes as the stream that is
// returned and that the caller closes. since is the manifest of the backup that it
// shall continue, as JSON, or nothing. A stream that broke off has no manifest at its
// end; whoever reads it to the end finds out.
func (c *Client) Backup(ctx context.Context, since []byte) (io.ReadCloser, error) {
	resp, err := c.do(ctx, request{
		method: http.MethodPost, path: "/v1/backup", header: contentType(api.ContentJSON), accept: api.ContentBackup,
		body: body(since), length: int64(len(since)),
	})
	if err != nil {
		return nil, err
	}
	return brokenStream{resp.Body, c}, nil
}

// Batches asks for a service's log, up to the batch with that sequence (0: to its end),
// as a stream like that of Backup.
func (c *Client) Batches(ctx context.Context, name service.Name, through uint64) (io.ReadCloser, error) {
	resp, err := c.do(ctx, request{
		method: http.MethodGet, path: servicePath(name, "/batches"), accept: api.ContentBackup,
		query: url.Values{"through": {strconv.FormatUint(through, 10)}},
	})
	if err != nil {
		return nil, err
	}
	return brokenStream{resp.Body, c}, nil
}

// Retain deletes the first events of a service.
func (c *Client) Retain(ctx context.Context, name service.Name, r api.Retention) (journal.Retained, error) {
	var done journal.Retained
	text, err := json.Marshal(r)
	if err != nil {
		return done, err
	}
	err = c.call(ctx, request{
		method: http.MethodPost, path: servicePath(name, "/retention"), header: contentType(api.ContentJSON),
		body: body(text), length: int64(len(text)),
	}, &done)
	return done, err
}

// Journal is what the host's journal counted; with measure, it counts the sizes of all
// logs too.
func (c *Client) Journal(ctx context.Context, measure bool) (service.JournalStats, error) {
	var j service.JournalStats
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/journal", query: url.Values{"measure": {strconv.FormatBool(measure)}}}, &j)
	return j, err
}

// brokenStream gives errors of a connection their kind.
type brokenStream struct {
	io.ReadCloser
	client *Client
}

// Read implements io.Reader.
func (s brokenStream) Read(b []byte) (int, error) {
	n, err := s.ReadCloser.Read(b)
	if err != nil && err != io.EOF {
		err = s.client.broken(err, false)
	}
	return n, err
}
