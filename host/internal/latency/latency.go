// Package latency counts how long commands, or queries, take, by service and type, within a bound on the
// number of series: whoever watches a host keeps each of them, and services and their types are
// as many as their authors like.
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
	// Other is the type of those whose own has no series.
	Other service.Type = "other"
	// Others is the service of those for whose service not even one could be made. No service has such a name.
	Others service.Name = "_other"
)

// DefaultSeries is how many series a table has by default.
const DefaultSeries = 1000

// ServiceSeries is how many series one service has at the most, so that a module with many types, or
// a service that is deployed with others again and again, does not take those of all others.
const ServiceSeries = 100

// Table has the series of a host. It is safe for concurrent use.
type Table struct {
	most   int64
	series atomic.Int64
	others series

	mu       sync.Mutex // guards services; before the lock of a service
	services map[*Service]struct{}
}

// New makes a table of at most so many series (0: the default), and one for all others.
func New(most int) *Table {
	return &Table{most: int64(cmp.Or(most, DefaultSeries)), services: map[*Service]struct{}{}}
}

// Service is what a table has of one service. It is safe for concurrent use; nil counts nothing.
type Service struct {
	table *Table
	name  service.Name

	mu     sync.RWMutex // guards all below, but not what the series count
	known  map[service.Type]struct{}
	series map[service.Type]*series
	closed bool
	left   bool // nobody counts for it at present
}

// series is one histogram. Anybody counts in it.
type series struct {
	sum     atomic.Int64
	buckets [len(service.LatencyBounds) + 1]atomic.Uint64
}

// Service begins to count for a service, or goes on with what was left of it. It ends with Close or
// Leave.
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

// takeUp reports whether the service was left, and takes it up if so.
func (s *Service) takeUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.left
	s.left = false
	return was
}

// Leave keeps what was counted for who next counts for a service of this name.
func (s *Service) Leave() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
}

// Know says which types the service has. What was counted of others stays.
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

// Close takes the service's series out of the table. What is counted later is not.
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

// Observe counts one that took so long. A type that the service does not have, which may
// be any text of a client, is an [Other].
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

// add makes a series, or finds the one that takes its place; nil if the service is closed.
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
		if s.table.series.Add(1) <= s.table.most {
			at := new(series)
			s.series[typ] = at
			return at
		}
		s.table.series.Add(-1)
	}
	return &s.table.others
}

// Read is what was counted, by service and type.
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

// merged adds up what is of one service and type: a service that is deleted may still answer
// while another of its name is there.
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
