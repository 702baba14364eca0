package abi_test

import (
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// A guest decodes the mailbox frame by frame, and appends its answer to the frames that it has
// already written.
func Example() {
	// The host writes this into the mailbox.
	var seed [abi.SeedSize]byte
	mailbox := abi.AppendCommand(nil, 7, 0, 3, 1_700_000_000_000_000_000, &seed, "cmd-1", nil, []byte(`{"by":5}`))

	// The guest decodes it and answers.
	var out []byte
	for index := uint32(0); len(mailbox) > 0; index++ {
		r, rest, err := abi.DecodeRequest(mailbox)
		if err != nil {
			out = abi.AppendRefusal(out, abi.Response{Kind: abi.RespFault, Index: index}, abi.CodeBadFrame, err.Error())
			break
		}
		c, err := abi.DecodeCommand(&r)
		if err != nil {
			out = abi.AppendRefusal(out, abi.Response{Kind: abi.RespFault, Slot: r.Slot, Index: index},
				abi.CodeBadFrame, err.Error())
			break
		}
		out = abi.AppendEvent(out, r.Slot, index, 0, c.Body, nil)
		out = abi.AppendBody(out, abi.Response{Kind: abi.RespReply, Slot: r.Slot, Index: index, Aux: 1},
			[]byte(`{"n":17}`))
		mailbox = rest
	}

	// The host reads the answer.
	for len(out) > 0 {
		r, rest, _ := abi.DecodeResponse(out)
		fmt.Println(r.Kind, "of", len(out)-len(rest), "bytes for slot", r.Slot)
		out = rest
	}
	// Output:
	// Event of 40 bytes for slot 7
	// Reply of 40 bytes for slot 7
}

func ExamplePackRange() {
	fmt.Printf("%#016x\n", abi.PackRange(0x00010000, 0x48))
	// Output: 0x0001000000000048
}
