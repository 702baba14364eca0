package service

// Accepts is what data a service takes in commands and queries.
type Accepts struct {
	CommandBytes int    // bound of the data of a command or query
	Encoding     string // media type of the data; empty as long as it is not known: the service has not run
	State        State
}
