// Command wasm is the module of package auction: go build -buildmode=c-shared, for wasip1.
package main

import _ "github.com/bulkhead-wasm/bulkhead/examples/auction"

func main() {}
