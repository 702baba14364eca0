// Command bulkhead runs and speaks to a Bulkhead host.
//
//	bulkhead serve              run a host
//	bulkhead deploy             upload a module and make it a service
//	bulkhead deployments        show the history of a service
//	bulkhead rollback           deploy an earlier deployment again
//	bulkhead quarantine         list entities that cannot be brought back
//	bulkhead release            try at once to bring one back
//	bulkhead services           list, show, describe or delete services
//	bulkhead send               send a command to an entity
//	bulkhead query              ask an entity
//	bulkhead events             read or follow a stream of events
//	bulkhead resources          show how much of the host is in use, and by whom
//	bulkhead modules            list or delete stored modules
//	bulkhead journal            verify or dump a journal on disk
//	bulkhead conform            judge a module by the rules of the ABI
//	bulkhead inspect            tell what a module is
//	bulkhead bench              measure a host with a bank under load
//	bulkhead version            say what this is
//	bulkhead help               show the help of a command
//
// Settings come from flags, then from BULKHEAD_* in the environment, then from
// the JSON file that --config names. The exit codes are in exit.go and in the
// help.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/bulkhead-wasm/bulkhead/host"
)

// version is set by the linker; see the Makefile.
var version = "dev"

// compileModule is the argument that makes the program the compiler process of a host, for one module. Only
// the host uses it; the help does not show it.
const compileModule = "compile-module"

// compiler is the command of that process.
func compiler() ([]string, error) {
	self, err := os.Executable()
	return []string{self, compileModule}, err
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == compileModule {
		os.Exit(host.CompilerMain(os.Args[2:]))
	}
	// The first signal asks to stop. Then signals have their default effect again, so a second one ends the
	// process immediately. That is always safe: what was acknowledged is on disk.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	code := Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Main runs one command line and returns its exit code. Cancelling ctx has the effect of a first interrupt.
// Of the process it changes only the environment; serve also changes the handling of SIGPIPE.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	e := &env{ctx: ctx, in: stdin, terminal: isTerminal(stderr), screen: isTerminal(stdout)}
	e.show(stdout, stderr)
	defer e.end()
	run, err := parse(e, args)
	switch {
	case err != nil:
		return e.fail(err)
	case run == nil: // there was only help to print
		return exitOK
	}
	if err := run(); err != nil {
		return e.fail(err)
	}
	return exitOK
}
