package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/internal/logging"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// serveCommand is the name of the command in its errors.
const serveCommand = "serve "

// serveCmd runs a host until it is asked to stop.
type serveCmd struct {
	Data        string        `default:"bulkhead-data" type:"path" placeholder:"DIR" help:"Directory of the journal and the modules. It is created if it does not exist. Default ./bulkhead-data."`
	Listen      string        `default:"127.0.0.1:8080" placeholder:"ADDRESS" help:"Address to listen on. Port 0 picks a free port. Default ${default}."`
	Token       string        `placeholder:"TOKEN" help:"Access token that clients must send, at least 16 bytes. Set it in the environment rather than on the command line, where other users can see it."`
	Insecure    bool          `help:"Allow an address other than loopback without a token."`
	AllowHost   []string      `placeholder:"NAME" help:"Host name to accept in requests when no token is set. May be repeated. Default: localhost only."`
	AllowOrigin []string      `placeholder:"ORIGIN" help:"Origin whose web pages may use the host. May be repeated. Default: the host's own origin only."`
	Demo        []string      `type:"existingfile" placeholder:"FILE" help:"Module to deploy at the start. The host then prints commands to try. May be repeated."`
	Every       int           `name:"snapshot-every" placeholder:"N" help:"Take a snapshot of an entity after this number of events, for services that do not set it themselves. -1 takes none. Default ${snapshot_every}."`
	StopTime    time.Duration `name:"stop-timeout" default:"30s" placeholder:"TIME" help:"How long the host waits for commands in flight when it stops. Default ${default}."`
	LogLevel    slog.Level    `default:"INFO" placeholder:"LEVEL" help:"Least severe level that is logged: debug, info, warn or error. Default ${default}."`
	LogFormat   string        `enum:"text,json" default:"text" placeholder:"FORM" help:"Format of the log: text or json. With json, standard error has nothing but JSON, and standard output has nothing. Default ${default}."`
	LogRate     size          `default:"64KiB" placeholder:"SIZE" help:"Maximum number of bytes per second that the host logs about one service. Further lines are dropped, counted, and reported in the log. 0 sets no limit. Default ${default}."`
	LogBurst    size          `default:"256KiB" placeholder:"SIZE" help:"Number of bytes that the host may log about one service at once before --log-rate applies, at least 16KiB. Default ${default}."`
	LogBuffer   size          `default:"1MiB" placeholder:"SIZE" help:"Maximum number of bytes of the log that wait while nobody reads standard error. Further lines are dropped, counted, and reported in the log. Default ${default}."`

	ModuleKeep    time.Duration `name:"module-keep" default:"24h" placeholder:"TIME" help:"How long a module stays on disk after no service refers to it any more. 0 keeps it forever. Default ${default}."`
	ModuleHistory int           `name:"module-history" default:"10" placeholder:"N" help:"Number of different earlier modules of each service that stay on disk, so that the service can be rolled back to them. At least 1. Default ${default}."`

	Limits  limitFlags       `embed:"" prefix:"limit-" group:"Limits of services that are deployed without limits of their own (a service keeps its limits until it is deployed again; 0 is the default)"`
	Verify  serveVerifyFlags `embed:"" group:"Verification of modules before they take over (0 is the default)"`
	Start   startFlags       `embed:"" prefix:"start-" group:"Starts of services (0 is the default)"`
	Ceiling ceilingFlags     `embed:"" prefix:"max-" group:"Ceilings for the limits of all deployments (a service that was deployed with a higher limit does not start; 0 is the default)"`
	Budget  budgetFlags      `embed:"" group:"Budget that all services and connections share (0 is the default)"`
	Gateway gatewayFlags     `embed:"" group:"Limits of the gateway (0 is the default)"`
	Compile compileFlags     `embed:"" group:"Limits of compiling modules (0 is the default)"`
	Reading readFlags        `embed:"" group:"Limits of reading logs (0 is the default)"`
	Journal journalFlags     `embed:"" prefix:"journal-" group:"Limits of the journal (0 is the default)"`
}

// serveVerifyFlags say how modules are verified where a deployment does not.
type serveVerifyFlags struct {
	Mode        string        `name:"verify" enum:"all,sample,none" default:"sample" placeholder:"MODE" help:"Entities of the log that a new module replays before it takes over: all, a sample that has every type of event, or none. Default ${default}."`
	Entities    int           `name:"verify-entities" placeholder:"N" help:"Maximum number of entities of a sample, beyond those that are needed to have every type of event. Default ${verify_entities}."`
	Time        time.Duration `name:"verify-time" placeholder:"DURATION" help:"Maximum time for the entities of a sample, beyond those that are needed to have every type of event. Default ${verify_time}."`
	Commands    int           `name:"verify-commands" placeholder:"N" help:"Maximum number of recorded commands that a new module runs again. Default ${verify_commands}."`
	CommandTime time.Duration `name:"verify-command-time" placeholder:"DURATION" help:"Maximum time for recorded commands that a new module runs again. Default ${verify_command_time}."`
	Timeout     time.Duration `name:"verify-timeout" placeholder:"DURATION" help:"Maximum time of a verification. If the entities that must be replayed were not replayed by then, the module is refused. Default: a minute, and an hour with --verify all."`
}

// served is a report of serve, one per line, with --json.
type served struct {
	Event   string       `json:"event"` // deployed, serving, stopping, stopped
	Address string       `json:"address,omitempty"`
	Data    string       `json:"data,omitempty"`
	Service service.Name `json:"service,omitempty"`
	Detail  string       `json:"detail,omitempty"`
}

func (c *serveCmd) checkData() error {
	if c.Data == "" {
		return errors.New("--data: the name of a directory is missing")
	}
	return nil
}

func (c *serveCmd) Run(e *env) error {
	if err := errors.Join(e.environment.check(), c.checkData(), c.checkListen(), c.checkRanges(),
		c.Ceiling.check(c.Limits)); err != nil {
		return usageError{err}
	}
	e.programs = c.LogFormat == "json"
	say := func(s served, format string, args ...any) {
		if e.json || !e.programs {
			e.printLine(s, func(w io.Writer) { fmt.Fprintf(w, format+"\n", args...) })
		}
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // it would end the process
	defer signal.Stop(hangups)
	dropped := c.neverWait(e)
	logger := slog.New(c.handler(e.rawErr))
	var demos []service.Status
	options := programOptions{
		host:     c.host(logger),
		gateway:  c.Gateway.options(c, logger),
		dropped:  dropped,
		stopTime: c.StopTime,
	}
	if len(c.Demo) > 0 {
		options.prepare = func(h *host.Host) error {
			for _, file := range c.Demo {
				status, err := deployFile(e.ctx, h, file, e.progress())
				if err != nil {
					return err
				}
				demos = append(demos, status)
				say(served{Event: "deployed", Service: status.Spec.Service}, "%s runs %s", status.Spec.Service,
					status.Spec.Module)
			}
			return nil
		}
	}
	p, err := startProgram(e.ctx, options)
	if err != nil {
		return err
	}
	defer p.Close()
	unmark, err := markPID(c.Data)
	if err != nil {
		return err
	}
	defer unmark()
	logger.Info("the host serves", "address", p.Address(), "data", c.Data, "version", version, "pid", os.Getpid(),
		"token", c.Token != "")
	say(served{Event: "serving", Address: p.Address(), Data: c.Data},
		"Bulkhead serves on http://%s with its data in %s", p.Address(), relative(c.Data))
	if len(demos) > 0 && !e.json && !e.programs {
		suggest(e.out, p.Address(), demos)
	}
	err = p.Run(e.ctx, hangups, func(stage string) {
		logger.Info("the host is stopping", "stage", stage)
		say(served{Event: "stopping", Detail: stage}, "stopping: %s", stage)
	})
	if err != nil {
		logger.Error("the host has stopped, but not cleanly", "error", err)
		return err
	}
	logger.Info("the host has stopped")
	return nil
}

// host returns the options of the host.
func (c *serveCmd) host(logger *slog.Logger) (o host.Options) {
	o.Dir = c.Data
	o.Logger = logger
	o.Limits = c.Limits.limits()
	o.Budget = c.Budget.budget()
	o.Settings = service.Settings{SnapshotEvery: c.Every}
	o.Journal = c.Journal.options()
	o.ReserveBytes = orNone(c.Journal.Reserve)
	o.IndexCacheBytes = max(1, int64(c.Journal.Cache)) // 0 means the minimum, not the default
	o.SmallModule = int64(c.Compile.Small)
	o.CompileBase = c.Compile.Base
	o.CompilePerMiB = c.Compile.PerMiB
	o.StartPlaces = c.Start.Places
	o.StartRetry = c.Start.Retry
	o.StartRetryMax = c.Start.RetryMax
	o.StartRetryRare = c.Start.Rarely
	o.LogRate = orNone(c.LogRate)
	o.LogBurst = int64(c.LogBurst)
	o.Ceiling = c.Ceiling.ceiling()
	o.ModuleKeep = cmp.Or(c.ModuleKeep, -1)
	o.ModuleHistory = max(c.ModuleHistory, 1)
	o.Verify = service.Verify{Mode: service.VerifyMode(c.Verify.Mode), Entities: c.Verify.Entities, Time: c.Verify.Time,
		Commands: c.Verify.Commands, CommandTime: c.Verify.CommandTime, Timeout: c.Verify.Timeout}
	o.Budget.Readers = c.Reading.Readers
	o.MaxWaitingReaders = c.Reading.Waiting
	o.RecentEventBytes = int64(c.Reading.Recent)
	o.SharedReadBytes = orNone(c.Reading.Shared)
	return o
}

// markPID writes the process id to the data directory. A host that stops cleanly removes it.
func markPID(dir string) (unmark func(), err error) {
	name := filepath.Join(dir, "pid")
	if err := os.WriteFile(name, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return nil, err
	}
	return func() { _ = os.Remove(name) }, nil // the next start overwrites a stale one
}

// checkListen refuses to be open to the network by accident, before anything is created on disk.
func (c *serveCmd) checkListen() error {
	name, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	ip := net.ParseIP(name)
	if name == "localhost" || ip != nil && ip.IsLoopback() || c.Token != "" || c.Insecure {
		return nil
	}
	return fmt.Errorf("--listen %s can be reached from other machines: set a token in BULKHEAD_TOKEN, or allow it "+
		"with --insecure", c.Listen)
}

// checkRanges refuses values that have another meaning in the packages below.
func (c *serveCmd) checkRanges() error {
	var errs []error
	for name, value := range map[string]int64{
		"stop-timeout": int64(c.StopTime), "journal-pending-commits": int64(c.Journal.PendingCommits),
		"journal-group-commits": int64(c.Journal.GroupCommits),
		"max-readers":           c.Reading.Readers, "max-waiting-readers": int64(c.Reading.Waiting),
		"journal-answers": int64(c.Journal.Answers), "journal-versions": int64(c.Journal.Versions),
		"start-places": int64(c.Start.Places), "start-retry": int64(c.Start.Retry),
		"start-retry-max": int64(c.Start.RetryMax), "start-retry-rare": int64(c.Start.Rarely),
	} {
		if value < 0 {
			errs = append(errs, fmt.Errorf("--%s is below 0", name))
		}
	}
	return errors.Join(errs...)
}

// handler writes the log. Texts of guests and clients in it are safe on a terminal.
func (c *serveCmd) handler(w io.Writer) slog.Handler {
	o := &slog.HandlerOptions{Level: c.LogLevel, ReplaceAttr: withUnits}
	if c.LogFormat == "json" {
		return slog.NewJSONHandler(safeLines{w, safetext.JSON}, o)
	}
	return slog.NewTextHandler(safeLines{w, func(b []byte) []byte { return []byte(safetext.Text(string(b))) }}, o)
}

// withUnits makes JSON show durations as text does, such as 62ms, and not as nanoseconds.
func withUnits(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// safeLines escapes lines; each is one write.
type safeLines struct {
	to   io.Writer
	safe func([]byte) []byte
}

func (s safeLines) Write(b []byte) (int, error) {
	_, err := s.to.Write(append(s.safe(bytes.TrimSuffix(b, []byte("\n"))), '\n'))
	return len(b), err
}

// lastWords is how long the end of the program waits for the readers of its last lines.
const lastWords = time.Second

// neverWait puts non-blocking writers in front of standard output and standard error. A pipe that nobody
// reads, or whose reader has gone, then neither blocks nor ends the process. dropped counts the lines of
// standard error that were not written.
func (c *serveCmd) neverWait(e *env) (dropped func() uint64) {
	gone := make(chan os.Signal, 1)
	signal.Notify(gone, syscall.SIGPIPE) // from now on such a write fails, and does not end the process
	out := logging.NewWriter(e.rawOut, logging.WriterOptions{Bytes: int(c.LogBuffer)})
	errs := logging.NewWriter(e.rawErr,
		logging.WriterOptions{Bytes: int(c.LogBuffer), Notice: func(lines uint64) []byte {
			var line bytes.Buffer
			slog.New(c.handler(&line)).Warn(fmt.Sprintf("%d lines dropped, as nobody read the log", lines))
			return line.Bytes()
		}})
	e.show(out, errs)
	e.atEnd(func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastWords)
		defer cancel()
		_ = errors.Join(out.Close(ctx), errs.Close(ctx)) // there is no one to report it to
		signal.Stop(gone)
	})
	return errs.Dropped
}

// suggest prints commands to paste. They use the path with which this program was started, and name the host
// only if it is not the clients' default.
func suggest(w io.Writer, address string, demos []service.Status) {
	bulkhead := os.Args[0]
	at := ""
	if address != "127.0.0.1:8080" {
		at = " --host http://" + address
	}
	var lines []string
	for _, demo := range demos {
		name := string(demo.Spec.Service)
		if name == "bank" {
			lines = append(lines,
				bulkhead+" send bank/alice open '{\"owner\":\"Alice\"}'"+at,
				bulkhead+" send bank/alice deposit '{\"amount\":100}'"+at,
				bulkhead+" query bank/alice balance"+at)
		} else {
			lines = append(lines, bulkhead+" services show "+name+at+"   # its commands, and what they take")
		}
		lines = append(lines, bulkhead+" events "+name+" --follow"+at, "curl -s http://"+address+"/v1/services/"+name+
			"/events")
	}
	fmt.Fprintf(w, "\nTry in another terminal:\n\n  %s\n\nStop it with Ctrl-C, or kill it any way you like: what was "+
		"acknowledged is on disk.\n", strings.Join(lines, "\n  "))
}

// relative shortens a path for people.
func relative(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(here, path); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}
