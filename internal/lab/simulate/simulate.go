package simulate

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp/dbsetup"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// Options say what is played.
type Options struct {
	Histories []History
	Parallel  int // at the same time
	Limits    settings.Limits
	Results   *Results
	// Say is told what came of each history.
	Say func(format string, args ...any)
}

// ordinaryRows is the size of most tables.
const ordinaryRows = 20_000

// Histories are all whose group or name contains a text, with those of two million
// rows or without; rows takes the place of 20,000, unless it is 0.
func Histories(only string, large bool, rows int) (chosen []History) {
	for _, h := range append(Honest(), Dishonest()...) {
		if h.Large && !large || !strings.Contains(h.Group+": "+h.Name, only) {
			continue
		}
		if rows > 0 && h.Rows == ordinaryRows {
			h.Rows = rows
		}
		chosen = append(chosen, h)
	}
	return chosen
}

// Run plays all histories, each in a database of its own on a throw-away
// PostgreSQL, and returns what came of them in their order.
func Run(ctx context.Context, options Options) (outcomes []Outcome, err error) {
	cluster, err := pgtemp.Start(ctx, pgtemp.Options{Settings: map[string]string{"shared_buffers": "512MB", "max_wal_size": "4GB", "autovacuum": "off"}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	const template = "simulate"
	if err := dbsetup.CreateDatabase(ctx, cluster.URL("postgres"), template, ""); err != nil {
		return nil, err
	}
	if err := dbsetup.Schema(ctx, cluster.URL(template)); err != nil {
		return nil, err
	}
	if err := dbsetup.Migrate(ctx, cluster.URL(template)); err != nil {
		return nil, err
	}
	worlds := &worlds{cluster: cluster, template: template, limits: options.Limits, warm: map[warmth]*warmed{}}
	outcomes = make([]Outcome, len(options.Histories))
	group, playing := errgroup.WithContext(ctx)
	group.SetLimit(max(options.Parallel, 1))
	for i, h := range options.Histories {
		known, isKnown := options.Results.of(h)
		if isKnown {
			outcomes[i] = known
			continue
		}
		group.Go(func() error {
			outcome, err := worlds.play(playing, h)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", h.Group, h.Name, err)
			}
			outcomes[i] = outcome
			options.Say("%s", outcome)
			return options.Results.add(outcome)
		})
	}
	return outcomes, group.Wait()
}

// String is one line.
func (o Outcome) String() string {
	refused := "never refused"
	if o.RefusedDay >= 0 {
		refused = fmt.Sprintf("refused on day %d by %s, on %d days %v", o.RefusedDay+1, o.Breaker, o.RefusedDays, o.Breakers)
	}
	return fmt.Sprintf("%s: %s: %s; %d of %d rows of living users deleted (%.2f %%), %d of others, %d runs, %d refused before",
		o.Group, o.Name, refused, o.LivingDeleted, o.RowsBefore, o.Cost(), o.OrphansDeleted, o.Runs, o.WarmRefused)
}

// Cost is the share of the table that was lost, in percent.
func (o Outcome) Cost() float64 {
	return 100 * float64(o.LivingDeleted) / float64(max(o.RowsBefore, 1))
}
