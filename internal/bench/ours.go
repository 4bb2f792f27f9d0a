package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// ours is a run as `orphan-cleaner run` makes it.
func ours(ctx context.Context, s Subject) (Outcome, error) {
	watch := &phases{took: map[string]time.Duration{}}
	cfg := s.Config
	cfg.Observer = watch
	result, err := cleaner.New(s.Pool, s.Client, slog.New(slog.DiscardHandler), cfg, probe(s.Client)).Run(ctx)
	if err == nil && result.State != "succeeded" {
		err = fmt.Errorf("the run ended %s", result.State)
	}
	return Outcome{Deleted: result.MembersDeleted, Phases: watch.read()}, err
}

// probe is the preflight's look at auth-service, which is a part of a run.
func probe(client *authclient.Client) cleaner.Probe {
	return func(ctx context.Context) cleaner.Finding {
		if _, err := client.Health(ctx); err != nil {
			return cleaner.Finding{Name: "auth-service", Status: cleaner.Fail, Message: err.Error(), Hint: "look into the bench"}
		}
		return cleaner.Finding{Name: "auth-service", Status: cleaner.OK}
	}
}

// phases is a [cleaner.Observer] that keeps how long each phase took.
type phases struct {
	mu   sync.Mutex
	took map[string]time.Duration
}

func (p *phases) PhaseDone(phase string, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took[phase] += took
}

func (p *phases) read() map[string]time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.took)
}

func (*phases) RunBegan()               {}
func (*phases) BatchDone(error)         {}
func (*phases) ChunkDone(int64)         {}
func (*phases) Retried(string)          {}
func (*phases) RunEnded(cleaner.Result) {}

// loosen finds out by dry runs which breakers would refuse that many orphans, and
// loosens those: a run that is refused has no speed.
func (b *bench) loosen(ctx context.Context, d *dataset) error {
	pool, err := database.Open(ctx, b.cluster.URL(d.name), 0, 8)
	if err != nil {
		return err
	}
	defer pool.Close()
	d.limits = b.cfg.Limits
	for {
		cfg := b.cfg
		cfg.DryRun, cfg.Limits = true, d.limits
		_, err := cleaner.New(pool, b.client, slog.New(slog.DiscardHandler), cfg).Run(ctx)
		trip, refused := errors.AsType[*cleaner.Trip](err)
		if !refused || slices.Contains(d.loosened, trip.Breaker) {
			return err
		}
		switch trip.Breaker {
		case "new-missing-share":
			d.limits.NewMissingShare = 1
		case "delete-share":
			d.limits.DeleteShare = 1
		case "delete-members":
			d.limits.DeleteMembers = d.doomed
		default:
			return err
		}
		d.loosened = append(d.loosened, trip.Breaker)
	}
}
