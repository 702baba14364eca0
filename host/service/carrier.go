package service

// Carrier accounts for the memory of a command or query on behalf of its sender. Its methods do not block,
// and may be called from any goroutine.
type Carrier interface {
	// Unload says that the host no longer holds the data of the command or query. It is called at least once,
	// and before Load.
	Unload()
	// Load asks for room for a reply, in bytes, before the reply waits for anything. An error drops the
	// reply, and the sender gets the error instead. What a command has written stays.
	Load(reply int) error
}
