package service

// Carrier bounds what a command or query holds in memory on its way, for a sender that
// counts that. Its methods do not block; they may be called from any goroutine.
type Carrier interface {
	// Unload says that the host does not hold the data of the command or query any
	// more. It is called once or more, and before Load.
	Unload()
	// Load asks for room for a reply, in bytes, before the reply waits for anything. An
	// error drops the reply and is told instead. What a command has written stays.
	Load(reply int) error
}
