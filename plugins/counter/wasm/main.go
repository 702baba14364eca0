// Command wasm is the module of package counter: go build -buildmode=c-shared, for wasip1.
package main

import _ "github.com/bulkhead-wasm/bulkhead/plugins/counter"

func main() {}
