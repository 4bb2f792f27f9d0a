package result

import (
	"errors"

	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// ErrRefused is wrapped by every [Refusal].
var ErrRefused = errors.New("refused by a breaker")

// Refusal is an [ErrRefused] that names the breaker, the figure and the limit.
type Refusal struct{ Breaker, Message string }

func (r *Refusal) Error() string {
	hint := "if what it found is right: orphan-cleaner approve RUN; if not, correct auth-service or AUTH_SERVICE_URL"
	if !settings.Approvable(r.Breaker) {
		hint = "correct the cause, then orphan-cleaner run; this cannot be approved"
	}
	return "refused by breaker " + r.Breaker + ": " + r.Message + "; hint: " + hint
}

// Is says that it is an [ErrRefused].
func (r *Refusal) Is(target error) bool { return target == ErrRefused }
