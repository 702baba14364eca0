package bank_test

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/plugins/bank"
	"github.com/bulkhead-wasm/bulkhead/plugins/bank/banktest"
)

func TestBank(t *testing.T) { banktest.Run(t, guesttest.Native(bank.Service)) }
