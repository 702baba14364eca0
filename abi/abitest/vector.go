// Package abitest contains what tests of the ABI share: golden vectors in a data file that any
// language can read (testdata/golden.json), a freestanding C guest with its built module
// (testdata/c-guest), and helpers to decode frames. Only tests import it.
package abitest

import (
	"encoding/hex"
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// Kind says what the bytes of a vector encode.
type Kind string

// The kinds of vectors. All except the last three are single frames.
const (
	Open            Kind = "open"
	Apply           Kind = "apply"
	Command         Kind = "command"
	Query           Kind = "query"
	SnapshotRequest Kind = "snapshot_request"
	Drop            Kind = "drop"
	Describe        Kind = "describe"
	Event           Kind = "event"
	Reply           Kind = "reply"
	Reject          Kind = "reject"
	Fault           Kind = "fault"
	Snapshot        Kind = "snapshot"
	Description     Kind = "description"
	Log             Kind = "log"
	Metadata        Kind = "metadata" // pairs without a frame
	Request         Kind = "request"  // any request frame; only used with an error
	Response        Kind = "response" // any response frame; only used with an error
)

// Vector is a pair of fields and bytes. If Error is set, the bytes are refused by decoders, and
// Fields is empty.
type Vector struct {
	Name   string `json:"name"`
	Note   string `json:"note"`
	Kind   Kind   `json:"kind"`
	Fields Fields `json:"fields,omitzero"`
	Hex    string `json:"hex"`
	// Error is the name of the error, see [ErrorName].
	Error string `json:"error,omitempty"`
	// DecodeOnly marks bytes that decoders accept, but that no encoder of version 1 writes.
	DecodeOnly bool `json:"decode_only,omitempty"`
}

// Fields are the fields of all kinds of frames. Fields that a kind does not have are zero, and
// are left out of the JSON. 64-bit numbers are strings in JSON, as not every language reads them
// exactly.
type Fields struct {
	Flags    uint8       `json:"flags,omitempty"`
	Type     uint16      `json:"type,omitempty"`
	Slot     uint32      `json:"slot,omitempty"`
	Version  uint64      `json:"version,omitempty,string"`
	Time     uint64      `json:"time,omitempty,string"`
	Index    uint32      `json:"index,omitempty"`
	Aux      uint32      `json:"aux,omitempty"`
	Key      string      `json:"key,omitempty"`
	Snapshot *string     `json:"snapshot,omitempty"` // null: no snapshot; "": a snapshot of no bytes
	SeedHex  string      `json:"seed_hex,omitempty"`
	ID       string      `json:"id,omitempty"`
	Metadata [][2]string `json:"metadata,omitempty"`
	Body     string      `json:"body,omitempty"`
	Code     string      `json:"code,omitempty"`
	Message  string      `json:"message,omitempty"`
}

// Bytes decodes the vector's hex.
func (v Vector) Bytes() ([]byte, error) { return hex.DecodeString(v.Hex) }

// Encode makes a vector's bytes from its fields.
func Encode(k Kind, f Fields) ([]byte, error) {
	meta := pairs(f.Metadata)
	body := []byte(f.Body)
	reply := func(kind abi.ResponseKind) abi.Response {
		return abi.Response{Kind: kind, Slot: f.Slot, Index: f.Index, Aux: f.Aux}
	}
	switch k {
	case Open:
		var snapshot []byte
		if f.Snapshot != nil {
			snapshot = append([]byte{}, *f.Snapshot...)
			if f.Flags&abi.FlagEarlier != 0 {
				return abi.AppendOpenEarlier(nil, f.Slot, f.Version, f.Key, snapshot, f.Type), nil
			}
		}
		return abi.AppendOpen(nil, f.Slot, f.Version, f.Key, snapshot), nil
	case Apply:
		return abi.AppendApply(nil, f.Slot, f.Type, f.Version, f.Time, body, meta), nil
	case Command:
		var seed [abi.SeedSize]byte
		if n, err := hex.Decode(seed[:], []byte(f.SeedHex)); err != nil || n != len(seed) {
			return nil, fmt.Errorf("seed %q is not 16 bytes of hex", f.SeedHex)
		}
		return abi.AppendCommand(nil, f.Slot, f.Type, f.Version, f.Time, &seed, f.ID, meta, body), nil
	case Query:
		return abi.AppendQuery(nil, f.Slot, f.Type, f.Version, f.Time, body), nil
	case SnapshotRequest:
		return abi.AppendSnapshotRequest(nil, f.Slot), nil
	case Drop:
		return abi.AppendDrop(nil, f.Slot), nil
	case Describe:
		return abi.AppendDescribe(nil), nil
	case Event:
		return abi.AppendEvent(nil, f.Slot, f.Index, f.Type, body, meta), nil
	case Reply:
		return abi.AppendBody(nil, reply(abi.RespReply), body), nil
	case Snapshot:
		return abi.AppendBody(nil, reply(abi.RespSnapshot), body), nil
	case Description:
		return abi.AppendBody(nil, reply(abi.RespDescription), body), nil
	case Log:
		return abi.AppendBody(nil, reply(abi.RespLog), body), nil
	case Reject:
		return abi.AppendRefusal(nil, reply(abi.RespReject), f.Code, f.Message), nil
	case Fault:
		return abi.AppendRefusal(nil, reply(abi.RespFault), f.Code, f.Message), nil
	case Metadata:
		return meta, nil
	}
	return nil, fmt.Errorf("kind %q has no encoder", k)
}

// Decode is the inverse of [Encode]. It refuses a frame of another kind, and bytes after the
// frame.
func Decode(k Kind, b []byte) (Fields, error) {
	switch k {
	case Metadata:
		p, err := unpair(b)
		return Fields{Metadata: p}, err
	case Open, Apply, Command, Query, SnapshotRequest, Drop, Describe, Request:
		r, rest, err := abi.DecodeRequest(b)
		if err != nil {
			return Fields{}, err
		}
		if want, ok := requestKinds[k]; ok && r.Kind != want || len(rest) != 0 {
			return Fields{}, fmt.Errorf("got %v and %d more bytes, want one %s", r.Kind, len(rest), k)
		}
		return requestFields(r)
	}
	r, rest, err := abi.DecodeResponse(b)
	if err != nil {
		return Fields{}, err
	}
	if want, ok := responseKinds[k]; ok && r.Kind != want || len(rest) != 0 {
		return Fields{}, fmt.Errorf("got %v and %d more bytes, want one %s", r.Kind, len(rest), k)
	}
	return responseFields(r)
}

var requestKinds = map[Kind]abi.RequestKind{
	Open: abi.ReqOpen, Apply: abi.ReqApply, Command: abi.ReqCommand, Query: abi.ReqQuery,
	SnapshotRequest: abi.ReqSnapshot, Drop: abi.ReqDrop, Describe: abi.ReqDescribe,
}

var responseKinds = map[Kind]abi.ResponseKind{
	Event: abi.RespEvent, Reply: abi.RespReply, Reject: abi.RespReject, Fault: abi.RespFault,
	Snapshot: abi.RespSnapshot, Description: abi.RespDescription, Log: abi.RespLog,
}

func requestFields(r abi.Request) (Fields, error) {
	f := Fields{Flags: r.Flags, Type: r.Type, Slot: r.Slot, Version: r.Version, Time: r.Time}
	switch r.Kind {
	case abi.ReqOpen:
		o, err := abi.DecodeOpen(&r)
		if err != nil {
			return Fields{}, err
		}
		f.Key = string(o.Key)
		if o.Snapshot != nil {
			s := string(o.Snapshot)
			f.Snapshot = &s
		}
	case abi.ReqApply:
		a, err := abi.DecodeApply(&r)
		if err != nil {
			return Fields{}, err
		}
		f.Body = string(a.Body)
		f.Metadata, err = unpair(a.Metadata)
		return f, err
	case abi.ReqCommand:
		c, err := abi.DecodeCommand(&r)
		if err != nil {
			return Fields{}, err
		}
		f.SeedHex, f.ID, f.Body = hex.EncodeToString(c.Seed[:]), string(c.ID), string(c.Body)
		f.Metadata, err = unpair(c.Metadata)
		return f, err
	case abi.ReqQuery:
		q, err := abi.DecodeQuery(&r)
		if err != nil {
			return Fields{}, err
		}
		f.Body = string(q.Body)
	}
	return f, nil
}

func responseFields(r abi.Response) (Fields, error) {
	f := Fields{Flags: r.Flags, Type: r.Type, Slot: r.Slot, Index: r.Index, Aux: r.Aux}
	switch r.Kind {
	case abi.RespEvent:
		e, err := abi.DecodeEvent(&r)
		if err != nil {
			return Fields{}, err
		}
		f.Body = string(e.Body)
		f.Metadata, err = unpair(e.Metadata)
		return f, err
	case abi.RespReject, abi.RespFault:
		x, err := abi.DecodeRefusal(&r)
		if err != nil {
			return Fields{}, err
		}
		f.Code, f.Message = string(x.Code), string(x.Message)
	case abi.RespReply, abi.RespSnapshot, abi.RespDescription, abi.RespLog:
		body, err := abi.DecodeBody(&r)
		if err != nil {
			return Fields{}, err
		}
		f.Body = string(body)
	}
	return f, nil
}

func pairs(p [][2]string) abi.Metadata {
	var m abi.Metadata
	for _, x := range p {
		m = m.AppendPair(x[0], x[1])
	}
	return m
}

func unpair(m abi.Metadata) (p [][2]string, err error) {
	if err := m.Valid(); err != nil {
		return nil, err
	}
	for {
		name, value, rest, ok := m.Next()
		if !ok {
			return p, nil
		}
		p, m = append(p, [2]string{string(name), string(value)}), rest
	}
}

// ErrorName returns the stable name of a decoder's error in golden.json, or "" for an error of
// another type.
func ErrorName(err error) string {
	switch err {
	case abi.ErrShortHeader:
		return "short_header"
	case abi.ErrFrameLength:
		return "frame_length"
	case abi.ErrPayload:
		return "payload"
	case abi.ErrShortPayload:
		return "short_payload"
	case abi.ErrField:
		return "field"
	case abi.ErrMetadata:
		return "metadata"
	case abi.ErrTooLarge:
		return "too_large"
	}
	return ""
}
