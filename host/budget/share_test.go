package budget

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// All accounts that want everything get the same amount, and that amount is left.
func TestSharesLeaveRoomForOthers(t *testing.T) {
	const limit = 1200
	for _, greedy := range []int64{1, 2, 3, 5} {
		host := New(Limits{SandboxBytes: limit})
		var all []*Account
		for k := range greedy {
			all = append(all, host.Child(fmt.Sprint("greedy ", k), nil))
		}
		for refused := int64(0); refused < greedy; {
			refused = 0
			for _, a := range all {
				if a.TakeShare(SandboxBytes, 1) != nil {
					refused++
				}
			}
		}
		for _, a := range all {
			if got, want := a.Used(SandboxBytes), int64(limit)/(greedy+1); got < want-greedy || got > want {
				t.Errorf("one of %d has %d of %d", greedy, got, limit)
			}
		}
		small := host.Child("small", nil)
		if err := small.TakeShare(SandboxBytes, limit/(greedy+1)/2); err != nil {
			t.Errorf("beside %d: %v", greedy, err)
		}
	}
}

func TestARefusedShareSaysWhy(t *testing.T) {
	host := New(Limits{Sandboxes: 20})
	a := host.Child("a", nil)
	if err := a.TakeShare(Sandboxes, 8); err != nil {
		t.Fatal(err)
	}
	var e *service.Error
	if err := a.TakeShare(Sandboxes, 8); !errors.As(err, &e) {
		t.Fatalf("more than what is left: %v", err)
	}
	if e.Kind != service.KindQuota || e.Resource != "sandboxes" || e.Used != 8 || e.Limit != 20 ||
		!strings.Contains(e.Message, "a would hold more than what is left") || !strings.Contains(e.Detail, "a: 8") {
		t.Errorf("the refusal is %+v", e)
	}
	if err := a.TakeShare(Sandboxes, 13); !errors.As(err, &e) || !strings.Contains(e.Message, "8 of 20 in use") {
		t.Errorf("more than there is: %v", err)
	}
	if usage := host.Usage()[Sandboxes]; usage.Refused != 2 || usage.Used != 8 {
		t.Errorf("usage is %+v", usage)
	}
	own := New(nil).Child("own", Limits{Sandboxes: 4})
	if err := own.TakeShare(Sandboxes, 4); err != nil {
		t.Error(err)
	}
	unbounded := New(nil).Child("a", nil)
	if err := unbounded.TakeShare(Sandboxes, 1<<40); err != nil {
		t.Error(err)
	}
}

// What is replaced counts as free: a large service can be replaced, but not by something larger
// than its share.
func TestTheShareOfWhatIsReplaced(t *testing.T) {
	host := New(Limits{SandboxBytes: 100})
	a := host.Child("a", nil)
	if err := a.TakeShare(SandboxBytes, 30); err != nil {
		t.Fatal(err)
	}
	if err := a.TakeShareBeside(SandboxBytes, 30, 0); err == nil {
		t.Error("more than what is left for others was taken")
	}
	if err := a.TakeShareBeside(SandboxBytes, 30, 30); err != nil {
		t.Errorf("beside what it replaces: %v", err)
	}
	a.Give(SandboxBytes, 30)
	if err := a.TakeShareBeside(SandboxBytes, 60, 30); err == nil {
		t.Error("something larger than a share was taken in place of something small")
	}
	if got := a.Used(SandboxBytes); got != 30 {
		t.Errorf("it has %d", got)
	}
	if err := New(nil).Child("a", nil).TakeShareBeside(SandboxBytes, 30, 10); err != nil {
		t.Errorf("where nothing is bounded: %v", err)
	}
}
