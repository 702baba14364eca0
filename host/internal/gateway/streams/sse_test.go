package streams

import (
	"bytes"
	"testing"
)

// No line break in the data ends a message.
func TestLineBreaksInServerSentEvents(t *testing.T) {
	broken := "\"data\":{\r\n\"a\":\n1\r}," // no event has line breaks, which would end a message
	if got, want := string(appendSSE(nil, []byte(broken))),
		"data: \"data\":{\ndata: \ndata: \"a\":\ndata: 1\ndata: },\n\n"; got != want {
		t.Errorf("%q is sent as %q, want %q", broken, got, want)
	}
}

func FuzzSSE(f *testing.F) {
	f.Add([]byte("{\"a\":1}"))
	f.Add([]byte("a\r\nb\rc\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, data []byte) {
		// Any data becomes one message of data lines.
		text, ok := bytes.CutSuffix(appendSSE(nil, data), []byte("\n\n"))
		if !ok {
			t.Fatalf("%q", text)
		}
		for line := range bytes.SplitSeq(text, []byte("\n")) {
			if !bytes.HasPrefix(line, []byte("data: ")) || bytes.IndexByte(line, '\r') >= 0 {
				t.Fatalf("line %q of %q", line, data)
			}
		}
	})
}
