// Package latency counts how long commands and queries take, by service and type. The number of
// series is bounded: a monitoring system stores every series of a host, and module authors choose
// the names and the number of services and types.
package latency

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

const (
	// Other is the type of all commands or queries whose own type has no series.
	Other service.Type = "other"
	// Others is the service of all commands or queries of services without any series of their own.
	// No real service can have this name.
	Others service.Name = "_other"
)

// DefaultSeries is the default maximum of series in a table.
const DefaultSeries = 1000

// ServiceSeries is the maximum of series of one service. It keeps a module with many types, or a
// service that is redeployed again and again with other types, from using up the series of all
// services.
const ServiceSeries = 100

// Table holds the series of a host. It is safe for concurrent use.
type Table struct {
	max    int64
	series atomic.Int64
	others series

	mu       sync.Mutex // guards services; before the lock of a service
	services map[*Service]struct{}
}

// New makes a table of at most max series (0: [DefaultSeries]), and one more for all that exceed
// it.
func New(max int) *Table {
	return &Table{max: int64(cmp.Or(max, DefaultSeries)), services: map[*Service]struct{}{}}
}

// Service is the part of a table that counts for one service. It is safe for concurrent use; a nil
// Service counts nothing.
type Service struct {
	table *Table
	name  service.Name

	mu     sync.RWMutex // guards all below, but not the counters inside the series
	known  map[service.Type]struct{}
	series map[service.Type]*series
	closed bool
	left   bool // Leave was called, and the counters have not been taken over yet
}

// series is one histogram. It is safe for concurrent use.
type series struct {
	sum     atomic.Int64
	buckets [len(service.LatencyBounds) + 1]atomic.Uint64
}

// Service returns the counters for the named service: the ones that [Service.Leave] kept, if there
// are any, or new ones. The caller ends its use with [Service.Close] or [Service.Leave].
func (t *Table) Service(name service.Name) *Service {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.services {
		if s.name == name && s.takeUp() {
			return s
		}
	}
	s := &Service{table: t, name: name, series: map[service.Type]*series{}}
	t.services[s] = struct{}{}
	return s
}

// takeUp takes the counters over if Leave kept them, and reports whether it did.
func (s *Service) takeUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.left
	s.left = false
	return was
}

// Leave ends the caller's use and keeps the counters for the next [Table.Service] of the same name.
func (s *Service) Leave() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
}

// Know sets the types that the service has. Series of types that it had before stay.
func (s *Service) Know(types []service.Type) {
	if s == nil {
		return
	}
	known := make(map[service.Type]struct{}, len(types))
	for _, t := range types {
		known[t] = struct{}{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = known
}

// Close removes the series from the table. Later observations are not counted.
func (s *Service) Close() {
	if s == nil {
		return
	}
	t := s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.services, s)
	s.mu.Lock()
	defer s.mu.Unlock()
	t.series.Add(-int64(len(s.series)))
	s.closed, s.series = true, nil
}

// Observe counts one command or query that took the given time. A type that [Service.Know] was not
// told of can be any text from a client, so it counts as [Other].
func (s *Service) Observe(typ service.Type, took time.Duration) {
	if s == nil {
		return
	}
	s.mu.RLock()
	if _, ok := s.known[typ]; !ok {
		typ = Other
	}
	at, closed := s.series[typ], s.closed
	s.mu.RUnlock()
	switch {
	case closed:
		return
	case at == nil:
		if at = s.add(typ); at == nil {
			return
		}
	}
	at.sum.Add(int64(took))
	bucket, _ := slices.BinarySearch(service.LatencyBounds[:], took)
	at.buckets[bucket].Add(1)
}

// add returns the series for typ: a new one, or [Other]'s, or the table's last one if there is no
// room. It returns nil if the service is closed.
func (s *Service) add(typ service.Type) *series {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	for _, typ := range [...]service.Type{typ, Other} {
		if at := s.series[typ]; at != nil {
			return at
		}
		if typ != Other && len(s.series) >= ServiceSeries-1 { // the last one is for Other
			continue
		}
		if s.table.series.Add(1) <= s.table.max {
			at := new(series)
			s.series[typ] = at
			return at
		}
		s.table.series.Add(-1)
	}
	return &s.table.others
}

// Read returns all counts, sorted by service and type. It is not a snapshot: counting goes on
// meanwhile.
func (t *Table) Read() []service.Latency {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []service.Latency
	for s := range t.services {
		s.mu.RLock()
		for typ, at := range s.series {
			all = append(all, at.read(s.name, typ))
		}
		s.mu.RUnlock()
	}
	if l := t.others.read(Others, Other); l != (service.Latency{Service: Others, Type: Other}) {
		all = append(all, l)
	}
	slices.SortFunc(all, func(x, y service.Latency) int {
		return cmp.Or(cmp.Compare(x.Service, y.Service), cmp.Compare(x.Type, y.Type))
	})
	return merged(all)
}

// merged adds up entries of the same service and type. There are two while a deleted service still
// answers and a new one of the same name already runs.
func merged(sorted []service.Latency) []service.Latency {
	all := sorted[:0]
	for _, l := range sorted {
		if n := len(all); n > 0 && all[n-1].Service == l.Service && all[n-1].Type == l.Type {
			all[n-1].Sum += l.Sum
			for i := range l.Buckets {
				all[n-1].Buckets[i] += l.Buckets[i]
			}
			continue
		}
		all = append(all, l)
	}
	return all
}

func (s *series) read(name service.Name, typ service.Type) service.Latency {
	l := service.Latency{Service: name, Type: typ, Sum: time.Duration(s.sum.Load())}
	for i := range s.buckets {
		l.Buckets[i] = s.buckets[i].Load()
	}
	return l
}
