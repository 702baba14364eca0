// Package abi is the contract between a Bulkhead host and the services it
// runs: the names of imports and exports, the frames that cross the border,
// their size limits and their codec. Host and guest meet here and nowhere else.
//
// The package is compiled into every Go guest, so it costs little: it imports
// nothing but strconv, allocates nothing while decoding, keeps no
// package state and does no work at start. SPEC.md in this directory says the
// same in prose and byte tables, for authors who write guests in other languages.
//
// Encoders append to a buffer the caller owns. Decoders are total: they return
// views into the bytes they were given, or a [DecodeError]; they never panic and
// never allocate, whatever the bytes are. All functions are safe for concurrent
// use on distinct buffers.
package abi

// Version is the major version of the ABI this package speaks. It is the
// number in the names of the exports and changes only when an old guest
// would misunderstand a new host.
const Version = 1

// Names of what a guest exports.
const (
	// ExportMemory is the guest's only linear memory.
	ExportMemory = "memory"
	// ExportInitialize is the optional reactor initialiser, () -> (), run once.
	ExportInitialize = "_initialize"
	// ExportReserve makes the mailbox hold at least n bytes and returns its
	// 8-aligned address, (n i32) -> (ptr i32). 0 refuses. The address stays valid
	// until the next call of ExportReserve.
	ExportReserve = "bulkhead_v1_reserve"
	// ExportCall runs the request frames in mailbox[0:n], (n i32) -> (i64). The
	// result is packed by [PackRange]; the range stays valid until the next call
	// of any export.
	ExportCall = "bulkhead_v1_call"
)

// Names of what a guest may import from the host.
const (
	// ImportModule is the module name of Bulkhead's own imports.
	ImportModule = "bulkhead_v1"
	// ImportLog writes a log line: (level i32, ptr i32, len i32) -> ().
	ImportLog = "log"
	// ImportFault leaves a message for the trap that follows: (ptr i32, len i32) -> ().
	ImportFault = "fault"
)

// ReservedPrefix starts every export and every import module name that belongs
// to Bulkhead. Of the exports with it, those of another major version,
// bulkhead_v<N>_…, are ignored, and all others that this package does not name
// are refused at upload.
const ReservedPrefix = "bulkhead_"

// ManifestSection is the name of the optional custom section that holds a copy
// of the manifest. Describe is authoritative; the host checks that they agree.
const ManifestSection = "bulkhead.manifest"

// Sizes that are part of the format and never change within a major version.
const (
	RequestHeaderSize  = 32
	ResponseHeaderSize = 24
	// FrameAlign is the multiple that every frame's length is padded to.
	FrameAlign = 8
	// SeedSize is the number of random bytes that come with a command.
	SeedSize = 16
)

// Limits of the format. A host may be configured to allow less, never more.
const (
	// MaxKeySize bounds an entity's key, in bytes.
	MaxKeySize = 256
	// MaxNameSize bounds the name of a command, query or event type, in bytes.
	MaxNameSize = 128
	// MaxCommandIDSize bounds a command's id, in bytes.
	MaxCommandIDSize = 128
	// MaxMetadataSize bounds a command's or event's encoded metadata, in bytes.
	MaxMetadataSize = 16 << 10
	// MaxCodeSize bounds the code of a Reject or Fault, in bytes.
	MaxCodeSize = 128
	// MaxMessageSize bounds the message of a Reject or Fault, in bytes.
	MaxMessageSize = 4 << 10
	// MaxManifestSize bounds a Description, in bytes.
	MaxManifestSize = 1 << 20
	// MaxTypes bounds the commands, the queries and the events of a manifest, each.
	MaxTypes = 4096
	// MaxFrameSize bounds one frame with header and padding, in bytes, so that
	// the sum of header and payload never overflows 32 bits.
	MaxFrameSize = 1 << 30
)

// RequestKind says what the host asks. The values are part of the wire format
// and are only ever appended to.
type RequestKind uint8

// The kinds of request frames.
const (
	ReqOpen     RequestKind = 1 // make an entity resident: key, version, snapshot or nothing
	ReqApply    RequestKind = 2 // replay one event
	ReqCommand  RequestKind = 3 // decide one command
	ReqQuery    RequestKind = 4 // read state
	ReqSnapshot RequestKind = 5 // encode an entity's state
	ReqDrop     RequestKind = 6 // forget an entity
	ReqDescribe RequestKind = 7 // hand out the manifest
)

// String names the kind, for messages.
func (k RequestKind) String() string {
	switch k {
	case ReqOpen:
		return "Open"
	case ReqApply:
		return "Apply"
	case ReqCommand:
		return "Command"
	case ReqQuery:
		return "Query"
	case ReqSnapshot:
		return "Snapshot"
	case ReqDrop:
		return "Drop"
	case ReqDescribe:
		return "Describe"
	}
	return "unknown request kind"
}

// ResponseKind says what the guest answers. The values are part of the wire
// format and are only ever appended to.
type ResponseKind uint8

// The kinds of response frames.
const (
	RespEvent       ResponseKind = 1 // a fact the command caused
	RespReply       ResponseKind = 2 // the command or query succeeded
	RespReject      ResponseKind = 3 // refused by the domain: nothing stands, the entity is clean
	RespFault       ResponseKind = 4 // the handler failed: the entity is dirty
	RespSnapshot    ResponseKind = 5 // an entity's encoded state
	RespDescription ResponseKind = 6 // the manifest, JSON
	RespLog         ResponseKind = 7 // a log line; Aux is its level
	RespEffect      ResponseKind = 8 // reserved for effects other than events; version 1 knows none
)

// String names the kind, for messages.
func (k ResponseKind) String() string {
	switch k {
	case RespEvent:
		return "Event"
	case RespReply:
		return "Reply"
	case RespReject:
		return "Reject"
	case RespFault:
		return "Fault"
	case RespSnapshot:
		return "Snapshot"
	case RespDescription:
		return "Description"
	case RespLog:
		return "Log"
	case RespEffect:
		return "Effect"
	}
	return "unknown response kind"
}

// Terminal reports whether a frame of this kind ends the answer to a Command
// or a Query.
func (k ResponseKind) Terminal() bool {
	return k == RespReply || k == RespReject || k == RespFault
}

// Flags of request frames.
const (
	// FlagSnapshot on an Open says that a snapshot follows the key; without it
	// the entity starts from its zero state.
	FlagSnapshot uint8 = 1 << 0
)

// LogLevel is the level of a log line. The values are part of the wire format.
type LogLevel uint32

// The log levels, in rising order.
const (
	LogDebug LogLevel = 0
	LogInfo  LogLevel = 1
	LogWarn  LogLevel = 2
	LogError LogLevel = 3
)

// Codes that the SDKs and the host give to faults and rejections that are not
// the domain's own. A domain should not use them for its rejections.
const (
	CodePanic          = "panic"            // the handler panicked
	CodeError          = "error"            // the handler returned an error that is no rejection
	CodeErrorAfterEmit = "error_after_emit" // the handler emitted events and then failed
	CodeBadCommand     = "bad_command"      // the command's body does not fit its type
	CodeBadQuery       = "bad_query"        // the query's body does not fit its type
	CodeBadEvent       = "bad_event"        // a replayed event's body does not fit its type
	CodeBadSnapshot    = "bad_snapshot"     // a snapshot does not fit the state
	CodeUnknownType    = "unknown_type"     // a type index beyond the manifest
	CodeNoEntity       = "no_entity"        // the slot is not open
	CodeBadFrame       = "bad_frame"        // the request could not be decoded
	CodeGoroutineLeak  = "goroutine_leak"   // a handler left a goroutine behind
)

// PackRange packs an address and a length as [ExportCall] returns them: the
// address in the high 32 bits, the length in the low 32. Zero is the empty
// answer. Example: address 0x00010000, length 0x48 is 0x00010000_00000048.
func PackRange(addr, length uint32) uint64 { return uint64(addr)<<32 | uint64(length) }

// UnpackRange is the inverse of [PackRange].
func UnpackRange(r uint64) (addr, length uint32) { return uint32(r >> 32), uint32(r) }
