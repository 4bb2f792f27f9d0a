package check

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nova-social/orphan-cleaner/internal/run"
)

// Status of a finding.
const (
	OK   = "ok"
	Warn = "warn"
	Fail = "FAIL"
)

// Finding is one line of `check`.
type Finding struct {
	Name    string `json:"name"`
	Status  string `json:"status"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // the command or the change that fixes it
}

func (f Finding) attrs() []any {
	return []any{"check", f.Name, "finding", f.Message, "hint", f.Hint}
}

// Findings are the lines of one preflight, in order.
type Findings []Finding

// Probe is a check beside the database's own.
type Probe func(ctx context.Context) Finding

// Err is a [run.ErrPreflight] that names the first failure, and the command that shows
// the others, or nil.
func (f Findings) Err(command string) error {
	var first *Finding
	more := -1
	for _, finding := range f {
		if finding.Status == Fail {
			if more++; first == nil {
				first = &finding
			}
		}
	}
	switch {
	case first == nil:
		return nil
	case more > 0:
		return fmt.Errorf("%w: %s: %s; hint: %s (%d more: orphan-cleaner %s)", run.ErrPreflight, first.Name, first.Message, first.Hint, more, command)
	default:
		return fmt.Errorf("%w: %s: %s; hint: %s", run.ErrPreflight, first.Name, first.Message, first.Hint)
	}
}

// failed is the finding of this name, if it is a failure, or nil.
func (f Findings) failed(name string) *Finding {
	for i := range f {
		if f[i].Name == name && f[i].Status == Fail {
			return &f[i]
		}
	}
	return nil
}

// Log writes what is not ok and what Err does not say.
func (f Findings) Log(log *slog.Logger) {
	isFirst := true // of the failures: Err says it
	for _, finding := range f {
		switch {
		case finding.Status == Warn:
			log.Warn("Preflight check wants attention", finding.attrs()...)
		case finding.Status == Fail && isFirst:
			isFirst = false
		case finding.Status == Fail:
			log.Error("Preflight check failed", finding.attrs()...)
		default:
			log.Debug("Preflight check passed", finding.attrs()...)
		}
	}
}

func (f *Findings) add(name, status, message, hint string) {
	*f = append(*f, Finding{name, status, message, hint})
}

// verdict is a failure unless it is good.
func (f *Findings) verdict(good bool, name, fine, wrong, hint string) bool {
	if good {
		f.add(name, OK, fine, "")
	} else {
		f.add(name, Fail, wrong, hint)
	}
	return good
}
