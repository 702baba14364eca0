package guest_test

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

type ledger struct {
	Kept [][]string     `json:"kept"`
	Sum  int            `json:"sum"`
	Last *int           `json:"last"`
	Tags map[string]int `json:"tags"`
}

type noted struct {
	Lines []string       `json:"lines"`
	By    int            `json:"by"`
	Ref   *int           `json:"ref"`
	Tags  map[string]int `json:"tags"`
}

func (e noted) Apply(s *ledger) {
	s.Kept = append(s.Kept, e.Lines)
	s.Sum += e.By
	if e.Ref != nil {
		s.Last = e.Ref
	}
	if e.Tags != nil {
		s.Tags = e.Tags
	}
}

// Replayed events are decoded into one place. None has anything of the one before, and
// what a state keeps of one is not touched by the next, nor by one that is refused.
func TestReplayedEventsAreApart(t *testing.T) {
	s := guest.New[ledger]("ledger").Events(noted{})
	request := abi.AppendOpen(nil, 0, 0, "k", nil)
	for i, body := range []string{
		`{"lines":["a","b"],"by":1,"ref":7,"tags":{"x":1}}`, `{"lines":["c"]}`, `{}`, `{"lines":["d"],"by":2,"ref":8}`,
	} {
		request = abi.AppendApply(request, 0, 0, uint64(i+1), 0, []byte(body), nil)
	}
	if got := say(t, s, request); got != "" {
		t.Fatal(got)
	}
	want := `Snapshot {"kept":[["a","b"],["c"],null,["d"]],"sum":3,"last":8,"tags":{"x":1}}`
	if got := say(t, s, abi.AppendSnapshotRequest(nil, 0)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := say(t, s, abi.AppendApply(nil, 0, 0, 5, 0, []byte(`{"lines":["e"],"ref":9,"tags":{"y":2},"by":"x"}`), nil)); got == "" {
		t.Error("a body that does not fit is taken")
	}
	if got := say(t, s, abi.AppendSnapshotRequest(nil, 0)); got != want {
		t.Errorf("after a refusal\ngot  %s\nwant %s", got, want)
	}
}
