package sandbox

import (
	"bytes"
	"os"
	"testing"

	quota "github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/pages"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func openArena(t *testing.T) *pages.Arena {
	t.Helper()
	a, err := pages.NewArena()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		_ = a.Close()
	})
	return a
}

// inMemory is what the arena takes of the machine's memory.
func inMemory(t *testing.T, a *pages.Arena) int64 {
	t.Helper()
	n, err := a.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A thousand images take the memory that was taken from the budget, one descriptor, and nothing once they are
// gone. A memory that begins as an image keeps the image.
func TestImagesShareADescriptor(t *testing.T) {
	a := openArena(t)
	descriptors := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	hold := &holding{account: shared().budget.Child("images", nil)}
	before, memory := descriptors(), inMemory(t, a)
	var images []*image
	for k := range 1000 {
		b := bytes.Repeat([]byte{byte(k), 1}, admission.PageBytes/2)
		clear(b[5000:])
		m, err := captureImage(a, b, nil, nil, hold)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, m)
	}
	// Other tests run concurrently, and also open and close files.
	if n := descriptors(); n > before+100 {
		t.Errorf("%d descriptors were open before, and %d with 1000 images", before, n)
	}
	if got, taken := inMemory(t, a)-memory, hold.account.Used(quota.SandboxBytes); got != taken {
		t.Errorf("images take %d bytes of memory, and %d were taken", got, taken)
	}
	mem, err := newMemory(a, admission.PageBytes, 0, images[7], hold, admission.PageBytes)
	if err != nil {
		t.Fatal(err)
	}
	mem.b[0] = 99 // in its own copy
	for _, m := range images {
		m.close()
	}
	if _, err := newMemory(a, admission.PageBytes, 0, images[7], hold, admission.PageBytes); err != errProgramClosed {
		t.Errorf("another memory of an image that is closed: %v", err)
	}
	if mem.b[0] != 99 || mem.b[1] != 1 || mem.b[2] != 7 || mem.b[4999] != 1 || mem.b[5000] != 0 {
		t.Error("the memory is not the image that it began as any more")
	}
	mem.release()
	if got := inMemory(t, a); got != memory {
		t.Errorf("%d bytes of memory are left of images that are gone", got-memory)
	}
	if held := hold.account.Close(); held != nil {
		t.Errorf("%v is held in the end", held)
	}
}

// Address space that the system does not have is an error, here and above.
func TestAddressSpaceThatIsNotThere(t *testing.T) {
	a := openArena(t)
	hold := &holding{account: shared().budget}
	if _, err := newMemory(a, 1<<60, admission.PageBytes, nil, hold, admission.PageBytes); err == nil {
		t.Error("a memory in a space of 1 EiB")
	}
	s, err := a.Reserve(admission.PageBytes)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	if _, err := s.Grow(2 * admission.PageBytes); err == nil {
		t.Error("a memory has grown out of its space")
	}
}

// A sandbox takes no more mappings than a host's default budget assumes, whatever happened to its memory.
// Adjacent ones may share some.
func TestMappingsOfASandbox(t *testing.T) {
	mappings := func() int {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(maps, []byte("\n"))
	}
	p := mustCompile(t, testguest.Counter("c"), service.Limits{MemoryBytes: 16 << 20})
	before := mappings()
	const sandboxes = 300
	for k := range sandboxes {
		i := instantiate(t, p, nil)
		if _, err := i.Handle(t.Context(), add); err != nil {
			t.Fatal(err)
		}
		if k%2 == 0 {
			if i.memory.Reallocate(4<<20) == nil {
				t.Fatal("the memory does not grow")
			}
		}
	}
	// Go also maps memory, and other tests do not run.
	if n := mappings() - before; n > sandboxes*3+100 {
		t.Errorf("%d sandboxes take %d mappings", sandboxes, n)
	}
}
