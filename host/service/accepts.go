package service

// Accepts describes the data that a service accepts in commands and queries.
type Accepts struct {
	CommandBytes int    // maximum size of the data of a command or query
	Encoding     string // media type of the data; empty if unknown, as the service has not run
	State        State
}
