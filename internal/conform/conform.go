// Package conform tests a source of truth against the contract of package source: for
// whoever writes one, before a run depends on it. It only asks.
package conform

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

// Asker asks once; see [source.Client.Once].
type Asker interface {
	Once(ctx context.Context, ids []uuid.UUID) (*source.Answer, *source.BatchError)
}

// Test is what is asked, and of whom.
type Test struct {
	Source, UpperCase Asker       // the same source; UpperCase sends ids in upper case
	Alive, Dead       []uuid.UUID // who certainly exists, one at least, and who does not
	TargetP99         time.Duration
}

const (
	// callsAtOnce and rounds are as many calls as a run has in flight, for a while.
	callsAtOnce = 8
	rounds      = 5
)

// Run asks in each way that a run may ask, and in some that it does not, a line for each.
func (t Test) Run(ctx context.Context) check.Findings {
	alive, nobody := t.Alive[0], uuid.New()
	var found check.Findings
	add := func(name, wrong, hint, fine string) {
		if strings.Contains(wrong, "("+source.Transport+")") {
			hint = "is AUTH_SERVICE_URL right, is it up, and does it speak what the scheme says?"
		}
		if wrong == "" {
			found = append(found, check.Finding{Name: name, Status: check.OK, Message: fine})
		} else {
			found = append(found, check.Finding{Name: name, Status: check.Fail, Message: wrong, Hint: hint})
		}
	}
	add("known", t.ask(ctx, t.Source, t.Alive, nil), "CANARY_ALIVE are users who exist: is this the right environment, and does nothing hide them?",
		fmt.Sprintf("%d users who exist are found", len(t.Alive)))
	gone := append(slices.Clone(t.Dead), nobody)
	add("unknown", t.ask(ctx, t.Source, gone, gone), "leave out who does not exist or was deleted; an error is not the answer to that",
		fmt.Sprintf("%d users who do not exist are left out", len(gone)))
	add("duplicate", t.ask(ctx, t.Source, []uuid.UUID{alive, nobody, alive}, []uuid.UUID{nobody}), "a user may be asked for twice",
		"a user who is asked for twice is found")

	full := batch(source.MaxBatch, alive)
	add("full batch", t.ask(ctx, t.Source, full, full[:len(full)-1]), fmt.Sprintf("%d ids are an ordinary call", source.MaxBatch),
		fmt.Sprintf("the last of %d users is found, %d are left out", len(full), len(full)-1))
	add("empty list", t.refusable(ctx, nil, uuid.Nil), "answer with nobody, or refuse the call", "names nobody")
	add("one too many", t.refusable(ctx, batch(source.MaxBatch+1, alive), alive), "refuse the call, or answer it whole: an answer that was cut short cannot be told from a true one",
		fmt.Sprintf("%d ids are refused or answered whole", source.MaxBatch+1))

	slowest, wrong := t.concurrent(ctx, alive)
	add("concurrent", wrong, "answers must not depend on other calls", fmt.Sprintf("%d calls, %d at a time, have the right answers", callsAtOnce*rounds, callsAtOnce))

	if wrong := t.ask(ctx, t.UpperCase, []uuid.UUID{alive}, nil); wrong != "" {
		found = append(found, check.Finding{
			Name: "upper case", Status: check.Warn, Message: "ids in upper case: " + wrong,
			Hint: "compare ids as uuid, not as text; orphan-cleaner itself sends lower case",
		})
	} else {
		add("upper case", "", "", "ids in upper case are found")
	}
	if slowest > t.TargetP99 {
		found = append(found, check.Finding{
			Name: "slow answers", Status: check.Warn, Message: fmt.Sprintf("a call of %d users took %s: fewer calls will be in flight", source.MaxBatch, slowest.Round(time.Millisecond)),
			Hint: fmt.Sprintf("an index on the ids; over AUTH_SERVICE_TARGET_P99, %s, is slow, over AUTH_SERVICE_TIMEOUT there is no answer", t.TargetP99),
		})
	} else {
		add("slow answers", "", "", fmt.Sprintf("none: the slowest call of %d users took %s", source.MaxBatch, slowest.Round(time.Millisecond)))
	}
	return found
}

// batch is so many users, nobody but the last.
func batch(n int, last uuid.UUID) []uuid.UUID {
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.New()
	}
	ids[n-1] = last
	return ids
}

// ask says what is wrong with the answer about these users, of whom those are missing.
func (t Test) ask(ctx context.Context, whom Asker, ids, missing []uuid.UUID) (wrong string) {
	for part := range slices.Chunk(ids, source.MaxBatch) {
		answer, invalid := whom.Once(ctx, part)
		if invalid != nil {
			return invalid.Error()
		}
		left := answer.Missing()
		var differ []string
		for _, id := range part {
			switch is := slices.Contains(left, id); {
			case is && !slices.Contains(missing, id):
				differ = append(differ, id.String()+" is left out, and exists")
			case !is && slices.Contains(missing, id):
				differ = append(differ, id.String()+" is in the answer, and does not exist")
			}
		}
		if len(differ) > 0 {
			return strings.Join(differ[:min(len(differ), 3)], ", ")
		}
	}
	return ""
}

// refusable says what is wrong with the answer to a call that a run never makes. A
// refusal is right; so is an answer with the user, if any.
func (t Test) refusable(ctx context.Context, ids []uuid.UUID, user uuid.UUID) (wrong string) {
	answer, invalid := t.Source.Once(ctx, ids)
	switch {
	case invalid != nil && strings.HasPrefix(invalid.Reason, "status_"):
		return ""
	case invalid != nil:
		return invalid.Error()
	case slices.Contains(answer.Missing(), user):
		return fmt.Sprintf("of %d users, the last is left out, and exists", len(ids))
	}
	return ""
}

// concurrent returns how long the slowest call took, and what is wrong with one.
func (t Test) concurrent(ctx context.Context, alive uuid.UUID) (slowest time.Duration, wrong string) {
	var mu sync.Mutex
	var callers sync.WaitGroup
	for range callsAtOnce {
		callers.Go(func() {
			for range rounds {
				ids := batch(source.MaxBatch, alive)
				began := time.Now()
				differs := t.ask(ctx, t.Source, ids, ids[:len(ids)-1])
				took := time.Since(began)
				mu.Lock()
				if slowest = max(slowest, took); differs != "" {
					wrong = differs
				}
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	return slowest, wrong
}
