package gateway

import (
	"bytes"
	"log/slog"
	"net/http"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"

	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/internal/ws"
)

// writes records each call of Write.
type writes struct{ all [][]byte }

func (w *writes) Header() http.Header { return http.Header{} }
func (w *writes) WriteHeader(int)     {}

func (w *writes) Write(b []byte) (int, error) {
	w.all = append(w.all, bytes.Clone(b))
	return len(b), nil
}

// Many small texts are written together, large ones separately, and all in order. Without room for a buffer,
// each is written immediately.
func TestManyTextsAreGathered(t *testing.T) {
	for name, c := range map[string]struct {
		limit int64
		calls int
	}{
		"room":    {1 << 20, 4}, // the texts gathered before and after the large one, that one, and the rest
		"no room": {ws.MaxGathered - 1, 2*300 + 1},
	} {
		t.Run(name, func(t *testing.T) {
			flights := flight.NewAccounts(flight.Options{Host: budget.New(budget.Limits{budget.FlightBytes: 100 << 20}),
				ConnectionBytes: c.limit, Logger: slog.Default()})
			f := flights.Join("client", nil)
			defer f.Leave()
			w := &writes{}
			a := &answer{ResponseWriter: w, control: http.NewResponseController(w), flight: f}
			var texts []api.Pieces
			var want []byte
			add := func(n int) {
				text := bytes.Repeat([]byte{byte('a' + len(texts)%26)}, n)
				texts = append(texts, api.Text(text))
				want = append(want, text...)
			}
			for range 300 {
				add(100)
			}
			add(ws.MaxGathered + 1)
			for range 300 {
				add(120)
			}
			a.sendTexts(http.StatusOK, api.ContentJSON, texts...)
			a.end()
			if got := bytes.Join(w.all, nil); !bytes.Equal(got, want) {
				t.Errorf("%d bytes were written, in another order or not all of %d", len(got), len(want))
			}
			if len(w.all) != c.calls {
				t.Errorf("%d calls; want %d", len(w.all), c.calls)
			}
		})
	}
}
