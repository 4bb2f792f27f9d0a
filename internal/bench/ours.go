package bench

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
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
			return cleaner.Finding{Name: "auth-service", Status: cleaner.Fail, Message: err.Error(), Mend: "look into the bench"}
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

// loosen lets a run through whose share of orphans a breaker would refuse, and
// says which breakers had to be loosened for it.
func loosen(cfg cleaner.Config, d *dataset) (loosened cleaner.Config, names []string) {
	if d.share > cfg.Limits.NewMissingShare {
		cfg.Limits.NewMissingShare = 1
		names = append(names, "new-missing-share")
	}
	if float64(d.doomed) > cfg.Limits.DeleteShare*float64(d.size.Members) {
		cfg.Limits.DeleteShare = 1
		names = append(names, "delete-share")
	}
	if d.doomed > cfg.Limits.DeleteMembers {
		cfg.Limits.DeleteMembers = d.doomed
		names = append(names, "delete-members")
	}
	return cfg, names
}
