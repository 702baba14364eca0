package gateway

import (
	"net/url"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/streams"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func FuzzEventParams(f *testing.F) {
	for _, s := range []string{"from=end&limit=5&types=a,b&keys=c%2Cd,e&keys=f", "keys=%zz", "keys=..", "limit=+5",
		"types=", ";=&&=&a", strings.Repeat("keys=a&", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		types, err := listParam(raw, "types")
		if err != nil {
			return
		}
		keys, err := listParam(raw, "keys")
		if err != nil {
			return
		}
		if len(types) > streams.MaxFilter || len(keys) > streams.MaxFilter {
			t.Fatalf("%d types, %d keys", len(types), len(keys))
		}
		if ts, ks, err := streams.Filter(types, keys); err == nil && (len(ts) != len(types) || len(ks) != len(keys)) {
			t.Fatalf("%q: %v %v", raw, ts, ks)
		}
		if q, err := url.ParseQuery(raw); err == nil {
			if n, err := parseLimit(q.Get("limit")); err == nil && (n < 1 || n > maxLimit) {
				t.Fatalf("limit %d", n)
			}
			// What a form encodes can be parsed again, with all commas.
			k := q.Get("keys")
			if k == "" {
				return
			}
			if got, err := listParam(url.Values{"keys": {k}}.Encode(), "keys"); err != nil || len(got) != 1 ||
				got[0] != k {
				t.Fatalf("%q comes back as %q: %v", k, got, err)
			}
		}
	})
}

func FuzzDeploymentParams(f *testing.F) {
	for _, s := range []string{"shards=4&memory_bytes=65536", "omit_command_data=true", "shards=00", "shards=1e3", `shards=1,"x":2`, "limits=1", "Shards=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		l, s, err := deploymentParams(q)
		if err != nil {
			if service.KindOf(err) != service.KindInvalid {
				t.Fatal(err)
			}
			return
		}
		if l.WithDefaults().Validate() != nil || s.WithDefaults().Validate() != nil {
			t.Fatalf("%q gives %+v %+v", raw, l, s)
		}
	})
}
