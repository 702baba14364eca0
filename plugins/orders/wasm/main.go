// Command wasm is the module of package orders: go build -buildmode=c-shared, for wasip1.
package main

import _ "github.com/bulkhead-wasm/bulkhead/plugins/orders"

func main() {}
