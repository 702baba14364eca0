package counter_test

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/plugins/counter"
	"github.com/bulkhead-wasm/bulkhead/plugins/counter/countertest"
)

func TestCounter(t *testing.T) { countertest.Run(t, guesttest.Native(counter.Service)) }
