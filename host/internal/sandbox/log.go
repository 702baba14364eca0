package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Logger takes the log lines of guests. text is one line of valid UTF-8. Each call of a guest logs at most
// its service's LogBytes, where each line counts 100 bytes more than its text. about is what the guest works
// on. GuestLog runs on the goroutine that runs the guest, between the guest's instructions, so it should be
// quick. It must be safe for concurrent use if several instances share it.
type Logger interface {
	GuestLog(service service.Name, about service.About, level abi.LogLevel, text string)
}

// LoggerFunc is a function that implements [Logger].
type LoggerFunc func(service service.Name, about service.About, level abi.LogLevel, text string)

// GuestLog implements Logger.
func (f LoggerFunc) GuestLog(s service.Name, about service.About, level abi.LogLevel, text string) {
	f(s, about, level, text)
}

// SlogLogger writes guests' log lines to l. The service and what the guest works on are attributes; entity,
// command_id and trace_id are omitted if there is none.
func SlogLogger(l *slog.Logger) Logger {
	return LoggerFunc(func(s service.Name, about service.About, level abi.LogLevel, text string) {
		at := make([]slog.Attr, 0, 5)
		at = append(at, slog.String("service", string(s)), slog.String("from", "guest"))
		if about.Key != "" {
			at = append(at, slog.String("entity", safetext.Text(string(about.Key))))
		}
		if about.Command != "" {
			at = append(at, slog.String("command_id", safetext.Text(string(about.Command))))
		}
		if about.Trace != (service.TraceID{}) {
			at = append(at, slog.String("trace_id", about.Trace.String()))
		}
		l.LogAttrs(context.Background(), slogLevel(level), text, at...)
	})
}

func slogLevel(l abi.LogLevel) slog.Level {
	switch l {
	case abi.LogDebug:
		return slog.LevelDebug
	case abi.LogInfo:
		return slog.LevelInfo
	case abi.LogWarn:
		return slog.LevelWarn
	}
	return slog.LevelError
}

// lineBytes is the maximum length of a log line, in bytes; longer lines are broken. It bounds what the host
// keeps for a guest that never ends its line.
const lineBytes = 4 << 10

// lineOverhead is what a line counts against the limit of a call beside its text, in bytes. It is about what
// the host writes around the text: time, service and level.
const lineOverhead = 100

// panicBytes is how many bytes of a call's stderr are kept to explain a trap.
const panicBytes = 2 << 10

// guestLog collects what one instance logs, within the bounds of one call. The goroutine that runs the
// instance owns it.
type guestLog struct {
	to     Logger // may be nil
	name   service.Name
	about  service.About
	limit  int // bytes per call
	used   int
	cut    bool
	out    [2][]byte // unfinished lines of stdout and stderr
	panics []byte    // the start of this call's stderr, for trap messages
}

// begin starts a call's budget.
func (g *guestLog) begin() {
	g.used, g.cut = 0, false
	g.panics = g.panics[:0]
}

// cost is the fuel for logging n bytes in so many lines. What exceeds the call's budget costs nothing, as it
// is ignored.
func (g *guestLog) cost(n, lines int) int64 {
	if g.cut {
		return 0
	}
	return int64(n)*fuelLogByte + int64(lines)*fuelLogLine
}

// room is how many of the next bytes the log reads: what is left of the call's budget, and one byte more,
// which exhausts it.
func (g *guestLog) room() int {
	if g.cut {
		return 0
	}
	return max(g.limit-g.used, 0) + 1
}

// wanted is how many of the next bytes of a stream are read: those for the log, and on stderr those that may
// explain a panic.
func (g *guestLog) wanted(stream int) int {
	n := g.room()
	if stream == 1 {
		n = max(n, panicBytes-len(g.panics))
	}
	return n
}

// end flushes unfinished lines.
func (g *guestLog) end() {
	for i := range g.out {
		if len(g.out[i]) > 0 {
			g.flush(i)
		}
	}
}

// line logs one line, cut to what is left of the call's budget. The guest sees no difference if there is no
// logger.
func (g *guestLog) line(level abi.LogLevel, text []byte) {
	if g.cut {
		return
	}
	if len(text) > lineBytes {
		g.line(level, text[:lineBytes])
		g.line(level, text[lineBytes:])
		return
	}
	if rest := g.limit - g.used; len(text)+lineOverhead > rest {
		g.cut = true
		if rest > lineOverhead {
			g.say(level, text[:rest-lineOverhead])
		}
		g.say(abi.LogWarn, fmt.Appendf(nil, "log output of this call cut at %d bytes", g.limit))
		return
	}
	g.used += len(text) + lineOverhead // empty lines count, too
	g.say(level, text)
}

func (g *guestLog) say(level abi.LogLevel, text []byte) {
	if g.to != nil {
		g.to.GuestLog(g.name, g.about, min(level, abi.LogError), clean(text))
	}
}

// write takes bytes written to stdout (0) or stderr (1), and logs the lines that they complete.
func (g *guestLog) write(stream int, b []byte) {
	if stream == 1 && len(g.panics) < panicBytes {
		g.panics = append(g.panics, b[:min(len(b), panicBytes-len(g.panics))]...)
	}
	for len(b) > 0 && !g.cut {
		n := bytes.IndexByte(b, '\n')
		piece := b
		if n >= 0 {
			piece = b[:n]
		}
		room := lineBytes - len(g.out[stream])
		if len(piece) > room {
			g.out[stream] = append(g.out[stream], piece[:room]...)
			g.flush(stream)
			b = b[room:]
			continue
		}
		g.out[stream] = append(g.out[stream], piece...)
		if n < 0 {
			return
		}
		g.flush(stream)
		b = b[n+1:]
	}
}

func (g *guestLog) flush(stream int) {
	level := abi.LogInfo
	if stream == 1 {
		level = abi.LogWarn
	}
	g.line(level, g.out[stream])
	g.out[stream] = g.out[stream][:0]
}

// clean makes text of untrusted bytes, so that they cannot forge log lines or control a terminal.
func clean(b []byte) string { return safetext.Text(string(b)) }
