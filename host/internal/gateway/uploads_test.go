package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func TestNextCapacity(t *testing.T) {
	for _, length := range []int64{-1, 1, 511, 512, firstRead, firstRead + 1, 1 << 20, 32<<20 - 1, 32 << 20} {
		const limit = 32 << 20
		whole := int64(limit)
		if length >= 0 {
			whole = length
		}
		capacity := max(512, min(length+1, firstRead))
		for capacity <= whole {
			next := nextCapacity(capacity, length, limit)
			if next <= capacity || next > max(whole+1, 512) {
				t.Fatalf("length %d: %d follows %d", length, next, capacity)
			}
			capacity = next
		}
	}
}

// Slow bodies prevent no one from uploading: they hold no place, and almost no bytes.
func TestTricklingUploadsHoldNoPlace(t *testing.T) {
	s := start(t, Options{Uploads: 1, ModuleBytes: 1 << 20})
	for range 3 * smallUploads {
		a := s.attacker()
		a.put("POST /v1/modules HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/wasm\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n8\r\n\x00asm\x01\x00\x00\x00\r\n")
	}
	if r := s.do("POST", "/v1/modules", "\x00asm good", "Content-Type", "application/wasm"); r.status != http.StatusOK {
		t.Errorf("status %d: %s", r.status, r.body)
	}
}

// The host does not wait without bound for the rest of the body of a refused request.
func TestTheBodyOfARefusedRequestHasItsTime(t *testing.T) {
	s := start(t, Options{Token: strings.Repeat("t", minToken), BodyTime: 100 * time.Millisecond})
	for _, headers := range []string{"Content-Length: 1000\r\n\r\n1", "Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n"} {
		a := s.attacker()
		a.put("POST /v1/modules HTTP/1.1\r\nHost: localhost\r\n" + headers)
		resp, err := http.ReadResponse(a.r, nil)
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%v, %v", resp, err)
			continue
		}
		if _, err := io.Copy(io.Discard, a.r); err != nil { // until the host closes the connection
			t.Error(err)
		}
	}
}

// Small modules have their own bounds, and everything is given back.
func TestUploadClasses(t *testing.T) {
	const size, small = 1 << 20, 1 << 16
	u := newUploads(budget.New(budget.Limits{budget.FlightBytes: 256 << 20}),
		Options{Uploads: 2, SmallModule: small, ModuleBytes: size})
	var large []*upload
	for range 2 {
		up := u.begin()
		for _, capacity := range []int64{small / 2, small + 1, small + 2, size + 1} {
			copied, err := up.hold(capacity)
			if err != nil {
				t.Fatal(err)
			}
			copied()
		}
		if err := up.work(size); err != nil {
			t.Fatal(err)
		}
		large = append(large, up)
	}
	if n := u.small.bytes.Used(budget.FlightBytes); n != 0 {
		t.Errorf("large modules hold %d bytes of the small ones", n)
	}
	third := u.begin()
	copied, err := third.hold(small + 1)
	if err != nil {
		t.Fatalf("as long as it may be small: %v", err)
	}
	copied()
	if _, err := third.hold(uploadRoom(size)); service.KindOf(err) != service.KindOverloaded {
		t.Errorf("the third large module while it grows: %v", err)
	}
	if err := third.work(small + 1); service.KindOf(err) != service.KindOverloaded {
		t.Errorf("a third large module at work: %v", err)
	}
	third.end()
	for range 2 * smallUploads {
		up := u.begin()
		copied, err := up.hold(small + 1)
		if err != nil {
			t.Fatal(err)
		}
		copied()
		if err := up.work(small); err != nil {
			t.Fatal(err)
		}
		large = append(large, up)
	}
	if err := u.begin().work(10); service.KindOf(err) != service.KindOverloaded {
		t.Errorf("one small module too many: %v", err)
	}
	for _, up := range large {
		up.end()
	}
	for _, c := range []*uploadClass{&u.small, &u.large} {
		if n := c.bytes.Used(budget.FlightBytes); n != 0 || len(c.work) != 0 {
			t.Errorf("%d bytes and %d places are still taken", n, len(c.work))
		}
	}
}
