package conform

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// frame is what is known of a request frame when the answer is read.
type frame struct {
	kind abi.RequestKind
	slot uint32
}

// watch decodes an answer and checks the rules that every answer must keep. The payloads are views into raw,
// which is not changed later.
func (k *kit) watch(request, raw []byte, loose bool) ([]abi.Response, error) {
	var asked []frame
	whole := true
	for rest := request; len(rest) > 0; {
		r, next, err := abi.DecodeRequest(rest)
		if err != nil {
			asked, whole = append(asked, frame{}), false
			break
		}
		asked, rest = append(asked, frame{kind: r.Kind, slot: r.Slot}), next
	}
	after := func(r abi.Response) string { return showResponse(r) + ", after " + show(request) }

	var got []abi.Response
	events, ended := map[uint32]uint32{}, map[uint32]bool{}
	for rest := raw; len(rest) > 0; {
		r, next, err := abi.DecodeResponse(rest)
		if err != nil {
			return nil,
				k.broke(ruleFrames, fmt.Sprintf("%v at byte %d of %d, after %s", err, len(raw)-len(rest), len(raw),
					show(request)))
		}
		rest = next
		if r.Kind == 0 || r.Kind > abi.RespLog {
			return nil, k.broke(ruleKinds, "a frame of kind "+fmt.Sprint(uint8(r.Kind))+", after "+show(request))
		}
		if err := k.payload(r); err != nil {
			return nil, k.broke(ruleFrames, fmt.Sprintf("%v in %s", err, after(r)))
		}
		if int64(r.Index) >= int64(len(asked)) || len(got) > 0 && r.Index < got[len(got)-1].Index {
			return nil, k.broke(ruleIndex, after(r))
		}
		q := asked[r.Index]
		if broken := whole || int(r.Index) < len(asked)-1; broken && r.Slot != q.slot {
			return nil, k.broke(ruleIndex, after(r))
		}
		got = append(got, r)
		if r.Kind == abi.RespLog || loose {
			continue
		}
		if !allowed(q.kind, r.Kind) {
			return nil, k.broke(ruleKinds, after(r))
		}
		if ended[r.Index] {
			return nil, k.broke(ruleTerminal, "a frame after the terminal one: "+after(r))
		}
		switch r.Kind {
		case abi.RespEvent:
			events[r.Index]++
			if int(r.Type) >= len(k.manifest.Events) {
				return nil,
					k.broke(ruleEvents, fmt.Sprintf("the manifest has %d events: %s", len(k.manifest.Events), after(r)))
			}
		case abi.RespReply:
			if r.Aux != events[r.Index] {
				return nil, k.broke(ruleEvents, fmt.Sprintf("%d events: %s", events[r.Index], after(r)))
			}
		case abi.RespReject:
			if events[r.Index] > 0 {
				return nil, k.broke(ruleEvents, fmt.Sprintf("%d events before %s", events[r.Index], after(r)))
			}
		}
		ended[r.Index] = r.Kind != abi.RespEvent
	}
	if loose {
		return got, nil
	}
	for i, q := range asked {
		if (q.kind == abi.ReqCommand || q.kind == abi.ReqQuery) && !ended[uint32(i)] {
			return nil,
				k.broke(ruleTerminal, fmt.Sprintf("%s without a terminal frame, after %s", showAll(got), show(request)))
		}
		if (q.kind == abi.ReqSnapshot || q.kind == abi.ReqDescribe) && !ended[uint32(i)] {
			return nil, k.broke(ruleKinds, fmt.Sprintf("%s, after %s", showAll(got), show(request)))
		}
	}
	return got, nil
}

// allowed is the table in SPEC.md of which frames answer which.
func allowed(q abi.RequestKind, r abi.ResponseKind) bool {
	if r == abi.RespFault {
		return q != abi.ReqDrop && q != abi.ReqDescribe
	}
	switch q {
	case abi.ReqCommand:
		return r == abi.RespEvent || r == abi.RespReply || r == abi.RespReject
	case abi.ReqQuery:
		return r == abi.RespReply || r == abi.RespReject
	case abi.ReqSnapshot:
		return r == abi.RespSnapshot
	case abi.ReqDescribe:
		return r == abi.RespDescription
	}
	return false
}

// payload checks that a response's payload is one of its kind.
func (k *kit) payload(r abi.Response) error {
	switch r.Kind {
	case abi.RespEvent:
		e, err := abi.DecodeEvent(&r)
		if err != nil {
			return err
		}
		if err := abi.Metadata(e.Metadata).Valid(); err != nil {
			return err
		}
		return k.encoded(e.Body)
	case abi.RespReject, abi.RespFault:
		x, err := abi.DecodeRefusal(&r)
		if err != nil {
			return err
		}
		if len(x.Code) == 0 || bytes.ContainsFunc(x.Code, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return failure("the code is not printable ASCII without space")
		}
		return nil
	}
	body, err := abi.DecodeBody(&r)
	if err == nil && r.Kind == abi.RespReply {
		err = k.encoded(body)
	}
	return err
}

// encoded checks a body against the manifest's encoding, if that is a known one. An empty body is valid.
func (k *kit) encoded(body []byte) error {
	if k.manifest.Encoding != "" && k.manifest.Encoding != abi.EncodingJSON {
		return nil
	}
	if len(body) > 0 && !json.Valid(body) {
		return failure("the body is not JSON, as the manifest says it is")
	}
	return nil
}
