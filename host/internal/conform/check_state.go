package conform

import (
	"bytes"
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

const noEvents inapplicable = "no command caused an event; give sample bodies that do"

// slotsTried is larger than a small table of entities, and smaller than the default number of resident
// entities.
const slotsTried = 3000

func checkSlots(k *kit) error {
	slots := uint32(min(slotsTried, k.o.Limits.ResidentEntities))
	return k.with(func(s *session) error {
		if err := s.open(0, "alice", 0, nil); err != nil {
			return err
		}
		fresh, err := s.snapshot(0)
		if err != nil {
			return err
		}
		// Many slots, the highest first, so that a table must grow by large steps.
		var b []byte
		for slot := slots; slot > 0; slot-- {
			b = abi.AppendOpen(b, slot-1, 0, fmt.Sprintf("entity-%d", slot-1), nil)
			if len(b) > 32<<10 || slot == 1 {
				if err := s.quiet(b); err != nil {
					return err
				}
				b = b[:0]
			}
		}
		h, err := s.drive(slots-1, "driven")
		if err != nil {
			return err
		}
		// Open again, first without a Drop and then after one: each time the entity is new.
		for _, dropped := range []bool{false, true} {
			if dropped {
				if err := s.drop(slots - 1); err != nil {
					return err
				}
			}
			if err := s.open(slots-1, "alice", 0, nil); err != nil {
				return err
			}
			again, err := s.snapshot(slots - 1)
			if err != nil {
				return err
			}
			if !bytes.Equal(again, fresh) {
				return failf(
					"a slot opened again (dropped before: %v, after %d events) snapshots as %s, a fresh one as %s",
					dropped, len(h.events), clip(again), clip(fresh))
			}
		}
		// Drop all at once, and use a slot again.
		for slot := range slots {
			b = abi.AppendDrop(b, slot)
		}
		for len(b) > 0 {
			n := min(len(b), 32<<10)
			if err := s.quiet(b[:n]); err != nil {
				return err
			}
			b = b[n:]
		}
		if err := s.refused(abi.AppendSnapshotRequest(nil, 0), false); err != nil {
			return err
		}
		return s.open(0, "alice", 0, nil)
	})
}

// later returns a request in which every frame has unknown flag bits and additional fields after its
// payload.
func later(request []byte, flags uint8, fields string) []byte {
	var out []byte
	for len(request) > 0 {
		r, rest, err := abi.DecodeRequest(request)
		if err != nil {
			break
		}
		b, at := abi.BeginRequest(out)
		b = append(append(b, r.Payload...), fields...)
		r.Flags |= flags
		out, request = abi.EndRequest(b, at, r), rest
	}
	return out
}

func checkLater(k *kit) error {
	requests := [][]byte{abi.AppendDescribe(nil), abi.AppendOpen(nil, 0, 0, "alice", nil)}
	for typ, c := range k.manifest.Commands {
		for i, body := range k.bodies(c.Name, c.Input) {
			requests = append(requests, commandFrame(i, 0, uint16(typ), 0, body))
		}
	}
	for typ, q := range k.manifest.Queries {
		requests = append(requests, queryFrame(0, uint16(typ), 0, k.bodies(q.Name, q.Input)[0]))
	}
	for typ := range k.manifest.Events {
		requests = append(requests, abi.AppendApply(nil, 1, uint16(typ), 1, epoch, []byte("{}"), nil))
	}
	requests = append(requests, abi.AppendSnapshotRequest(nil, 0), abi.AppendDrop(nil, 0),
		abi.AppendOpen(nil, 0, 0, "bob", nil), abi.AppendSnapshotRequest(nil, 0))
	run := func(flags uint8, fields string) (all [][]byte, err error) {
		err = k.with(func(s *session) error {
			s.loose = flags != 0 || fields != "" // differences are checked here
			for _, request := range requests {
				if _, err := s.exchange(later(request, flags, fields)); err != nil {
					return err
				}
			}
			all = s.transcript
			return nil
		})
		return all, err
	}
	plain, err := run(0, "")
	if err != nil {
		return err
	}
	unknown := ^abi.FlagSnapshot
	if len(k.manifest.EarlierSchemas) > 0 {
		unknown &^= abi.FlagEarlier
	}
	for _, x := range []struct {
		flags  uint8
		fields string
	}{{unknown, ""}, {0, "01234567"}, {unknown, "\xff\xff\xff\xff\xff\xff\xff\xff1"}} {
		got, err := run(x.flags, x.fields)
		if err != nil {
			return err
		}
		for i := range plain {
			if !bytes.Equal(plain[i], got[i]) {
				return failf("with flags %#02x and %d more bytes of fields another answer to %s: %s", x.flags,
					len(x.fields), show(requests[i]), differ(string(plain[i]), string(got[i])))
			}
		}
	}
	return nil
}

// checkReplayed compares an entity that decided commands with an entity in a new instance that had their
// events applied, as the host replays them: each at its version, with the time of its command and the metadata
// that the guest gave it. So a guest that applies its own events with anything else is found. It compares
// after each command, as a difference may be gone at the end.
func checkReplayed(k *kit) error {
	var h *history
	var acted string
	err := k.with(func(s *session) (err error) {
		if h, err = s.driven(0, "alice", true); err != nil {
			return err
		}
		acted, err = s.look(0, h.version())
		return err
	})
	if err != nil {
		return err
	}
	if len(h.events) == 0 {
		return noEvents
	}
	return k.with(func(s *session) error {
		if err := s.open(0, "alice", 0, nil); err != nil {
			return err
		}
		version := uint64(0)
		for n, step := range h.steps {
			if err := s.apply(nil, 0, version, h.events[version:step.version]); err != nil {
				return err
			}
			version = step.version
			state, err := s.snapshot(0)
			if err != nil {
				return err
			}
			if !bytes.Equal(state, step.state) {
				return failf("after %d commands and their %d events, acted against replayed %s",
					n, version, differ(string(step.state), string(state)))
			}
		}
		replayed, err := s.look(0, h.version())
		if err != nil {
			return err
		}
		if replayed != acted {
			return failf("after %d commands and their %d events, acted against replayed %s", len(h.outcomes),
				len(h.events), differ(acted, replayed))
		}
		return remark(fmt.Sprintf("%d commands, %d events", len(h.outcomes), len(h.events)))
	})
}

func checkRefusalsLeaveNothing(k *kit) error {
	tried := 0
	err := k.with(func(s *session) error {
		h, err := s.drive(0, "alice")
		if err != nil {
			return err
		}
		before, err := s.look(0, h.version())
		if err != nil {
			return err
		}
		unchanged := func(request []byte) error {
			o, err := s.call(request)
			if err != nil {
				return err
			}
			if o.kind == abi.RespFault || len(o.events) > 0 { // then the entity may be dirty or changed
				if err := s.drop(0); err != nil {
					return err
				}
				return s.replay(0, "alice", h.events)
			}
			tried++
			after, err := s.look(0, h.version())
			if err != nil {
				return err
			}
			if after != before {
				return failf("%s without an event changed the entity %s, after %s", o, differ(before, after),
					show(request))
			}
			return nil
		}
		for typ, q := range k.manifest.Queries {
			for _, body := range append(k.bodies(q.Name, q.Input), garbage()...) {
				if err := unchanged(queryFrame(0, uint16(typ), h.version(), body)); err != nil {
					return err
				}
			}
		}
		for typ, c := range k.manifest.Commands {
			for i, body := range append(k.bodies(c.Name, c.Input), garbage()...) {
				if err := unchanged(commandFrame(1000+i, 0, uint16(typ), h.version(), body)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err == nil && tried == 0 {
		return inapplicable("no query answered and no command was rejected")
	}
	return err
}

func checkSnapshots(k *kit) error {
	var h *history
	var state []byte
	var looked string
	var next []outcome
	err := k.with(func(s *session) (err error) {
		if h, err = s.driven(0, "alice", true); err != nil {
			return err
		}
		if state, err = s.snapshot(0); err != nil {
			return err
		}
		if looked, err = s.look(0, h.version()); err != nil {
			return err
		}
		next, err = s.round(0, h.version())
		return err
	})
	if err != nil {
		return err
	}
	return k.with(func(s *session) error {
		if err := s.open(9, "alice", h.version(), state); err != nil {
			return err
		}
		again, err := s.snapshot(9)
		if err != nil {
			return err
		}
		if !bytes.Equal(again, state) {
			return failf("a snapshot taken of a snapshot differs %s", differ(string(state), string(again)))
		}
		seen, err := s.look(9, h.version())
		if err != nil {
			return err
		}
		if seen != looked {
			return failf("after %d events, the entity against its snapshot %s", len(h.events), differ(looked, seen))
		}
		after, err := s.round(9, h.version())
		if err != nil {
			return err
		}
		if err := same(next, after, "from a snapshot"); err != nil {
			return err
		}
		return s.restored(h)
	})
}

// restored opens an entity with each snapshot of a history, and applies the events up to the next one. An
// event that needs what a snapshot has left out shows it.
func (s *session) restored(h *history) error {
	for i, from := range h.steps[:len(h.steps)-1] {
		to := h.steps[i+1]
		open := abi.AppendOpen(nil, 9, from.version, "alice", from.state)
		if err := s.apply(open, 9, from.version, h.events[from.version:to.version]); err != nil {
			return err
		}
		state, err := s.snapshot(9)
		if err != nil {
			return err
		}
		if !bytes.Equal(state, to.state) {
			return failf(
				"the entity itself, after %d events, against its snapshot after %d events and the events since, %s",
				to.version, from.version, differ(string(to.state), string(state)))
		}
	}
	return nil
}

// round sends each command once, until one faults, and returns the outcomes.
func (s *session) round(slot uint32, version uint64) (all []outcome, err error) {
	for typ, c := range s.k.manifest.Commands {
		body := s.k.bodies(c.Name, c.Input)[0]
		o, err := s.call(commandFrame(500+typ, slot, uint16(typ), version, body))
		if err != nil {
			return nil, err
		}
		all = append(all, o)
		if o.kind == abi.RespFault {
			break
		}
		version += uint64(len(o.events))
	}
	return all, nil
}

func same(want, got []outcome, where string) error {
	for i := range want {
		if i >= len(got) || want[i].String() != got[i].String() {
			return failf("command %d: %v, and %s: %v", i, want[i], where, append(got, outcome{})[i])
		}
	}
	return nil
}

func checkDeterminism(k *kit) error {
	run := func() (all [][]byte, err error) {
		err = k.with(func(s *session) error {
			for slot := range uint32(3) {
				h, err := s.drive(slot, fmt.Sprintf("entity-%d", slot))
				if err != nil {
					return err
				}
				if _, err := s.look(slot, h.version()); err != nil {
					return err
				}
			}
			all = s.transcript
			return nil
		})
		return all, err
	}
	first, err := run()
	if err != nil {
		return err
	}
	second, err := run()
	if err != nil {
		return err
	}
	for i := range min(len(first), len(second)) {
		if !bytes.Equal(first[i], second[i]) {
			return failf("answer %d differs %s", i, differ(string(first[i]), string(second[i])))
		}
	}
	if len(first) != len(second) {
		return failf("%d answers against %d", len(first), len(second))
	}
	return nil
}

// checkIndependence sends the same commands to an entity alone, and to the entity in another slot among
// others.
func checkIndependence(k *kit) error {
	var alone *history
	err := k.with(func(s *session) (err error) {
		alone, err = s.drive(0, "alice")
		return err
	})
	if err != nil {
		return err
	}
	if _, _, ok := k.firstCommand(); !ok {
		return inapplicable("the service has no command")
	}
	return k.with(func(s *session) error {
		for slot := range uint32(4) {
			if _, err := s.drive(slot, fmt.Sprintf("other-%d", slot)); err != nil {
				return err
			}
		}
		if err := s.drop(1); err != nil {
			return err
		}
		before, err := s.snapshot(2)
		if err != nil {
			return err
		}
		among, err := s.drive(7, "alice")
		if err != nil {
			return err
		}
		if err := same(alone.outcomes, among.outcomes, "among other entities"); err != nil {
			return err
		}
		after, err := s.snapshot(2)
		if err != nil {
			return err
		}
		if !bytes.Equal(before, after) {
			return failf("another entity changed %s", differ(string(before), string(after)))
		}
		return nil
	})
}
