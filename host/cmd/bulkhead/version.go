package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// versionCmd prints what this program is and what it is made of.
type versionCmd struct{}

type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	ABI      int    `json:"abi"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func thisVersion() versionInfo {
	v := versionInfo{Version: version, ABI: abi.Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" +
		runtime.GOARCH}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				v.Revision = s.Value
			}
		}
	}
	return v
}

// versionFlag is the command as a flag.
type versionFlag bool

// BeforeReset is called by kong when the flag is given, before anything is checked.
func (versionFlag) BeforeReset(e *env) error {
	if err := (&versionCmd{}).Run(e); err != nil {
		return err
	}
	panic(helpWanted{})
}

func (*versionCmd) Run(e *env) error {
	v := thisVersion()
	e.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "bulkhead %s, ABI %d, %s, %s\n", v.Version, v.ABI, v.Go, v.Platform)
	})
	return nil
}
