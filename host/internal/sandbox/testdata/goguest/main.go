// Goguest is a Go guest without an SDK, for the sandbox's tests: it does the
// things that ordinary Go code does to its surroundings.
//
//go:build wasip1

package main

import (
	crand "crypto/rand"
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

func main() {}

var commands = []struct {
	name string
	run  func(body []byte) string
}{
	{"echo", func(b []byte) string { return string(b) }},
	{"panic", func([]byte) string { panic("boom") }},
	{"exit", func([]byte) string { os.Exit(3); return "" }},
	{"now", func([]byte) string { return strconv.FormatInt(time.Now().UnixNano(), 10) }},
	{"sleep", func([]byte) string {
		t := time.Now()
		time.Sleep(365 * 24 * time.Hour)
		return strconv.FormatInt(int64(time.Since(t)/time.Hour), 10)
	}},
	{"random", func([]byte) string {
		var b [8]byte
		crand.Read(b[:])
		return fmt.Sprintf("%q", fmt.Sprintf("%x", b))
	}},
	{"environment", func([]byte) string {
		_, err := os.ReadFile("/etc/passwd")
		return fmt.Sprintf("%q", fmt.Sprint(len(os.Args), len(os.Environ()), err != nil))
	}},
	{"print", func([]byte) string { fmt.Println("to stdout"); fmt.Fprintln(os.Stderr, "to stderr"); return "1" }},
	{"memory", func([]byte) string {
		for {
			hold = append(hold, make([]byte, 1<<20))
		}
	}},
	{"recurse", func([]byte) string { return strconv.Itoa(recurse(1)) }},
	{"spin", func([]byte) string {
		for {
		}
	}},
	{"leave", func([]byte) string {
		go func() { fmt.Println("left behind") }()
		return "1"
	}},
	{"nilmap", func([]byte) string { var m map[string]int; m["a"] = 1; return "" }},
}

var hold [][]byte

//go:noinline
func recurse(n int) int { return recurse(n+1) + n }

var (
	mailbox = make([]byte, 64<<10)
	out     []byte
)

//go:wasmexport bulkhead_v1_reserve
func reserve(n uint32) unsafe.Pointer {
	if int(n) > len(mailbox) {
		mailbox = make([]byte, n)
	}
	return unsafe.Pointer(&mailbox[0])
}

//go:wasmexport bulkhead_v1_call
func call(n uint32) uint64 {
	in, index := mailbox[:n], uint32(0)
	out = out[:0]
	for len(in) > 0 {
		r, rest, err := abi.DecodeRequest(in)
		if err != nil {
			panic(err)
		}
		answer(&r, index)
		in, index = rest, index+1
	}
	if len(out) == 0 {
		return 0
	}
	return abi.PackRange(uint32(uintptr(unsafe.Pointer(&out[0]))), uint32(len(out)))
}

func answer(r *abi.Request, index uint32) {
	switch r.Kind {
	case abi.ReqDescribe:
		m := abi.Manifest{ABI: 1, Service: "goguest", Version: "1", Events: []abi.EventType{{Name: "done"}}}
		for _, c := range commands {
			m.Commands = append(m.Commands, abi.CommandType{Name: c.name})
		}
		out = abi.AppendBody(out, abi.Response{Kind: abi.RespDescription, Slot: r.Slot, Index: index}, m.AppendJSON(nil))
	case abi.ReqCommand:
		c, err := abi.DecodeCommand(r)
		if err != nil {
			panic(err)
		}
		reply := commands[r.Type].run(c.Body)
		out = abi.AppendEvent(out, r.Slot, index, 0, []byte(`{}`), nil)
		out = abi.AppendBody(out, abi.Response{Kind: abi.RespReply, Slot: r.Slot, Index: index, Aux: 1}, []byte(reply))
	}
}
