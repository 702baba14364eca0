package host_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// What an event is applied with when it is emitted is what it is applied with when its entity is brought back:
// key, version, time and its own metadata, without those that the host keeps of the command.
func TestEventsAreReplayedWithTheirInfo(t *testing.T) {
	t.Parallel()
	raced.Skip(t, "it compiles a Go guest")
	h := hosttest.New(t)
	h.MustDeploy("stamps", hosttest.Module(t, "github.com/bulkhead-wasm/bulkhead/host/testdata/stamps"))
	before := time.Now().UTC()
	var live string
	for _, id := range []service.CommandID{"one", "two"} {
		r := h.MustSend(service.Command{Service: "stamps", Key: "k", Type: "stamp", ID: id, Data: []byte(`{"note":"n"}`),
			Metadata: abi.Metadata(nil).AppendPair("tenant", "acme")})
		live = string(r.Data)
	}
	var book struct {
		Stamps []struct {
			Key, By, Tenant, Note string
			Version               uint64
			At                    time.Time
		}
	}
	if err := json.Unmarshal([]byte(live), &book); err != nil || len(book.Stamps) != 4 {
		t.Fatalf("%s, %v", live, err)
	}
	for i, s := range book.Stamps {
		by, note := "", "again"
		if i%2 == 0 {
			by, note = "command "+[]string{"one", "two"}[i/2], "n"
		}
		if s.Key != "k" || s.Version != uint64(i+1) || s.By != by || s.Note != note || s.Tenant != "" ||
			s.At.Before(before) || s.At != book.Stamps[i/2*2].At {
			t.Errorf("stamp %d is %+v", i, s)
		}
	}
	h.Restart()
	q, err := h.Query(t.Context(), service.Query{Service: "stamps", Key: "k", Type: "book", Data: []byte(`{}`)})
	if err != nil || string(q.Data) != live {
		t.Errorf("replayed, it is\n%s, %v\nand it was\n%s", q.Data, err, live)
	}
	st, err := h.Status("stamps")
	if err != nil || st.Counters.SnapshotsUsed > 0 || st.Counters.Hydrated == 0 {
		t.Errorf("it was not replayed: %+v, %v", st.Counters, err)
	}
}
