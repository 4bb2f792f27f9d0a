package simulate

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp/dbsetup"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// worlds are warm ones, from which histories begin.
type worlds struct {
	cluster  *pgtemp.Cluster
	template string // the database with tables and migrations, and nothing in them
	limits   settings.Limits

	mu        sync.Mutex // one database is made at a time
	warm      map[warmth]*warmed
	databases int
}

// warmth is what the time before a history depends on.
type warmth struct {
	rows, days    int
	deaths, joins float64
	readers       bool
}

// warmed is a world and its database, to which nobody is connected.
type warmed struct {
	once     sync.Once
	database string
	play     *play
	err      error
}

// play plays a history in a clone of the warm world that it needs.
func (w *worlds) play(ctx context.Context, h History) (Outcome, error) {
	from := w.warmWorld(ctx, h)
	if from.err != nil {
		return Outcome{}, from.err
	}
	pool, _, err := w.clone(ctx, from.database)
	if err != nil {
		return Outcome{}, err
	}
	defer pool.Close()
	p := newPlay(pool, h, w.limits)
	p.world, p.refused = from.play.in(pool), from.play.refused
	err = p.play(ctx)
	return p.out, err
}

func (w *worlds) warmWorld(ctx context.Context, h History) *warmed {
	key := warmth{h.Rows, h.Warm, h.Deaths, h.Joins, h.Readers}
	w.mu.Lock()
	if w.warm[key] == nil {
		w.warm[key] = &warmed{}
	}
	world := w.warm[key]
	w.mu.Unlock()
	world.once.Do(func() {
		var pool *pgxpool.Pool
		if pool, world.database, world.err = w.clone(ctx, w.template); world.err != nil {
			return
		}
		defer pool.Close()
		world.play = newPlay(pool, h, w.limits)
		world.err = world.play.warm(ctx)
	})
	return world
}

func (w *worlds) clone(ctx context.Context, template string) (pool *pgxpool.Pool, name string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.databases++
	name = fmt.Sprintf("simulated_%d", w.databases)
	if err := dbsetup.CreateDatabase(ctx, w.cluster.URL("postgres"), name, template); err != nil {
		return nil, "", err
	}
	pool, err = pgxpool.New(ctx, w.cluster.URL(name))
	return pool, name, err
}
