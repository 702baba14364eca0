package abitest

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// Responses decodes the frames of an answer; it fails the test if it cannot. The payloads are
// views into b.
func Responses(t testing.TB, b []byte) []abi.Response {
	t.Helper()
	var out []abi.Response
	for len(b) > 0 {
		r, rest, err := abi.DecodeResponse(b)
		if err != nil {
			t.Fatalf("response frame %d of %x: %v", len(out), b, err)
		}
		out, b = append(out, r), rest
	}
	return out
}

// Requests decodes the frames of a request; it fails the test if it cannot. The payloads are
// views into b.
func Requests(t testing.TB, b []byte) []abi.Request {
	t.Helper()
	var out []abi.Request
	for len(b) > 0 {
		r, rest, err := abi.DecodeRequest(b)
		if err != nil {
			t.Fatalf("request frame %d of %x: %v", len(out), b, err)
		}
		out, b = append(out, r), rest
	}
	return out
}

// One returns the only frame of an answer; it fails the test if there are more or fewer.
func One(t testing.TB, b []byte) abi.Response {
	t.Helper()
	all := Responses(t, b)
	if len(all) != 1 {
		t.Fatalf("got %d response frames, want 1: %x", len(all), b)
	}
	return all[0]
}

// Body returns the body of a Reply, Snapshot, Description, Log or Event as text; it fails the
// test for other kinds.
func Body(t testing.TB, r abi.Response) string {
	t.Helper()
	if r.Kind == abi.RespEvent {
		e, err := abi.DecodeEvent(&r)
		if err != nil {
			t.Fatalf("%v: %v", r.Kind, err)
		}
		return string(e.Body)
	}
	b, err := abi.DecodeBody(&r)
	if err != nil {
		t.Fatalf("%v: %v", r.Kind, err)
	}
	return string(b)
}

// Refusal returns code and message of a Reject or Fault; it fails the test for other kinds.
func Refusal(t testing.TB, r abi.Response) (code, message string) {
	t.Helper()
	if r.Kind != abi.RespReject && r.Kind != abi.RespFault {
		t.Fatalf("got %v, want Reject or Fault", r.Kind)
	}
	x, err := abi.DecodeRefusal(&r)
	if err != nil {
		t.Fatalf("%v: %v", r.Kind, err)
	}
	return string(x.Code), string(x.Message)
}
