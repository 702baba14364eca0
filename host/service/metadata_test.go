package service

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// meta makes metadata of names and values.
func meta(pairs ...string) (m abi.Metadata) {
	for ; len(pairs) > 0; pairs = pairs[2:] {
		m = m.AppendPair(pairs[0], pairs[1])
	}
	return m
}

// texts are the pairs of metadata, in their order.
func texts(m abi.Metadata) string {
	var b strings.Builder
	for name, value := range Pairs(m) {
		fmt.Fprintf(&b, "%s=%s ", name, value)
	}
	return strings.TrimSpace(b.String())
}

func TestEventsKeepTheMetadataOfTheirCommand(t *testing.T) {
	c := Command{Metadata: meta("actor", "ada", "tenant", "acme", "actor", "eve", TraceParent, "00-command")}
	own := meta(TraceParent, "00-own", "why", "x")
	// The guest's bytes lie in its answer, before the next event.
	answer := append(append(abi.Metadata(nil), own...), "behind"...)
	o := NewOutcome([]journal.NewEvent{{Type: "a"}, {Type: "b", Metadata: answer[:len(own)]},
		{Type: "c", Metadata: meta("actor", "", "tenant", "", TraceParent, "")}}, nil, 0)
	commit := o.Commit(&c, 0)
	for i, want := range []struct{ all, own string }{
		{"traceparent=00-command actor=ada tenant=acme", ""},
		{"traceparent=00-own why=x actor=ada tenant=acme", "traceparent=00-own why=x"},
		{"actor= tenant= traceparent=", "actor= tenant= traceparent="},
	} {
		m := abi.Metadata(commit.Events[i].Metadata)
		if got := texts(m); got != want.all {
			t.Errorf("event %d has %s, want %s", i, got, want.all)
		}
		if got := texts(OwnMetadata(m)); got != want.own || OwnMetadata(m).Valid() != nil {
			t.Errorf("event %d has of its own %s, want %s", i, got, want.own)
		}
	}
	if string(answer[len(own):]) != "behind" {
		t.Error("the guest's answer was written over")
	}
	if got := texts(commit.Command.Metadata); got != "actor=ada tenant=acme traceparent=00-command" {
		t.Errorf("the command has %s", got)
	}
}

// Kept metadata is bounded for each event and for all of a command, in whole pairs: all events of a command
// keep the same pairs.
func TestKeptMetadataAreBounded(t *testing.T) {
	large := meta("large", strings.Repeat("x", 8<<10), "small", "1", TraceParent, "00-1")
	for _, c := range []struct {
		events int
		want   string
	}{
		{1, "traceparent=00-1 small=1"},
		{maxKeptCommit / maxKept, "traceparent=00-1 small=1"},
		{maxKeptCommit / len(meta(TraceParent, "00-1")), "traceparent=00-1"},
		{maxKeptCommit, ""},
	} {
		o := NewOutcome(make([]journal.NewEvent, c.events), nil, 0)
		sum := 0
		for i, e := range o.Commit(&Command{Metadata: large}, 0).Events {
			if got := texts(e.Metadata); got != c.want {
				t.Fatalf("event %d of %d keeps %q, want %q", i, c.events, got, c.want)
			}
			sum += len(e.Metadata)
		}
		if sum > maxKeptCommit+4*c.events { // and the mark
			t.Errorf("%d events keep %d bytes", c.events, sum)
		}
	}
}

func FuzzMetadataOfEvents(f *testing.F) {
	f.Add([]byte(meta("a", "1", "a", "2", "\xff", "3")), []byte(meta("b", "")))
	f.Add([]byte(meta("", "", "x", "y")), []byte{1, 0, 9})
	f.Fuzz(func(t *testing.T, own, command []byte) {
		o := NewOutcome([]journal.NewEvent{{Metadata: own}}, nil, 0)
		m := abi.Metadata(o.Commit(&Command{Metadata: command}, 0).Events[0].Metadata)
		all := map[string]string{}
		for name, value := range Pairs(m) {
			if _, again := all[string(name)]; again || len(name) == 0 {
				t.Fatalf("the name %q is there again, or empty", name)
			}
			all[string(name)] = string(value)
		}
		if abi.Metadata(own).Valid() != nil {
			return
		}
		if string(OwnMetadata(m)) != string(own) {
			t.Fatalf("%q became %q", own, OwnMetadata(m))
		}
		first := map[string]string{}
		for name, value := range Pairs(own) {
			first[string(name)] = string(value)
		}
		maps.Copy(all, first)
		for name, value := range Pairs(m) {
			if all[string(name)] != string(value) {
				t.Fatalf("%q is %q, not what the guest wrote", name, value)
			}
		}
	})
}

func TestTraceOf(t *testing.T) {
	const id, rest = "0af7651916cd43dd8448eb211c80319c", "-b7ad6b7169203331-01"
	for text, want := range map[string]string{
		"00-" + id + rest:            id,
		"cc-" + id + rest + "-more":  id,
		"00-" + id:                   "",
		"00-" + id[:31] + "x" + rest: "",
		"00" + id + rest + "--":      "",
		"":                           "",
		strings.Repeat("-", 60):      "",
	} {
		got := TraceOf(meta(TraceParent, text))
		if want == "" && got != (TraceID{}) || want != "" && got.String() != want {
			t.Errorf("%q is of trace %s, want %q", text, got, want)
		}
	}
	if got := TraceOf(nil); got != (TraceID{}) {
		t.Error(got)
	}
}

func TestNamesThatAreThereTwice(t *testing.T) {
	for _, c := range []struct {
		m    abi.Metadata
		want string
	}{
		{nil, ""}, {meta("a", "1"), ""}, {meta("a", "1", "b", "1", "ab", "a"), ""},
		{meta("a", "1", "a", "1"), "a"}, {meta("a", "1", "b", "", "A", "2"), "A"},
		{meta("Straße", "", "STRAßE", ""), "STRAßE"},
		// folding is more than lower case
		{meta("s", "", "\u017f", ""), "\u017f"}, {meta("\u212a", "", "k", ""), "k"},
		{append(meta("a", "1"), "cut"...), ""},
	} {
		if got := RepeatedName(c.m); got != c.want {
			t.Errorf("%q: %q, want %q", c.m, got, c.want)
		}
	}
}
