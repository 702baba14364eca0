package orders_test

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/plugins/orders"
	"github.com/bulkhead-wasm/bulkhead/plugins/orders/orderstest"
)

func TestOrders(t *testing.T) { orderstest.Run(t, guesttest.Native(orders.Service)) }
