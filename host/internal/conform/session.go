package conform

import (
	"context"
	"fmt"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// kit is one run.
type kit struct {
	ctx       context.Context
	o         Options
	subject   Subject
	manifest  abi.Manifest
	rule      string            // the rule that is being checked
	watched   map[string]string // watched rules that were broken, each with its first occasion
	exchanges int
}

// session is one new instance and its exchanges.
type session struct {
	k   *kit
	box Instance
	// loose suspends the rules about frames that the host's own requests would never break. It is for
	// requests that are malformed on purpose.
	loose bool
	// transcript holds all answers, for comparison with another session.
	transcript [][]byte
}

// session starts a new instance. The caller closes it.
func (k *kit) session() (*session, error) {
	box, err := k.subject.Instantiate(k.ctx)
	if err != nil {
		return nil, failf("no fresh instance: %v", err)
	}
	return &session{k: k, box: box}, nil
}

// with calls f with a new instance.
func (k *kit) with(f func(*session) error) error {
	s, err := k.session()
	if err != nil {
		return err
	}
	defer s.close()
	return f(s)
}

func (s *session) close() { _ = s.box.Close(s.k.ctx) }

// exchange sends a request and checks the watched rules on the answer. The error is a failure, if the guest
// trapped, or a broken watched rule.
func (s *session) exchange(request []byte) ([]abi.Response, error) {
	k := s.k
	k.exchanges++
	raw, err := s.box.Exchange(k.ctx, request)
	if err != nil {
		what := show(request)
		switch service.KindOf(err) {
		case service.KindProtocol:
			return nil, k.broke(ruleMailbox, fmt.Sprintf("%v, after %s", err, what))
		default:
			got := fmt.Sprintf("%v, after %s", err, what)
			if _, old := k.watched[ruleNoTrap]; !old {
				k.watched[ruleNoTrap] = got
			}
			return nil, failure(got)
		}
	}
	s.transcript = append(s.transcript, raw)
	return k.watch(request, raw, s.loose)
}

// broke records that a watched rule was broken.
func (k *kit) broke(rule, got string) error {
	if _, old := k.watched[rule]; !old {
		k.watched[rule] = got
	}
	return &broken{rule: rule, got: got}
}

// quiet sends a request that is answered only if something is wrong.
func (s *session) quiet(request []byte) error {
	got, err := s.exchange(request)
	if err != nil {
		return err
	}
	for _, r := range got {
		if r.Kind != abi.RespLog {
			return failf("%s, after %s", showResponse(r), show(request))
		}
	}
	return nil
}

func (s *session) open(slot uint32, key string, version uint64, snapshot []byte) error {
	return s.quiet(abi.AppendOpen(nil, slot, version, key, snapshot))
}

func (s *session) drop(slot uint32) error { return s.quiet(abi.AppendDrop(nil, slot)) }

// snapshot requests an entity's state.
func (s *session) snapshot(slot uint32) ([]byte, error) {
	got, err := s.exchange(abi.AppendSnapshotRequest(nil, slot))
	if err != nil {
		return nil, err
	}
	r, ok := last(got)
	if !ok || r.Kind != abi.RespSnapshot {
		return nil, failf("%s to a Snapshot of an open slot", showAll(got))
	}
	body, _ := abi.DecodeBody(&r) // the watched rules have checked that it decodes
	return append([]byte{}, body...), nil
}

// event is an event of a command.
type event struct {
	typ            uint16
	time           uint64 // of the command
	body, metadata []byte
}

// outcome is the answer to a command or query, without slot and index, so that outcomes can be compared.
type outcome struct {
	kind          abi.ResponseKind
	body          string // of a reply
	code, message string // of a refusal
	events        []event
}

func (o outcome) String() string {
	var b strings.Builder
	for _, e := range o.events {
		fmt.Fprintf(&b, "Event %d %s, ", e.typ, clip(e.body))
	}
	if o.kind == abi.RespReply {
		fmt.Fprintf(&b, "Reply %s", clip([]byte(o.body)))
	} else {
		fmt.Fprintf(&b, "%v %s: %s", o.kind, clip([]byte(o.code)), clip([]byte(o.message)))
	}
	return b.String()
}

// call sends a request with one command or query and decodes its outcome.
func (s *session) call(request []byte) (outcome, error) {
	got, err := s.exchange(request)
	if err != nil {
		return outcome{}, err
	}
	var o outcome
	for _, r := range got { // the watched rules have checked that all decode and one is terminal
		switch r.Kind {
		case abi.RespEvent:
			e, _ := abi.DecodeEvent(&r)
			o.events = append(o.events, event{typ: r.Type, time: timeOf(request), body: e.Body, metadata: e.Metadata})
		case abi.RespReply:
			body, _ := abi.DecodeBody(&r)
			o.kind, o.body = r.Kind, string(body)
		case abi.RespReject, abi.RespFault:
			x, _ := abi.DecodeRefusal(&r)
			o.kind, o.code, o.message = r.Kind, string(x.Code), string(x.Message)
		}
	}
	return o, nil
}

// timeOf is the time of the command or query in a request.
func timeOf(request []byte) uint64 {
	r, _, _ := abi.DecodeRequest(request) // the request is our own
	return r.Time
}

// epoch is the time of the first command, in nanoseconds. Each later command is a second later.
const epoch = 1_700_000_000_000_000_000

// commandFrame makes the n-th command of a session. Its fields are computed from n, so that sessions can be
// compared.
func commandFrame(n int, slot uint32, typ uint16, version uint64, body []byte) []byte {
	var seed [abi.SeedSize]byte
	for i := range seed {
		seed[i] = byte(n*31 + i*7 + 1)
	}
	meta := abi.Metadata(nil).AppendPair("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	return abi.AppendCommand(nil, slot, typ, version, epoch+uint64(n)*1e9, &seed, fmt.Sprintf("conform-%d", n), meta,
		body)
}

func queryFrame(slot uint32, typ uint16, version uint64, body []byte) []byte {
	return abi.AppendQuery(nil, slot, typ, version, epoch, body)
}

func last(all []abi.Response) (abi.Response, bool) {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Kind != abi.RespLog {
			return all[i], true
		}
	}
	return abi.Response{}, false
}

// show describes the frames of a request for a report, shortly.
func show(request []byte) string {
	var parts []string
	for rest := request; len(rest) > 0; {
		r, next, err := abi.DecodeRequest(rest)
		if err != nil {
			parts = append(parts, fmt.Sprintf("%d malformed bytes %s", len(rest), clip(rest)))
			break
		}
		text := fmt.Sprintf("%v slot %d", r.Kind, r.Slot)
		switch r.Kind {
		case abi.ReqCommand:
			if c, err := abi.DecodeCommand(&r); err == nil {
				text += fmt.Sprintf(" type %d %s", r.Type, clip(c.Body))
			}
		case abi.ReqQuery:
			if q, err := abi.DecodeQuery(&r); err == nil {
				text += fmt.Sprintf(" type %d %s", r.Type, clip(q.Body))
			}
		case abi.ReqApply:
			if a, err := abi.DecodeApply(&r); err == nil {
				text += fmt.Sprintf(" type %d version %d %s", r.Type, r.Version, clip(a.Body))
			}
		}
		parts = append(parts, text)
		rest = next
		if len(parts) == 4 && len(rest) > 0 {
			parts = append(parts, fmt.Sprintf("%d more bytes", len(rest)))
			break
		}
	}
	if len(parts) == 0 {
		return "an empty request"
	}
	return strings.Join(parts, ", ")
}

func showResponse(r abi.Response) string {
	text := fmt.Sprintf("%v slot %d index %d aux %d", r.Kind, r.Slot, r.Index, r.Aux)
	switch r.Kind {
	case abi.RespReject, abi.RespFault:
		if x, err := abi.DecodeRefusal(&r); err == nil {
			text += fmt.Sprintf(" %s: %s", clip(x.Code), clip(x.Message))
		}
	case abi.RespEvent:
		if e, err := abi.DecodeEvent(&r); err == nil {
			text += fmt.Sprintf(" type %d %s", r.Type, clip(e.Body))
		}
	default:
		if b, err := abi.DecodeBody(&r); err == nil {
			text += " " + clip(b)
		}
	}
	return text
}

func showAll(all []abi.Response) string {
	if len(all) == 0 {
		return "no frame"
	}
	var parts []string
	for i, r := range all {
		if i == 6 {
			parts = append(parts, fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		parts = append(parts, showResponse(r))
	}
	return strings.Join(parts, "; ")
}

// clip quotes untrusted bytes, and cuts them.
func clip(b []byte) string {
	const maxShown = 60
	if len(b) > maxShown {
		return fmt.Sprintf("%q… (%d bytes)", b[:maxShown], len(b))
	}
	return fmt.Sprintf("%q", b)
}
