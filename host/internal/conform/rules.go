package conform

// The ids of rules that the host checks at upload.
const (
	ruleStatic   = "G1"
	ruleExports  = "G2"
	ruleImports  = "G3"
	ruleStart    = "G4"
	ruleManifest = "G13" // it also has a scenario
)

// The ids of rules that any exchange may break. The numbers are those of abi/SPEC.md and are never given
// to other rules.
const (
	ruleMailbox  = "G5"
	ruleFrames   = "G7"
	ruleIndex    = "G8"
	ruleKinds    = "G9"
	ruleTerminal = "G10"
	ruleEvents   = "G11"
	ruleNoTrap   = "G12"
)

// rules are in the order of SPEC.md. Those without static and check are watched at every exchange; see
// [kit.watch].
var rules = []rule{
	{id: ruleStatic, static: true, title: "the module is well-formed, with one memory of its own",
		expected: "a core module that validates, one 32-bit memory, exported, no threads, within the limits of size " +
			"and structure"},
	{id: ruleExports, static: true, title: "the module has the exports of the ABI",
		expected: "memory, bulkhead_v1_reserve (i32) -> (i32), bulkhead_v1_call (i32) -> (i64), maybe _initialize () " +
			"-> (), and no other reserved name"},
	{id: ruleImports, static: true, title: "the module imports only what the host offers",
		expected: "functions of bulkhead_v1, env.abort and wasi_snapshot_preview1, with their exact types"},
	{id: ruleStart, static: true, title: "the module starts and describes itself",
		expected: "start function, _initialize and Describe end without trap or violation, " +
			"within the limits of a call"},
	{id: ruleMailbox, title: "reserve and call return addresses inside memory",
		expected: "reserve: an 8-aligned address of n bytes inside memory, at least for n up to 65,536; call: a " +
			"range inside memory"},
	{id: "G6", check: checkMailbox, title: "the mailbox grows, and an empty request has an empty answer",
		expected: "requests of 32 bytes, 64 KiB and again 32 bytes are handled; more is handled or refused by " +
			"reserve; call(0) returns 0"},
	{id: ruleFrames, title: "answers are whole frames",
		expected: "frames fill the answer exactly; lengths are multiples of 8; every payload holds the fields of its " +
			"kind, within the limits; codes are printable; bodies of events and replies are of the manifest's " +
			"encoding, or empty"},
	{id: ruleIndex, title: "answers name what they answer",
		expected: "the index of a request frame, never decreasing, and that frame's slot"},
	{id: ruleKinds, title: "each request is answered by the kinds of frames that fit it",
		expected: "Open, Apply, Drop: nothing or Fault; Command: Event, Reply, Reject, Fault; Query: Reply, Reject, " +
			"Fault; Snapshot: Snapshot or Fault; Describe: Description; Log anywhere"},
	{id: ruleTerminal, title: "commands and queries end with exactly one terminal frame",
		expected: "one of Reply, Reject, Fault, and no frame of the same request frame after it"},
	{id: ruleEvents, title: "events are of the manifest and are counted",
		expected: "Event types below the manifest's number of events; Reply's aux is the number of events before it; " +
			"no Reject after an Event"},
	{id: ruleNoTrap, title: "no well-formed request traps",
		expected: "an answer, whatever the type, slot and body are"},
	{id: ruleManifest, check: checkDescribe, title: "Describe gives a valid manifest, always the same",
		expected: "one Description; the same bytes on every call, beside other frames, and in every instance"},
	{id: "G14", check: checkSlots, title: "slots open, close and open again",
		expected: "Open, Apply and Drop answer nothing; a slot opened again, after Drop or without, holds a fresh " +
			"entity"},
	{id: "G15", check: checkNotOpen, title: "a slot that is not open is a Fault",
		expected: "Fault to Apply, Command, Query and Snapshot; nothing to Drop; the instance goes on"},
	{id: "G16", check: checkUnknownTypes, title: "unknown types are refused",
		expected: "Reject or Fault to a Command or Query, Fault to an Apply, of a type beyond the manifest"},
	{id: "G17", check: checkGarbage, title: "bodies that fit no type are refused",
		expected: "an answer without trap to empty, malformed and hostile bodies of every command, query and event; " +
			"the instance goes on"},
	{id: "G18", check: checkUnknownKind, title: "request kinds of later versions do no harm",
		expected: "nothing or a Fault to a frame of unknown kind; the frames after it are handled"},
	{id: "G19", check: checkLater, title: "fields and flags of later versions are ignored",
		expected: "the same answers to frames with unknown flag bits and with more fields after the payload's last"},
	{id: "G20", check: checkMalformed, title: "a malformed request is a Fault",
		expected: "one Fault for the first frame that cannot be decoded, no trap, and the next request is handled"},
	{id: "G21", check: checkReplayed, title: "state follows from events alone",
		expected: "an entity that carried out commands and one that had their events applied, each with the key, " +
			"version, time and metadata that it had, have equal snapshots after each command, and answer queries " +
			"equally"},
	{id: "G22", check: checkRefusalsLeaveNothing, title: "rejections, queries and snapshots change nothing",
		expected: "equal snapshots before and after"},
	{id: "G23", check: checkSnapshots, title: "snapshots are complete",
		expected: "Open with a snapshot, then Snapshot, gives equal bytes, and the entity behaves as the first did; " +
			"so does each event after a snapshot before it"},
	{id: "G24", check: checkDeterminism, title: "the same requests have the same answers",
		expected: "equal bytes from two fresh instances given the same requests"},
	{id: "G25", check: checkIndependence, title: "entities do not touch each other",
		expected: "equal outcomes of equal commands in another slot, among other entities that are opened, driven " +
			"and dropped in between"},
}
