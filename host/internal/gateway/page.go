package gateway

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/streams"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// page collects the events of an answer: a page of JSON, or a batch of CloudEvents.
type page struct {
	a     *answer
	batch bool
	texts []api.Pieces
	count int // number of events
	size  int // their size in bytes
	full  bool
}

var comma = []byte(",")

// add adds an event, unless the page is full or there is no room; then the event is for the next page. It
// fails if there is no room for the first event.
func (p *page) add(e *streams.Event) error {
	if p.count > 0 && p.size+e.Size > pageBytes {
		p.full = true
		return nil
	}
	if err := p.a.Take(e.Size); err != nil {
		p.full = true
		if p.count > 0 {
			err = nil
		}
		return err
	}
	before := comma
	if p.count == 0 {
		before = p.start()
	}
	p.texts = append(p.texts, api.Text(before), e.Text)
	p.count++
	p.size += e.Size
	return nil
}

func (p *page) start() []byte {
	if p.batch {
		return api.BatchStart
	}
	return api.PageStart
}

// send answers with the page, whose end is given, in turns with others if it is large.
func (p *page) send(ctx context.Context, s *Server, end []byte) {
	if p.count == 0 {
		p.texts = append(p.texts, api.Text(p.start()))
	}
	contentType := api.ContentJSON
	if p.batch {
		contentType, end = api.ContentBatch, api.BatchEnd
	}
	p.a.pacer = s.traffic.Pace(ctx, "", p.size)
	p.a.sendTexts(http.StatusOK, contentType, append(p.texts, api.Text(end), api.Text(newline))...)
}

// goOn says in headers how to continue after a batch, which has no member for that: the parameter, and its
// value.
func (p *page) goOn(r *http.Request, param, next string, more bool) {
	if !p.batch {
		return
	}
	p.a.Header().Set(api.HeaderNext, next)
	if more {
		p.a.Header().Set("Link", nextLink(r.URL.RawQuery, param, next))
	}
}

// nextLink is the link to the page after that of a query. It is relative, as proxies may serve the host under
// other paths.
func nextLink(rawQuery, param, next string) string {
	const hex = "0123456789ABCDEF"
	b := []byte("<?")
	for pair := range strings.SplitSeq(rawQuery, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(name); err != nil || name == param || pair == "" {
			continue
		}
		for _, c := range []byte(pair) { // a comma in a list differs from an escaped one
			if c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>\^`+"`{|}", c) >= 0 {
				b = append(b, '%', hex[c>>4], hex[c&15])
			} else {
				b = append(b, c)
			}
		}
		b = append(b, '&')
	}
	return string(b) + param + "=" + url.QueryEscape(next) + `>; rel="next"`
}

// formOf is the form of events that belongs to the media type of an answer.
func formOf(contentType string) service.EventForm {
	if contentType == api.ContentJSON {
		return service.NativeEvent
	}
	return service.CloudEvent
}

// eventsAs is the media type in which a client wants events: a page of JSON, a batch of CloudEvents, or a
// stream. A HEAD request cannot ask for a stream.
func eventsAs(r *http.Request) string {
	if r.Method == http.MethodHead {
		return preferred(r, api.ContentBatch)
	}
	return preferred(r, api.ContentSSE, api.ContentBatch)
}
