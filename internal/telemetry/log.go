// Package telemetry writes the log in the runbook's words.
package telemetry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/safetext"
)

// TargetKey is the attribute that names who speaks: orphan_cleaner or auth_client.
const TargetKey = "target"

// DefaultTarget is the target of a logger that names none.
const DefaultTarget = "orphan_cleaner"

// maxText bounds a message and each text among the attributes, in bytes. An error of
// PostgreSQL with DETAIL and HINT is a few hundred.
const maxText = 2000

// NewLogger logs as `LEVEL target: message key=value` ("text", the form the
// runbook greps for; time is left to whatever collects the lines) or as one
// JSON object a line ("json"). Texts may come from a server: they are bounded and
// escaped, see [safetext.Line].
func NewLogger(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	if format == "json" {
		return slog.New(&jsonTarget{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: cleanAttr}), false})
	}
	return slog.New(&textHandler{w: w, mu: new(sync.Mutex), level: level, target: DefaultTarget})
}

// textHandler writes the lines of the runbook's chapters 3.3 and 4.
type textHandler struct {
	w      io.Writer
	mu     *sync.Mutex
	level  slog.Leveler
	target string
	prefix string // of keys, from groups
	attrs  string // already formatted
}

func (h *textHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h *textHandler) Handle(_ context.Context, r slog.Record) error {
	target := h.target
	var own bytes.Buffer
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == TargetKey {
			target = a.Value.String()
		} else {
			appendAttr(&own, h.prefix, a)
		}
		return true
	})
	line := r.Level.String() + " " + target + ": " + safetext.Line(strings.ReplaceAll(r.Message, "\n", " "), maxText) + h.attrs + own.String() + "\n"
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, line)
	return err
}

func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	var b bytes.Buffer
	for _, a := range attrs {
		if a.Key == TargetKey {
			next.target = a.Value.String()
			continue
		}
		appendAttr(&b, h.prefix, a)
	}
	next.attrs += b.String()
	return &next
}

func (h *textHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.prefix += name + "."
	return &next
}

func appendAttr(b *bytes.Buffer, prefix string, a slog.Attr) {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range value.Group() {
			appendAttr(b, prefix, member)
		}
		return
	}
	if all, is := saidIn(a.Key, value.Any()); is {
		appendAttr(b, prefix, all)
		return
	}
	text := safetext.Line(value.String(), maxText)
	if text == "" || strings.ContainsAny(text, " =\"") {
		text = strconv.Quote(text)
	}
	b.WriteString(" " + prefix + a.Key + "=" + text)
}

// saidIn is an error of the database as attributes of one level: the error itself, and
// each field of what the server says.
func saidIn(key string, value any) (slog.Attr, bool) {
	err, is := value.(error)
	if !is {
		return slog.Attr{}, false
	}
	said := database.SaidIn(err)
	if said == nil {
		return slog.Attr{}, false
	}
	return slog.GroupAttrs("", append([]slog.Attr{slog.String(key, err.Error())}, said.Attrs()...)...), true
}

// cleanAttr leaves numbers, times and lists to slog.
func cleanAttr(_ []string, a slog.Attr) slog.Attr {
	if all, is := saidIn(a.Key, a.Value.Any()); is {
		return all
	}
	switch value := a.Value.Any().(type) {
	case string:
		a.Value = slog.StringValue(safetext.Line(value, maxText))
	case error:
		a.Value = slog.StringValue(safetext.Line(value.Error(), maxText))
	}
	return a
}

// jsonTarget gives each JSON line a target.
type jsonTarget struct {
	slog.Handler
	named bool
}

func (h *jsonTarget) Handle(ctx context.Context, r slog.Record) error {
	named := h.named
	r.Attrs(func(a slog.Attr) bool {
		named = named || a.Key == TargetKey
		return !named
	})
	if !named {
		r = r.Clone()
		r.AddAttrs(slog.String(TargetKey, DefaultTarget))
	}
	return h.Handler.Handle(ctx, r)
}

func (h *jsonTarget) WithAttrs(attrs []slog.Attr) slog.Handler {
	named := h.named
	for _, a := range attrs {
		named = named || a.Key == TargetKey
	}
	return &jsonTarget{h.Handler.WithAttrs(attrs), named}
}

func (h *jsonTarget) WithGroup(name string) slog.Handler {
	return &jsonTarget{h.Handler.WithGroup(name), h.named}
}
