package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Quarantine reads a page of the entities of a service that its module cannot hydrate, by key: at most limit (0: as
// many as the host chooses) of those after a key (empty: all).
func (c *Client) Quarantine(
	ctx context.Context, name service.Name, after service.Key, limit int,
) (service.QuarantinePage, error) {
	q := url.Values{}
	if after != "" {
		q.Set("after", string(after))
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	var p service.QuarantinePage
	err := c.call(ctx, request{method: http.MethodGet, path: servicePath(name, "/quarantine"), query: q}, &p)
	return p, err
}

// Release makes the host try at once to hydrate an entity. The error says why it still cannot.
func (c *Client) Release(ctx context.Context, name service.Name, key service.Key) (service.Released, error) {
	var r service.Released
	err := c.call(ctx, request{method: http.MethodPost, path: entityPath(name, key, "/release")}, &r)
	return r, err
}
