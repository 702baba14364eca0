package conform

import (
	"bytes"
	"fmt"
	"maps"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func checkMailbox(k *kit) error {
	granted := 0
	for _, size := range []int{64 << 10, 256 << 10, 1 << 20, 2 << 20} {
		before := maps.Clone(k.watched)
		err := k.with(func(s *session) error {
			if got, err := s.exchange(nil); err != nil {
				return err
			} else if len(got) > 0 {
				return failf("%s to an empty request", showAll(got))
			}
			small := abi.AppendDrop(nil, 1)
			big := bytes.Repeat(small, size/len(small)) // none of these frames has an answer
			for _, request := range [][]byte{small, big, small, big[:len(big)/2], big, nil, small} {
				if err := s.quiet(request); err != nil {
					return err
				}
			}
			return s.open(0, "alice", 0, nil)
		})
		if err != nil && size > 64<<10 {
			// More than a guest must grant. If reserve refuses it, the host reports a violation
			// or that memory ran out.
			k.watched = before
			return remark(fmt.Sprintf("requests of up to %d bytes; not of %d: %v", granted, size, err))
		}
		if err != nil {
			return err
		}
		granted = size
	}
	return nil
}

func checkDescribe(k *kit) error {
	var first []byte
	for range 2 {
		err := k.with(func(s *session) error {
			for _, request := range [][]byte{
				abi.AppendDescribe(nil),
				abi.AppendDescribe(abi.AppendDrop(nil, 3)),
				abi.AppendDescribe(abi.AppendOpen(nil, 0, 0, "alice", nil)),
			} {
				got, err := s.exchange(request)
				if err != nil {
					return err
				}
				r, _ := last(got)
				if r.Kind != abi.RespDescription {
					return failf("%s to a Describe", showAll(got))
				}
				body, _ := abi.DecodeBody(&r)
				if first == nil {
					if _, err := service.ParseManifest(body); err != nil {
						return failf("%v", err)
					}
					first = append([]byte{}, body...)
				}
				if !bytes.Equal(first, body) {
					return failf("two descriptions differ %s", differ(string(first), string(body)))
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func checkNotOpen(k *kit) error {
	return k.with(func(s *session) error {
		dropped := uint32(2)
		if err := s.open(dropped, "bob", 0, nil); err != nil {
			return err
		}
		if err := s.drop(dropped); err != nil {
			return err
		}
		for _, slot := range []uint32{0, 1, dropped, 4095} {
			if err := s.drop(slot); err != nil {
				return err
			}
			for _, request := range [][]byte{
				abi.AppendApply(nil, slot, 0, 1, epoch, []byte("{}"), nil),
				commandFrame(0, slot, 0, 0, []byte("{}")),
				queryFrame(slot, 0, 0, []byte("{}")),
				abi.AppendSnapshotRequest(nil, slot),
			} {
				if err := s.refused(request, false); err != nil {
					return err
				}
			}
		}
		return s.open(0, "alice", 0, nil)
	})
}

// refused sends a request that must be answered by one Fault, or, with rejectToo, by one Fault or Reject.
func (s *session) refused(request []byte, rejectToo bool) error {
	got, err := s.exchange(request)
	if err != nil {
		return err
	}
	r, ok := last(got)
	if !ok || r.Kind != abi.RespFault && !(rejectToo && r.Kind == abi.RespReject) {
		return failf("%s, after %s", showAll(got), show(request))
	}
	return nil
}

func checkUnknownTypes(k *kit) error {
	return k.with(func(s *session) error {
		reopen := func() error { return s.open(0, "alice", 0, nil) } // a Fault makes the entity dirty
		for _, far := range []int{0, 1, 250, 65535} {
			c, q, e := len(k.manifest.Commands)+far, len(k.manifest.Queries)+far, len(k.manifest.Events)+far
			for _, x := range []struct {
				typ     int
				request func(uint16) []byte
				reject  bool
			}{
				{c, func(t uint16) []byte { return commandFrame(0, 0, t, 0, []byte("{}")) }, true},
				{q, func(t uint16) []byte { return queryFrame(0, t, 0, []byte("{}")) }, true},
				{e, func(t uint16) []byte { return abi.AppendApply(nil, 0, t, 1, epoch, []byte("{}"), nil) }, false},
			} {
				if err := reopen(); err != nil {
					return err
				}
				if err := s.refused(x.request(uint16(min(x.typ, 65535))), x.reject); err != nil {
					return err
				}
			}
		}
		return reopen()
	})
}

// checkGarbage sends what clients may send. Any legal answer is right: a body that fits no other type may
// fit this one.
func checkGarbage(k *kit) error {
	return k.with(func(s *session) error {
		try := func(request []byte) error {
			if err := s.open(0, "alice", 0, nil); err != nil {
				return err
			}
			got, err := s.exchange(request)
			if err != nil {
				return err
			}
			for _, r := range got {
				if r.Kind == abi.RespFault {
					return s.drop(0)
				}
			}
			return nil
		}
		for _, body := range garbage() {
			for typ := range min(len(k.manifest.Commands), 64) {
				if err := try(commandFrame(1, 0, uint16(typ), 0, body)); err != nil {
					return err
				}
			}
			for typ := range min(len(k.manifest.Queries), 64) {
				if err := try(queryFrame(0, uint16(typ), 0, body)); err != nil {
					return err
				}
			}
			for typ := range min(len(k.manifest.Events), 64) {
				if err := try(abi.AppendApply(nil, 0, uint16(typ), 1, epoch, body, nil)); err != nil {
					return err
				}
			}
			// The module makes snapshots itself, but an older build may have made this one.
			opens := [][]byte{abi.AppendOpen(nil, 0, 1, "alice", append([]byte{}, body...))}
			for schema := range min(len(k.manifest.EarlierSchemas), 64) {
				opens = append(opens,
					abi.AppendOpenEarlier(nil, 0, 1, "alice", append([]byte{}, body...), uint16(schema)))
			}
			for _, open := range opens {
				if _, err := s.exchange(open); err != nil {
					return err
				}
				if err := s.drop(0); err != nil {
					return err
				}
			}
		}
		return s.open(0, "alice", 0, nil)
	})
}

func checkUnknownKind(k *kit) error {
	return k.with(func(s *session) error {
		s.loose = true // whether Describe is answered is checked here
		for _, kind := range []abi.RequestKind{0, 8, 100, 255} {
			b, at := abi.BeginRequest(nil)
			b = append(b, "fields of a later version"...)
			b = abi.EndRequest(b, at, abi.Request{Kind: kind, Slot: 5})
			got, err := s.exchange(abi.AppendDescribe(b))
			if err != nil {
				return err
			}
			unknown, described := 0, false
			for _, r := range got {
				if r.Index == 0 && r.Kind == abi.RespFault {
					unknown++
				}
				described = described || r.Index == 1 && r.Kind == abi.RespDescription
			}
			if unknown > 1 || !described {
				return failf("%s to a frame of kind %d and a Describe", showAll(got), kind)
			}
		}
		return nil
	})
}

// checkMalformed sends what the host never sends. A guest that decodes carefully makes its other bugs
// easier to find.
func checkMalformed(k *kit) error {
	word := func(b []byte, at int, v uint32) []byte {
		b[at], b[at+1], b[at+2], b[at+3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
		return b
	}
	describe := func() []byte { return abi.AppendDescribe(nil) }
	open := func() []byte { return abi.AppendOpen(nil, 0, 0, "alice", nil) }
	command := func() []byte { return commandFrame(0, 0, 0, 0, []byte("{}")) }
	return k.with(func(s *session) error {
		s.loose = true
		for name, request := range map[string][]byte{
			"8 bytes":                      describe()[:8],
			"a length of 0":                word(describe(), 0, 0),
			"a length of 24":               word(describe(), 0, 24),
			"a length of 36":               word(open(), 0, 36),
			"a length beyond the request":  word(describe(), 0, 40),
			"a length of 0xfffffff8":       word(describe(), 0, 0xfffffff8),
			"a payload beyond its frame":   word(describe(), 12, 1),
			"a payload of 0xffffffff":      word(open(), 12, 0xffffffff),
			"a payload without its fields": word(open(), 12, 7),
			"a key beyond its payload":     word(open(), 32, 200),
			"a key of 0xffffffff bytes":    word(open(), 32, 0xffffffff),
			"a command without its fields": word(command(), 12, 31),
			"a body beyond its payload":    word(command(), 32+24, 1000),
			"a body of 0xfffffff0 bytes":   word(command(), 32+24, 0xfffffff0),
			"a command id of 0x80000000":   word(command(), 32+16, 0x80000000),
			"metadata of 0x7fffffff bytes": word(command(), 32+20, 0x7fffffff),
			"metadata that is no pairs": abi.AppendCommand(nil, 0, 0, 0, 0, new([16]byte), "id", []byte{9, 9, 9},
				nil),
			"a good frame, then half a one": append(describe(), describe()[:16]...),
		} {
			got, err := s.exchange(request)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			r, ok := last(got)
			if !ok || r.Kind != abi.RespFault {
				if name == "metadata that is no pairs" && ok && r.Kind.Terminal() {
					continue // guests need not check metadata
				}
				return failf("%s: %s", name, showAll(got))
			}
		}
		s.loose = false
		return s.open(0, "alice", 0, nil)
	})
}
