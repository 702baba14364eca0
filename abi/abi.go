// Package abi is the contract between a Bulkhead host and the services that it runs: the names
// of imports and exports, the frames that they exchange, the limits of sizes, and the codec.
// Host and guest share nothing else.
//
// The package is compiled into every Go guest, so it must cost little: it imports only strconv,
// does not allocate while decoding, keeps no package state and does no work at start. SPEC.md in
// this directory says the same in prose and byte tables, for authors of guests in other
// languages.
//
// Encoders append to a buffer that the caller owns. Decoders are total: for any bytes they
// return views into these bytes or a [DecodeError]; they never panic and never allocate. All
// functions may be called concurrently on distinct buffers.
package abi

// Version is the major version of the ABI that this package implements. The names of the exports
// contain it. It changes only when an old guest would misunderstand a new host.
const Version = 1

// Names of a guest's exports.
const (
	// ExportMemory is the guest's only linear memory.
	ExportMemory = "memory"
	// ExportInitialize is the optional initialiser of a reactor, () -> (). It is run once.
	ExportInitialize = "_initialize"
	// ExportReserve makes the mailbox hold at least n bytes and returns its
	// 8-aligned address, (n i32) -> (ptr i32). 0 refuses. The address is valid
	// until the next call of ExportReserve.
	ExportReserve = "bulkhead_v1_reserve"
	// ExportCall runs the request frames in mailbox[0:n], (n i32) -> (i64). The
	// result is packed by [PackRange]. The range is valid until the next call
	// of any export.
	ExportCall = "bulkhead_v1_call"
)

// Names of a guest's imports.
const (
	// ImportModule is the module name of Bulkhead's own imports.
	ImportModule = "bulkhead_v1"
	// ImportLog writes a log line: (level i32, ptr i32, len i32) -> ().
	ImportLog = "log"
	// ImportFault sets the message of the trap that follows: (ptr i32, len i32) -> ().
	ImportFault = "fault"
)

// ReservedPrefix begins the names of Bulkhead's exports and import modules. An upload is refused
// if it exports a name with this prefix that is not listed in this package. Exports of other
// major versions, bulkhead_v<N>_…, are ignored.
const ReservedPrefix = "bulkhead_"

// ManifestSection is the name of the optional custom section with a copy of the manifest. The
// answer to Describe is authoritative; the host checks that the two agree.
const ManifestSection = "bulkhead.manifest"

// Sizes that are part of the format. They never change within a major version.
const (
	RequestHeaderSize  = 32
	ResponseHeaderSize = 24
	// FrameAlign is the multiple that every frame's length is padded to.
	FrameAlign = 8
	// SeedSize is the number of random bytes in a command.
	SeedSize = 16
)

// Limits of the format. A host may be configured to allow less, but not more.
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
	// MaxTypes bounds the commands of a manifest, and likewise its queries and its events.
	MaxTypes = 4096
	// MaxFrameSize bounds one frame with header and padding, in bytes. It is so low that
	// the sum of header and payload never overflows 32 bits.
	MaxFrameSize = 1 << 30
)

// RequestKind is the kind of a request frame. The values are part of the wire format. New ones
// may be added, but values are never changed.
type RequestKind uint8

// The kinds of request frames.
const (
	ReqOpen     RequestKind = 1 // make an entity resident: key, version, and perhaps a snapshot
	ReqApply    RequestKind = 2 // replay one event
	ReqCommand  RequestKind = 3 // decide one command
	ReqQuery    RequestKind = 4 // read an entity's state
	ReqSnapshot RequestKind = 5 // encode an entity's state
	ReqDrop     RequestKind = 6 // forget an entity
	ReqDescribe RequestKind = 7 // return the manifest
)

// String returns the kind's name, for messages.
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

// ResponseKind is the kind of a response frame. The values are part of the wire format. New ones
// may be added, but values are never changed.
type ResponseKind uint8

// The kinds of response frames.
const (
	RespEvent       ResponseKind = 1 // an event that the command caused
	RespReply       ResponseKind = 2 // the command or query succeeded
	RespReject      ResponseKind = 3 // the domain refused: no events, the entity is unchanged
	RespFault       ResponseKind = 4 // the handler failed: the entity must be hydrated again
	RespSnapshot    ResponseKind = 5 // an entity's encoded state
	RespDescription ResponseKind = 6 // the manifest, JSON
	RespLog         ResponseKind = 7 // a log line; Aux is its level
	RespEffect      ResponseKind = 8 // reserved for effects other than events; not used in version 1
)

// String returns the kind's name, for messages.
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

// Terminal reports whether a frame of this kind is the result of a Command or a Query. Only Log
// frames may follow it.
func (k ResponseKind) Terminal() bool {
	return k == RespReply || k == RespReject || k == RespFault
}

// Flags of request frames.
const (
	// FlagSnapshot on an Open says that a snapshot follows the key. Without it, the entity
	// starts from its zero state.
	FlagSnapshot uint8 = 1 << 0
	// FlagEarlier on an Open with FlagSnapshot says that the snapshot is of an earlier state
	// schema: the frame's type is its index in the manifest's earlier schemas. Only guests
	// with [FeatureEarlierSchemas] get it.
	FlagEarlier uint8 = 1 << 1
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

// Codes of faults and rejections that come from an SDK or the host, not from a domain. A domain
// should not use them for its own rejections.
const (
	CodePanic          = "panic"            // the handler panicked
	CodeError          = "error"            // the handler returned an error that is not a rejection
	CodeErrorAfterEmit = "error_after_emit" // the handler emitted events and then failed
	CodeBadCommand     = "bad_command"      // the command's body does not fit its type
	CodeBadQuery       = "bad_query"        // the query's body does not fit its type
	CodeBadEvent       = "bad_event"        // a replayed event's body does not fit its type
	CodeBadSnapshot    = "bad_snapshot"     // a snapshot does not fit the state
	CodeUnknownType    = "unknown_type"     // a type index that is not in the manifest
	CodeNoEntity       = "no_entity"        // the slot is not open
	CodeBadFrame       = "bad_frame"        // the request could not be decoded
	CodeGoroutineLeak  = "goroutine_leak"   // a goroutine of the handler was still running when it returned
)

// PackRange packs an address and a length for the result of [ExportCall]: the address in the
// high 32 bits, the length in the low 32 bits. Zero is the empty answer. Example: address
// 0x00010000, length 0x48 is 0x00010000_00000048.
func PackRange(addr, length uint32) uint64 { return uint64(addr)<<32 | uint64(length) }

// UnpackRange is the inverse of [PackRange].
func UnpackRange(r uint64) (addr, length uint32) { return uint32(r >> 32), uint32(r) }
