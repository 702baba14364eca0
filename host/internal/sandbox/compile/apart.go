package compile

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/compartment"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// Order says what is made of a module: those limits and settings of a service that decide its form and code,
// and the bounds of the work.
type Order struct {
	memoryBytes   int64
	tableElements int64
	keepNaN       bool
}

// OrderOf returns the order for a service's module.
func OrderOf(l service.Limits, s service.Settings) Order {
	return Order{memoryBytes: l.MemoryBytes, tableElements: int64(l.TableElements), keepNaN: s.KeepNaN}
}

// args encodes the order for parseOrder.
func (o Order) args() []string {
	return []string{
		"--memory-limit=" + strconv.FormatInt(o.memoryBytes, 10),
		"--table-elements=" + strconv.FormatInt(o.tableElements, 10),
		"--keep-nan=" + strconv.FormatBool(o.keepNaN),
	}
}

func parseOrder(args []string) (o Order, err error) {
	flags := flag.NewFlagSet("compiler", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Int64Var(&o.memoryBytes, "memory-limit", 0, "")
	flags.Int64Var(&o.tableElements, "table-elements", 0, "")
	flags.BoolVar(&o.keepNaN, "keep-nan", false, "")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.memoryBytes <= 0 || o.tableElements <= 0 {
		return o, errors.New("the compiler process was not told what to make of the module")
	}
	return o, nil
}

// limits are the limits that the module is verified against. The host itself checks the module's size.
func (o Order) limits(size int) service.Limits {
	return service.Limits{ModuleBytes: int64(size), MemoryBytes: o.memoryBytes, TableElements: int(o.tableElements)}
}

// rewrite verifies and rewrites a module. Refusals are *service.Error with all reasons.
func rewrite(module []byte, o Order, tell func(Stage)) (*Facts, []byte, error) {
	tell(StageVerifying)
	m, err := admission.Verify(module, o.limits(len(module)))
	if err != nil {
		return nil, nil, err
	}
	tell(StageRewriting)
	metered, err := metering.Rewrite(m, o.Metering(len(module)))
	if err != nil {
		return nil, nil, refusedRewriting(err)
	}
	return factsOf(m, metered, o), metered.Binary, nil
}

// Metering returns the options for rewriting a module of size bytes.
func (o Order) Metering(size int) metering.Options {
	return metering.Options{TableMax: uint64(o.tableElements), KeepNaN: o.keepNaN, MaxBytes: maxGrowth(int64(size))}
}

func refusedRewriting(err error) error {
	e := &service.Error{Kind: service.KindBadModule, Message: "the module cannot be used",
		Reasons: []string{err.Error()}, Err: err}
	var list *metering.Error
	if errors.As(err, &list) {
		e.Reasons = list.Reasons
	}
	return e
}

// The files in a stage, beside machine code.
const (
	formFile    = "form"
	refusalFile = "refusal"
)

// compileForm makes what the host loads from a rewritten module, in an empty directory: the form and the
// machine code. It returns the directory, and the path of the code's file in it. Where wazero has no compiler
// there is no code: its interpreter needs the whole module.
func compileForm(ctx context.Context, f *Facts, whole []byte, dir string) (code string, err error) {
	form := appendForm(nil, f)
	loads := whole
	compiled, err := compileInto(ctx, whole, filepath.Join(dir, "whole"))
	if err != nil {
		return "", err
	}
	if compiled != "" {
		if loads, err = skeleton(whole); err != nil {
			return "", invalidModule(err)
		}
		// Only wazero knows the file name under which it looks for the code of the skeleton. So the skeleton
		// is compiled, too, and the code of the whole module gets that file name.
		if code, err = compileInto(ctx, loads, filepath.Join(dir, "skeleton")); err != nil {
			return "", err
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(code)), 0o700); err != nil {
			return "", storeError(err)
		}
		if err := os.Rename(filepath.Join(dir, "whole", compiled), filepath.Join(dir, code)); err != nil {
			return "", storeError(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, formFile), append(form, loads...), 0o600); err != nil {
		return "", storeError(err)
	}
	return code, nil
}

// compileInto compiles into a directory, which it makes. It returns the file of the code, relative to the
// directory.
func compileInto(ctx context.Context, module []byte, dir string) (file string, err error) {
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return "", storeError(err)
	}
	defer func() { _ = cache.Close(ctx) }()
	r := wazero.NewRuntimeWithConfig(ctx, wazeroConfig(cache))
	defer func() { _ = r.Close(ctx) }()
	compiled, err := Module(ctx, r, module)
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.Is(err, syscall.EFBIG):
		return "", service.Errorf(service.KindBadModule, "the module's machine code is larger than %d bytes",
			maxCodeBytes)
	case errors.As(err, &path), errors.As(err, &link):
		return "", storeError(err)
	case err != nil:
		return "", err
	}
	_ = compiled.Close(ctx)
	if file, err = onlyCode(dir); err != nil {
		return "", storeError(err)
	}
	return file, nil
}

// The answers of the compiler process, beside the name of a file of machine code.
const (
	answerRefused     = "refused"     // the reasons are in refusalFile
	answerInterpreted = "interpreted" // there is a form, but no machine code
)

// Serve is the main function of the compiler process; the command in [Options] must call it. args are the
// arguments after the command. It sets permanent bounds on its process, and returns the exit code.
func Serve(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	return compartment.Serve(ctx, args, in, out, errs, func(ctx context.Context, job compartment.Job) (string, error) {
		o, err := parseOrder(job.Args)
		if err != nil {
			return "", err
		}
		// Its priority is low, so it may use all processors.
		ctx = experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0))
		var code string
		f, whole, err := rewrite(job.Input, o, func(s Stage) { job.Tell(string(s)) })
		if err == nil {
			job.Tell(string(StageCompiling))
			code, err = compileForm(ctx, f, whole, ".")
		}
		var e *service.Error
		switch {
		case errors.As(err, &e) && e.Kind == service.KindBadModule:
			return answerRefused, os.WriteFile(refusalFile, appendRefusal(nil, e.Message, e.Reasons), 0o600)
		case err == nil && code == "":
			return answerInterpreted, nil
		}
		return code, err
	})
}

// apart makes the compiler process build into a stage.
func (c *Compiler) apart(ctx context.Context, module []byte, r Request, stage string) (code string, err error) {
	cpu := c.compileTime(r.Limits, len(module))
	answer, err := compartment.Run(ctx, compartment.Task{
		Command: c.options.Command, Args: r.Order.args(), Dir: stage, Input: module,
		Memory: r.Limits.CompileBytes, CPU: cpu, Wall: r.Limits.CompileTime, FileBytes: maxCodeBytes,
		Told: func(text string) {
			switch s := Stage(text); s {
			case StageVerifying, StageRewriting, StageCompiling:
				r.Tell(s)
			}
		},
	})
	var e *compartment.Error
	if errors.As(err, &e) {
		c.options.Logger.Warn("the compiler process failed", "error", e, "output", e.Output)
		return "", compilerError(e, r.Limits, cpu)
	}
	switch answer {
	case answerInterpreted:
		return "", nil
	case answerRefused:
		return "", readRefusal(filepath.Join(stage, refusalFile))
	}
	return answer, nil
}

// readRefusal reads the refusal that the compiler process has written.
func readRefusal(name string) error {
	text, err := readAtMost(name, maxRefusalBytes)
	if err != nil {
		return storeError(err)
	}
	message, reasons, err := parseRefusal(text)
	if err != nil {
		return service.Errorf(service.KindInternal, "the compiler process refuses the module, but its reasons cannot "+
			"be read: %w", err)
	}
	return &service.Error{Kind: service.KindBadModule, Message: message, Reasons: reasons}
}

// readAtMost reads a whole file, unless it has more than maxBytes bytes.
func readAtMost(name string, maxBytes int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxBytes {
		return nil, fmt.Errorf("%s is not a file, or has more than %d bytes", name, maxBytes)
	}
	b := make([]byte, info.Size())
	_, err = io.ReadFull(f, b)
	return b, err
}

// wazeroConfig says how modules are compiled. The compiler process and the host must use the same
// configuration; otherwise the host would not find the code.
func wazeroConfig(cache wazero.CompilationCache) wazero.RuntimeConfig {
	return wazero.NewRuntimeConfig().
		WithCompilationCache(cache).
		WithCoreFeatures(api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall |
						experimental.CoreFeaturesExtendedConst).
		WithDebugInfoEnabled(false) // the rewriting has moved the code
}

// compilerError tells the uploader why the compiler process failed.
func compilerError(e *compartment.Error, l service.Limits, cpu time.Duration) error {
	out := &service.Error{Kind: service.KindBadModule, Detail: e.Output, Err: e}
	used := fmt.Sprintf("after %v, with %v of processor time and %d MiB of memory", e.UsedWall.Round(time.Millisecond),
		e.UsedCPU.Round(time.Millisecond), e.UsedMemory>>20)
	const smaller = "make the module or its largest functions smaller, or have the limit raised"
	switch e.Reason {
	case compartment.Refused:
		out.Message, out.Reasons = "the module does not validate", []string{e.Text}
	case compartment.Memory:
		out.Message = fmt.Sprintf("compiling the module takes more memory than the limit of %d MiB (it ended %s); %s",
			l.CompileBytes>>20, used, smaller)
	case compartment.CPU:
		out.Message = fmt.Sprintf("compiling the module takes more processor time than the limit of %v for one of "+
			"its size (it ended %s); %s", cpu.Round(time.Millisecond), used, smaller)
	case compartment.Wall:
		out.Message = fmt.Sprintf("the module did not compile within %v (it ended %s); %s", l.CompileTime, used,
			smaller)
	case compartment.Crashed:
		out.Message = "the compiler crashed on the module (it ended " + used + "); the host's log has its last words"
	case compartment.Canceled:
		out.Kind, out.Message = service.KindOf(e.Err), "the caller gave up while the module compiled"
	case compartment.Killed:
		out.Kind, out.Message = service.KindUnavailable, "the compiler process was killed from outside (it ended "+used+
			"); the machine may be short of memory; try again"
	default:
		out.Kind, out.Message = service.KindInternal, "the compiler process does not work"
	}
	if out.Kind == service.KindBadModule && out.Reasons == nil {
		out.Reasons = []string{out.Message}
		out.Message = "the module cannot be compiled"
	}
	return out
}
