package main

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// size is a number of bytes, printed as 512, 64KiB, 8MiB or 2GiB. The shorter units K, M and G are also
// accepted, with the same factor of 1024, and kB, MB and GB, with a factor of 1000.
type size int64

type sizeUnit struct {
	name  string
	bytes int64
}

var (
	sizeUnits      = []sizeUnit{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
	otherSizeUnits = []sizeUnit{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"G", 1 << 30}, {"M", 1 << 20},
		{"K", 1 << 10}, {"k", 1 << 10}}
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *size) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	for _, u := range slices.Concat(otherSizeUnits, sizeUnits) {
		if n, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = n, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 62)
	if err != nil || int64(n) > (1<<62)/unit {
		return fmt.Errorf("%q is not a size like 512, 64KiB, 8MiB or 2GiB", text)
	}
	*s = size(int64(n) * unit)
	return nil
}

// String formats the size with the largest unit that divides it.
func (s size) String() string {
	for _, u := range sizeUnits {
		if int64(s) >= u.bytes && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// limitFlags are the limits of a service, or the ceilings of a host. Zero is the default. Each field has the
// name of its field in [service.Limits], and its help says what it bounds; [limitHelp] makes a sentence of
// that.
type limitFlags struct {
	ModuleBytes      size          `name:"module" placeholder:"SIZE" help:"the size of a module"`
	CompileTime      time.Duration `name:"compile-time" placeholder:"TIME" help:"the time to compile a module"`
	CompileBytes     size          `name:"compile-memory" placeholder:"SIZE" help:"the memory to compile a module"`
	MemoryBytes      size          `name:"memory" placeholder:"SIZE" help:"the linear memory of one sandbox"`
	CallTime         time.Duration `name:"call-time" placeholder:"TIME" help:"the processor time of a guest in one call, without the time it waits for a processor"`
	Fuel             int64         `name:"fuel" placeholder:"N" help:"the fuel, counted in instructions, of one command or query"`
	EventFuel        int64         `name:"event-fuel" placeholder:"N" help:"the fuel that each event adds to the fuel of a hydration"`
	StackBytes       size          `name:"stack" placeholder:"SIZE" help:"the call stack of one call"`
	TableElements    int           `name:"table-elements" placeholder:"N" help:"the number of elements of each table"`
	MemoryWatermark  int           `name:"memory-watermark" placeholder:"PERCENT" help:"the share of its memory that a sandbox may use before it is replaced between two commands"`
	CommandBytes     size          `name:"command" placeholder:"SIZE" help:"the data of one command or query"`
	Events           int           `name:"events" placeholder:"N" help:"the number of events of one command"`
	OutcomeBytes     size          `name:"outcome" placeholder:"SIZE" help:"the whole answer to one call"`
	LogBytes         size          `name:"log" placeholder:"SIZE" help:"the log output of one call; the rest is cut"`
	MailboxCommands  int           `name:"mailbox-commands" placeholder:"N" help:"the number of commands that wait in one shard"`
	MailboxBytes     size          `name:"mailbox" placeholder:"SIZE" help:"the data of the commands that wait in one shard"`
	ResidentEntities int           `name:"resident-entities" placeholder:"N" help:"the number of entities that one shard keeps in its sandbox"`
	DiskBytes        size          `name:"disk" placeholder:"SIZE" help:"the size of a service's log on disk; above it commands are refused until a retention has deleted events, and on a disk smaller than four times the default it is a quarter of the disk"`
	DiskRate         size          `name:"disk-rate" placeholder:"SIZE" help:"the growth of a service's log per second, before compression; above it, and after a burst of two seconds, commands are refused for a moment"`
}

// ceilingFlags are the maximum values of any deployment: every limit, and the shards.
type ceilingFlags struct {
	Limits limitFlags `embed:""`
	Shards int        `name:"shards" placeholder:"N" help:"the number of shards of a service"`
}

// limits converts the flags for the host; zero fields stay zero.
func (f limitFlags) limits() (l service.Limits) {
	flags, out := reflect.ValueOf(f), reflect.ValueOf(&l).Elem()
	for i := range flags.NumField() {
		out.FieldByName(flags.Type().Field(i).Name).SetInt(flags.Field(i).Int())
	}
	return l
}

func (f ceilingFlags) ceiling() service.Ceiling {
	return service.Ceiling{Limits: f.Limits.limits(), Shards: f.Shards}
}

// check refuses a limit above its ceiling, by the names of both flags.
func (f ceilingFlags) check(l limitFlags) error {
	var errs []error
	limits, tops := reflect.ValueOf(l), reflect.ValueOf(f.Limits)
	for i := range limits.NumField() {
		if limit, top := limits.Field(i), tops.Field(i); top.Int() != 0 && limit.Int() > top.Int() {
			name := limits.Type().Field(i).Tag.Get("name")
			errs = append(errs, fmt.Errorf("--limit-%s %v is above --max-%s %v", name, limit, name, top))
		}
	}
	return errors.Join(errs...)
}

const (
	limitPrefix = "limit-"
	maxPrefix   = "max-"
)

// limitHelp completes the help of a flag of limitFlags or ceilingFlags: a sentence with the default. The
// default is read from its definition, so that the help is always right.
func limitHelp(f *kong.Flag) {
	vars := limitVars()
	if name, ok := strings.CutPrefix(f.Name, limitPrefix); ok && vars[f.Name] != "" {
		f.Help = fmt.Sprintf("Limit on %s. Default %s.", f.Help, vars[limitPrefix+name])
	}
	if name, ok := strings.CutPrefix(f.Name, maxPrefix); ok && vars[f.Name] != "" {
		f.Help = fmt.Sprintf("Highest limit that a deployment may set on %s. Default %s.", f.Help, vars[maxPrefix+name])
	}
}

// limitVars are the defaults of limits and ceilings, by flag.
func limitVars() map[string]string {
	vars := map[string]string{maxPrefix + "shards": strconv.Itoa(service.GreatestShards)}
	flags := reflect.TypeFor[limitFlags]()
	for prefix, l := range map[string]service.Limits{limitPrefix: service.DefaultLimits(),
		maxPrefix: service.GreatestLimits()} {
		for i := range flags.NumField() {
			value := reflect.New(flags.Field(i).Type).Elem()
			value.SetInt(reflect.ValueOf(l).FieldByName(flags.Field(i).Name).Int())
			vars[prefix+flags.Field(i).Tag.Get("name")] = fmt.Sprint(value)
		}
	}
	return vars
}
