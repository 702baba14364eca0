package journal

// Snapshot is an entity's state as a module encoded it, so that the events up to
// Version need not be replayed. It is derived: a module that has the same state
// schema and gets the same events makes it again.
type Snapshot struct {
	Version Version // of the entity whose state this is, above 0
	Module  Digest  // that encoded it
	Schema  uint32  // the state schema that the module's manifest declares
	State   []byte  // opaque here; of no bytes, but there, if it is empty
}

// MaxSnapshot bounds the state in a snapshot, in bytes. Bigger ones are not kept.
const MaxSnapshot = 16 << 20
