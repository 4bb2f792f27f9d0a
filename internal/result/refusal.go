package result

import (
	"errors"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// ErrRefused is wrapped by every [Refusal].
var ErrRefused = errors.New("refused by a breaker")

// Refusal is an [ErrRefused] that names the breaker, the figure and the limit.
type Refusal struct {
	Breaker, Message string
	Approve          string // the command that admits it once; empty: there is none
	OfFleet          bool   // of all databases: no further one is changed
}

func (r *Refusal) Error() string {
	who := ""
	if r.OfFleet {
		who = "the fleet is "
	}
	return who + "refused by breaker " + r.Breaker + ": " + r.Message + "; hint: " + r.hint()
}

func (r *Refusal) hint() string {
	run, approve, raise := "orphan-cleaner run", r.Approve, "a higher --max-"+r.Breaker+", and where it is pinned also orphan-cleaner limits pin "+r.Breaker+"=N"
	if r.OfFleet {
		run, raise = "orphan-cleaner fleet run", "a higher "+r.Breaker+" among the limits of fleet.yaml"
	}
	if r.Breaker == "clock" { // its row of a run in the future stays when the clock is right again
		run += "; after the server's clock was ahead: orphan-cleaner migrate settle-clock"
	}
	if !settings.Approvable(r.Breaker) {
		return "correct the cause, then " + run + "; this cannot be approved"
	}
	var ways []string
	if approve != "" {
		ways = append(ways, approve+", once")
	}
	if _, is := settings.DefaultLimits()[r.Breaker]; is || r.Breaker == "shard-outlier" {
		if approve != "" {
			raise = "for good " + raise
		}
		ways = append(ways, raise)
	}
	if len(ways) == 0 {
		return "correct auth-service or AUTH_SERVICE_URL"
	}
	return "if what it found is right: " + strings.Join(ways, "; or ") + "; if not, correct auth-service or AUTH_SERVICE_URL"
}

// Is says that it is an [ErrRefused].
func (r *Refusal) Is(target error) bool { return target == ErrRefused }
