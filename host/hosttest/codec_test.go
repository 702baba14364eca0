package hosttest

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

const codecs = "github.com/bulkhead-wasm/bulkhead/guest-sdk/internal/jsonplan/testdata/codecs"

// codecRounds runs one of the guest's queries and returns the allocations of a round.
func codecRounds(t testing.TB, d guesttest.Driver, query uint16, rounds int) float64 {
	t.Helper()
	out, err := d.Exchange(abi.AppendQuery(nil, 0, query, 0, 0, fmt.Appendf(nil, `{"Rounds":%d}`, rounds)))
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := abi.DecodeResponse(out)
	if err != nil || r.Kind != abi.RespReply {
		t.Fatalf("%v %v", r.Kind, err)
	}
	body, err := abi.DecodeBody(&r)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ PerRound float64 }
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.PerRound
}

func startCodecs(t testing.TB) guesttest.Driver {
	d := Driver(t, "codecs", Module(t, codecs))
	if out, err := d.Exchange(abi.AppendOpen(nil, 0, 0, "k", nil)); err != nil || len(out) > 0 {
		t.Fatalf("open: %d bytes, %v", len(out), err)
	}
	return d
}

// The ABI's codec allocates nothing in a guest, and the guest's own JSON less than the standard library's.
func TestCodecsInTheGuest(t *testing.T) {
	t.Parallel()
	raced.Skip(t, "it compiles Go guests, and has one goroutine")
	d := startCodecs(t)
	for query := range uint16(2) {
		if n := codecRounds(t, d, query, 1000); n >= 0.1 { // the runtime has a few of its own
			t.Errorf("ABI workload %d: %.3f allocations a round", query, n)
		}
	}
	if own, standard := codecRounds(t, d, 2, 100), codecRounds(t, d, 3, 100); own >= standard {
		t.Errorf("the guest's JSON makes %.1f allocations a round, the standard library's %.1f", own, standard)
	}
}

// BenchmarkCodecInGuest measures the codecs in a Go guest in a sandbox: the ABI's frames, and why the guest
// does not use encoding/json. Compare with BenchmarkCommand and BenchmarkOutcome of package abi, which are
// the host's.
func BenchmarkCodecInGuest(b *testing.B) {
	d := startCodecs(b)
	for query, w := range []struct {
		name   string
		rounds int // per call, so that entering the guest does not count
	}{{"abi-command", 10_000}, {"abi-outcome", 10_000}, {"json-plan", 500}, {"json-standard", 200}} {
		b.Run(w.name, func(b *testing.B) {
			var allocations float64
			calls := 0
			for b.Loop() {
				allocations = codecRounds(b, d, uint16(query), w.rounds)
				calls++
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(calls*w.rounds), "ns/round")
			b.ReportMetric(allocations, "allocs/round")
		})
	}
}
