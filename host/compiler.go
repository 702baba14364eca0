package host

import (
	"context"
	"os"

	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
)

// CompilerMain is the compiler process that [Options].Compiler leads to. args are
// what follows that command. It bounds the process that it runs in, for good, reads
// a module from standard input, leaves its code in the working directory, and returns
// the exit code.
//
//	if len(os.Args) > 1 && os.Args[1] == "compile-module" {
//		os.Exit(host.CompilerMain(os.Args[2:]))
//	}
func CompilerMain(args []string) int {
	return compile.Serve(context.Background(), args, os.Stdin, os.Stdout, os.Stderr)
}
