package gateway

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/streams"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func pathService(r *http.Request) (service.Name, error) {
	return service.ParseName(r.PathValue("service"))
}

func pathEntity(r *http.Request) (service.Name, service.Key, error) {
	name, err := pathService(r)
	if err != nil {
		return "", "", err
	}
	key, err := service.ParseKey(r.PathValue("key"))
	return name, key, err
}

// Bounds of pages and filters.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// parseLimit parses the maximum number of events of a page.
func parseLimit(s string) (int, error) {
	if s == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxLimit {
		return 0, service.Errorf(service.KindInvalid, "limit is %.80q; it may be 1 to %d", s, maxLimit)
	}
	return n, nil
}

// listParam reads a list from a URL's query: a parameter that may be repeated, each time with values
// separated by commas. A comma within a value is written %2C, so the list is split before it is decoded.
func listParam(rawQuery, name string) ([]string, error) {
	var all []string
	for pair := range strings.SplitSeq(rawQuery, "&") {
		n, list, _ := strings.Cut(pair, "=")
		if n, err := url.QueryUnescape(n); err != nil || n != name || list == "" {
			continue
		}
		for part := range strings.SplitSeq(list, ",") {
			value, err := url.QueryUnescape(part)
			if err != nil {
				return nil, service.Errorf(service.KindInvalid, "%s has a malformed escape", name)
			}
			if len(all) == streams.MaxFilter {
				return nil, service.Errorf(service.KindInvalid, "%s lists more than %d values", name, streams.MaxFilter)
			}
			all = append(all, value)
		}
	}
	return all, nil
}

// place finds where a reader wants to begin. The service must exist. It may wait for a turn to read the log.
func (s *Server) place(ctx context.Context, name service.Name, text string) (service.Cursor, error) {
	if _, err := s.reader.Head(name); err != nil {
		return service.Cursor{}, err
	}
	from, err := service.ParseFrom(text)
	if err != nil {
		return service.Cursor{}, err
	}
	return s.placeOf(ctx, name, from)
}

// placeAfter finds the place after an event, given by its id or cursor.
func (s *Server) placeAfter(ctx context.Context, name service.Name, id string) (service.Cursor, error) {
	return s.placeOf(ctx, name, service.From{Kind: service.FromCursor, Cursor: id})
}

func (s *Server) placeOf(ctx context.Context, name service.Name, from service.From) (service.Cursor, error) {
	ctx, cancel := s.wait(ctx, time.Time{})
	defer cancel()
	return s.reader.Place(ctx, name, from)
}

// entityVersion parses the version that a reader of one entity's events has seen; ok is false if the text is
// not a number, so it may be a cursor.
func entityVersion(after string) (v service.Version, ok bool) {
	if after == "" {
		return 0, true
	}
	n, err := strconv.ParseUint(after, 10, 64)
	return service.Version(n), err == nil
}

// entityPlace finds the version after which a reader of one entity's events wants to begin: a number, or a
// cursor, whose event may be of another entity.
func (s *Server) entityPlace(
	ctx context.Context, name service.Name, key service.Key, after string,
) (service.Version, error) {
	if v, ok := entityVersion(after); ok {
		return v, nil
	}
	at, err := s.placeAfter(ctx, name, after)
	if v, ok := s.keptVersion(ctx, name, key, after, err); ok {
		return v, nil
	}
	if err != nil {
		return 0, err
	}
	return s.reader.EntityVersion(ctx, name, key, at.Position)
}

// keptVersion is the version of an entity's kept event, whose cursor was refused as a place in the log.
func (s *Server) keptVersion(
	ctx context.Context, name service.Name, key service.Key, cursor string, refused error,
) (service.Version, bool) {
	if service.KindOf(refused) != service.KindBadCursor {
		return 0, false
	}
	v, ok, err := s.reader.KeptVersion(ctx, name, key, cursor)
	return v, ok && err == nil
}
