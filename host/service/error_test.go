package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestEachKindHasItsOwnStableName(t *testing.T) {
	seen := map[string]Kind{}
	for k, name := range kindNames {
		if name == "" {
			t.Errorf("kind %d has no name", k)
		}
		if other, dup := seen[name]; dup {
			t.Errorf("kinds %d and %d are both called %s", k, other, name)
		}
		seen[name] = Kind(k)
		if back, ok := ParseKind(name); !ok || back != Kind(k) {
			t.Errorf("ParseKind(%q) = %v, %v", name, back, ok)
		}
	}
	if _, ok := ParseKind("nonsense"); ok {
		t.Error("ParseKind knows nonsense")
	}
	if got := Kind(250).String(); got != "internal" {
		t.Errorf("an unknown kind is called %s", got)
	}
}

func TestKindOf(t *testing.T) {
	rejected := &Error{Kind: KindRejected, Code: "insufficient_funds"}
	for _, c := range []struct {
		err  error
		want Kind
	}{
		{rejected, KindRejected},
		{fmt.Errorf("send: %w", rejected), KindRejected},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), KindDeadline},
		{context.Canceled, KindCanceled},
		{io.EOF, KindInternal},
		{&Error{Kind: KindUnavailable, Err: rejected}, KindUnavailable},
	} {
		if got := KindOf(c.err); got != c.want {
			t.Errorf("KindOf(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}

func TestErrorsMatchTheContextPackage(t *testing.T) {
	if !errors.Is(fmt.Errorf("call: %w", &Error{Kind: KindGuestDeadline}), context.DeadlineExceeded) {
		t.Error("a guest's deadline is no context.DeadlineExceeded")
	}
	if !errors.Is(&Error{Kind: KindCanceled}, context.Canceled) {
		t.Error("a cancelled command is no context.Canceled")
	}
	if errors.Is(&Error{Kind: KindTrap}, context.DeadlineExceeded) {
		t.Error("a trap is a deadline")
	}
	err := Errorf(KindUnavailable, "journal is closed: %w", io.ErrClosedPipe)
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Error("Errorf loses the cause")
	}
}

func TestErrorTextForTheOperator(t *testing.T) {
	err := &Error{
		Op: "deploy", Service: "bank", Kind: KindBadModule, Message: "the module breaks 2 rules",
		Reasons: []string{"no memory", "no bulkhead_v1_call"}, Err: io.ErrUnexpectedEOF,
	}
	want := "deploy bank: bad_module: the module breaks 2 rules; no memory; no bulkhead_v1_call: unexpected EOF"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}
