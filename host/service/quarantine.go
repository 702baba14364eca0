package service

// QuarantinePage is a part of the entities of a service that are quarantined, by key. The module that runs cannot
// hydrate them, so their commands and queries are refused until the next attempt. The list begins empty with each
// module, and has what has been tried since. It is bounded: for each shard the latest 256 failures are remembered.
type QuarantinePage struct {
	Entities []EntityFault `json:"entities"`
	Count    int           `json:"count"` // of all of them
	// After is the key after which the next page begins; empty: this is the last page.
	After Key `json:"after,omitempty"`
}

// Released is the outcome of an attempt to hydrate an entity at once. A failed attempt is an error instead.
type Released struct {
	Quarantined bool `json:"quarantined"` // it was quarantined before; it is not any more
}
