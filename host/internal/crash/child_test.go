package crash

import (
	"os"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
)

// binaries are the real program and modules, built once.
type binaries struct {
	bulkhead string
	bank     []byte // the module
	bankToo  []byte // the same service as another module, to deploy over it
}

var build = sync.OnceValues(func() (b binaries, err error) {
	if b.bulkhead, err = hosttest.Program(); err != nil {
		return b, err
	}
	for flags, to := range map[string]*[]byte{"-s -w": &b.bank, "-w": &b.bankToo} {
		if *to, err = hosttest.BuiltModule("./plugins/bank/wasm", flags); err != nil {
			return b, err
		}
	}
	return b, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	hosttest.RemoveBuilt()
	os.Exit(code)
}

// patience bounds every wait of a test. Only a bug can exceed it.
const patience = 5 * time.Minute

// child is one running host.
type child = hosttest.Child

// start runs a host on dir and waits until it serves. If killAfter is above 0, the host is killed
// that long after its start, whatever it is doing; start returns nil if that happens before it
// serves.
func start(t *testing.T, bulkhead, dir string, killAfter time.Duration) *child {
	t.Helper()
	return hosttest.StartChild(t, hosttest.ChildOptions{Program: bulkhead, Dir: dir, Kill: killAfter})
}
