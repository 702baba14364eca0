package host

import (
	"context"
	"os"

	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
)

// CompilerMain is the main function of the compiler process that [Options].Compiler names. args are the
// arguments after that command. It sets permanent bounds on its process, reads a module from standard input,
// leaves the code in the working directory, and returns the exit code.
//
//	if len(os.Args) > 1 && os.Args[1] == "compile-module" {
//		os.Exit(host.CompilerMain(os.Args[2:]))
//	}
func CompilerMain(args []string) int {
	return compile.Serve(context.Background(), args, os.Stdin, os.Stdout, os.Stderr)
}
