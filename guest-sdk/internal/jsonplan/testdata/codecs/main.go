// Command codecs is a guest that only encodes and decodes. It measures the cost of codecs where
// they run: in a module, in a sandbox. Each query repeats its work and answers the allocations
// of one round.
package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"runtime"
	"unsafe"

	"github.com/bulkhead-wasm/bulkhead/abi"
	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/internal/jsonplan"
)

type state struct{}

type rounds struct{ Rounds int }

type allocations struct{ PerRound float64 }

var service = guest.New[state]("codecs")

func query(name string, round func()) {
	guest.Query(service, name, func(_ *guest.View[state], q rounds) (allocations, error) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range q.Rounds {
			round()
		}
		runtime.ReadMemStats(&after)
		return allocations{float64(after.Mallocs-before.Mallocs) / float64(max(1, q.Rounds))}, nil
	})
}

func main() {}

func init() {
	query("abi-command", abiCommand)
	query("abi-outcome", abiOutcome)
	query("json-plan", jsonPlan)
	query("json-standard", jsonStandard)
}

// The workload is that of the ABI's own benchmarks: a command with a body of 200 bytes, and an
// outcome with two events and a reply.
var (
	seed     [abi.SeedSize]byte
	metadata = abi.Metadata(nil).AppendPair("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	body     = bytes.Repeat([]byte("b"), 200)
	buffer   = make([]byte, 0, 4096)
)

func abiCommand() {
	b := abi.AppendCommand(buffer[:0], 7, 1, 41, 1_700_000_000_000_000_000, &seed, "cmd-0123456789", metadata, body)
	r, _, err := abi.DecodeRequest(b)
	if err == nil {
		_, err = abi.DecodeCommand(&r)
	}
	check(err)
}

func abiOutcome() {
	b := abi.AppendEvent(buffer[:0], 7, 0, 1, body[:80], nil)
	b = abi.AppendEvent(b, 7, 0, 2, body[:80], nil)
	b = abi.AppendBody(b, abi.Response{Kind: abi.RespReply, Slot: 7, Aux: 2}, body[:40])
	for len(b) > 0 {
		r, rest, err := abi.DecodeResponse(b)
		check(err)
		if r.Kind == abi.RespEvent {
			_, err = abi.DecodeEvent(&r)
		} else {
			_, err = abi.DecodeBody(&r)
		}
		check(err)
		b = rest
	}
}

// The workload of the JSON codecs: read a command of about 200 bytes, write an event and a
// reply.
type (
	line struct {
		SKU   string `json:"sku"`
		Count int    `json:"count"`
		Cents int64  `json:"cents"`
	}
	place struct {
		Customer string `json:"customer"`
		Express  bool   `json:"express"`
		Lines    []line `json:"lines"`
	}
	placed struct {
		Customer string `json:"customer"`
		Express  bool   `json:"express"`
		Lines    []line `json:"lines"`
		Total    int64  `json:"total"`
	}
	reply struct {
		Total int64  `json:"total"`
		State string `json:"state"`
	}
)

var (
	command = []byte(
		`{"customer":"Ada Lovelace, 12 St James's Square","express":true,"lines":[{"sku":"tea-earl-grey","count":2,` +
			`"cents":450},{"sku":"cup-bone-china","count":4,"cents":1299},{"sku":"spoon","count":4,"cents":99}]}`)

	maker     jsonplan.Maker
	placeIn   = plan[place]()
	placedOut = plan[placed]()
	replyOut  = plan[reply]()
)

func plan[T any]() *jsonplan.Plan {
	p, err := maker.Make(reflect.TypeFor[T]())
	check(err)
	return p
}

func jsonPlan() {
	var c place
	check(placeIn.Decode(command, unsafe.Pointer(&c)))
	e := placed{c.Customer, c.Express, c.Lines, 6492}
	b, err := placedOut.Append(buffer[:0], unsafe.Pointer(&e))
	check(err)
	r := reply{6492, "placed"}
	_, err = replyOut.Append(b, unsafe.Pointer(&r))
	check(err)
}

func jsonStandard() {
	var c place
	check(json.Unmarshal(command, &c))
	_, err := json.Marshal(placed{c.Customer, c.Express, c.Lines, 6492})
	check(err)
	_, err = json.Marshal(reply{6492, "placed"})
	check(err)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
