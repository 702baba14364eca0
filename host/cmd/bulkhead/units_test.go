package main

import (
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func TestSizesAreReadAndWritten(t *testing.T) {
	for text, want := range map[string]size{"0": 0, "512": 512, "512B": 512, "64KiB": 64 << 10, "8MiB": 8 << 20,
		"2GiB": 2 << 30, "1536KiB": 1536 << 10,
		"64K": 64 << 10, "64k": 64 << 10, "64M": 64 << 20, "2G": 2 << 30, "64kB": 64_000, "64KB": 64_000,
		"64MB": 64_000_000, "2GB": 2_000_000_000} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is read as %d, %v", text, s, err)
		}
		var back size
		if err := back.UnmarshalText([]byte(s.String())); err != nil || back != s {
			t.Errorf("%d is written as %s and read back as %d, %v", s, s, back, err)
		}
	}
	for _, text := range []string{"", "-1", "8mb", "8TiB", "M", "+5M", "MiB", "1.5GiB", "99999999999GiB", "1 KiB"} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted as %d", text, s)
		}
	}
}

// Every limit of a service can be set by a flag.
func TestEveryLimitHasAFlag(t *testing.T) {
	f := limitFlags{
		ModuleBytes: 1, CompileTime: 2, MemoryBytes: 3, CallTime: 4, CommandBytes: 5, Events: 6, OutcomeBytes: 7,
		LogBytes: 8, MailboxCommands: 9, MailboxBytes: 10, ResidentEntities: 11,
		Fuel: 12, EventFuel: 13, StackBytes: 14, TableElements: 15, MemoryWatermark: 16, CompileBytes: 17,
		DiskBytes: 18, DiskRate: 19,
	}
	if l := f.limits(); l.Over(service.DefaultLimits()) != l {
		t.Errorf("a limit of the service has no flag: %+v", l)
	}
	if l := (limitFlags{}).limits(); l != (service.Limits{}) {
		t.Errorf("flags that are not set set limits: %+v", l)
	}
}

// A limit above its ceiling is refused by the names of both flags.
func TestLimitsAboveTheirCeilings(t *testing.T) {
	c := ceilingFlags{Limits: limitFlags{MemoryBytes: 8 << 20, CallTime: time.Second, Fuel: 5000}, Shards: 4}
	err := c.check(limitFlags{MemoryBytes: 64 << 20, CallTime: time.Minute, Fuel: 5000, Events: 1 << 20})
	if err == nil {
		t.Fatal("nothing is refused")
	}
	for _, want := range []string{"--limit-memory 64MiB is above --max-memory 8MiB",
		"--limit-call-time 1m0s is above --max-call-time 1s"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "fuel") {
		t.Errorf("%q is about what is within", err)
	}
	if err := c.check(limitFlags{}); err != nil {
		t.Errorf("defaults: %v", err)
	}
	if got := c.ceiling(); got.Limits.MemoryBytes != 8<<20 || got.Shards != 4 || got.Limits.Events != 0 {
		t.Errorf("the ceiling is %+v", got)
	}
}

// 0 means none where the options use 0 for the default.
func TestNoneIsNotTheDefault(t *testing.T) {
	if none, some := orNone(0), orNone(5); none >= 0 || some != 5 {
		t.Errorf("0 is %d, 5 is %d", none, some)
	}
}

// The limits that services get under the ceilings must fit into a connection; others need not.
func TestLimitsUnderTheCeilingsFit(t *testing.T) {
	o := programOptions{
		host:    host.Options{Budget: service.Budget{ConnectionBytes: 2 << 20}},
		gateway: gateway.Options{MessageBytes: 256 << 10},
	}
	if err := o.validate(); err == nil ||
		!strings.Contains(err.Error(), "limits are above what one connection may hold") {
		t.Errorf("the usual limits in 2 MiB: %v", err)
	}
	o.host.Ceiling.Limits = service.Limits{CommandBytes: 1 << 20, OutcomeBytes: 1 << 20}
	if err := o.validate(); err != nil {
		t.Errorf("limits under the ceilings: %v", err)
	}
	o.host.Limits.OutcomeBytes = 3 << 20
	if err := o.validate(); err == nil {
		t.Error("a limit that is set and does not fit was taken")
	}
}
