package queue

import (
	"context"
	"log/slog"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// quiet is our log as River writes it. River tells at INFO what nobody has to read, such as the
// number of its jobs every five seconds: that is DEBUG here. Warnings and errors stay.
type quiet struct{ slog.Handler }

func lowered(level slog.Level) slog.Level {
	if level < slog.LevelWarn {
		return min(level, slog.LevelDebug)
	}
	return level
}

func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, lowered(level))
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lowered(r.Level)
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }
func (q quiet) WithGroup(name string) slog.Handler       { return quiet{q.Handler.WithGroup(name)} }

// ofRiver is a log for River, whose lines say whose they are.
func ofRiver(log *slog.Logger) *slog.Logger {
	return slog.New(quiet{log.Handler()}).With("by", "river")
}

// failures tells of jobs that failed, which for River is routine.
type failures struct {
	log   *slog.Logger
	pause doubling
}

// HandleError implements [river.ErrorHandler].
func (f failures) HandleError(_ context.Context, job *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	next := "not in this run"
	if job.Attempt < job.MaxAttempts {
		next = "in " + f.pause.after(job.Attempt).String()
	}
	f.log.Warn("A job of the fleet failed", "job", job.Kind, "args", string(job.EncodedArgs), "attempt", job.Attempt, "of", job.MaxAttempts, "next", next, "error", err)
	return nil
}

// HandlePanic implements [river.ErrorHandler]. River has logged it as an error.
func (f failures) HandlePanic(context.Context, *rivertype.JobRow, any, string) *river.ErrorHandlerResult {
	return nil
}
