package conform

import (
	"bytes"
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// history is what commands have done to an entity.
type history struct {
	outcomes []outcome
	events   []event
	faults   int
	steps    []step // if they were requested
}

// step is an entity after a command. The first step is the entity before any command.
type step struct {
	version uint64
	state   []byte // its snapshot
}

// version is the entity's version: the number of its events.
func (h *history) version() uint64 { return uint64(len(h.events)) }

// maxDriven bounds the commands of one drive. It is enough for state machines of a few steps, and keeps a
// run short.
const maxDriven = 96

// drive opens an entity and sends it every command with every sample body. It does so in rounds, as some
// commands succeed only after others. It treats the entity as the host does: after a Fault it drops it
// and rebuilds it from its events.
func (s *session) drive(slot uint32, key string) (*history, error) { return s.driven(slot, key, false) }

// driven is drive. With steps, it takes a snapshot after each command.
func (s *session) driven(slot uint32, key string, steps bool) (*history, error) {
	h := &history{}
	if err := s.open(slot, key, 0, nil); err != nil {
		return nil, err
	}
	if steps {
		if err := s.keep(h, slot); err != nil {
			return nil, err
		}
	}
	for n, round := 0, 0; n < maxDriven; round++ {
		before := n
		for typ, c := range s.k.manifest.Commands {
			for _, body := range s.k.bodiesOf(c.Name, c.Input, n+round) {
				if n >= maxDriven {
					break
				}
				if err := s.step(h, n, slot, key, uint16(typ), body); err != nil {
					return nil, err
				}
				if steps {
					if err := s.keep(h, slot); err != nil {
						return nil, err
					}
				}
				n++
			}
		}
		if n == before || n > maxDriven/3 && len(h.events) == 0 {
			break
		}
	}
	return h, nil
}

// step sends one command and adds its outcome to the history.
func (s *session) step(h *history, n int, slot uint32, key string, typ uint16, body []byte) error {
	o, err := s.call(commandFrame(n, slot, typ, h.version(), body))
	if err != nil {
		return err
	}
	h.outcomes = append(h.outcomes, o)
	if o.kind == abi.RespFault {
		h.faults++
		if err := s.drop(slot); err != nil {
			return err
		}
		return s.replay(slot, key, h.events)
	}
	if o.kind == abi.RespReply {
		h.events = append(h.events, o.events...)
	}
	return nil
}

// keep adds a snapshot to the history.
func (s *session) keep(h *history, slot uint32) error {
	state, err := s.snapshot(slot)
	h.steps = append(h.steps, step{h.version(), state})
	return err
}

// replay opens an entity and applies events, in requests of several frames, as the host does.
func (s *session) replay(slot uint32, key string, events []event) error {
	return s.apply(abi.AppendOpen(nil, slot, 0, key, nil), slot, 0, events)
}

// apply sends events to an entity of that version, after the frames in b.
func (s *session) apply(b []byte, slot uint32, version uint64, events []event) error {
	for i, e := range events {
		b = abi.AppendApply(b, slot, e.typ, version+uint64(i+1), e.time, e.body, e.metadata)
		if len(b) > 32<<10 {
			if err := s.quiet(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	if len(b) == 0 {
		return nil
	}
	return s.quiet(b)
}

// look returns all that can be seen of an entity's state: its snapshot and the answers to all queries.
func (s *session) look(slot uint32, version uint64) (string, error) {
	var b bytes.Buffer
	state, err := s.snapshot(slot)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "snapshot %s", state)
	for typ, q := range s.k.manifest.Queries {
		for _, body := range s.k.bodies(q.Name, q.Input) {
			o, err := s.call(queryFrame(slot, uint16(typ), version, body))
			if err != nil {
				return "", err
			}
			if o.kind == abi.RespFault {
				// The entity may be in any state, so a query may fault.
				return b.String(), nil
			}
			fmt.Fprintf(&b, "\n%s %s: %v %s %s %s", q.Name, body, o.kind, o.body, o.code, o.message)
		}
	}
	return b.String(), nil
}

// differ says where two texts begin to differ.
func differ(a, b string) string {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	from := max(0, i-20)
	return fmt.Sprintf("at byte %d: %s against %s", i, clip([]byte(a[from:])), clip([]byte(b[from:])))
}

// firstCommand returns the body of the first command's first sample; ok is false if the module has no
// command.
func (k *kit) firstCommand() (typ uint16, body []byte, ok bool) {
	if len(k.manifest.Commands) == 0 {
		return 0, nil, false
	}
	c := k.manifest.Commands[0]
	return 0, k.bodies(c.Name, c.Input)[0], true
}
