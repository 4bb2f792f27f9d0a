package simulate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// History is one that is played.
type History struct {
	Group string // the table of the report that it stands in
	Name  string

	Rows     int
	Every    int     // hours between runs
	Deaths   float64 // share of the users that is deleted a day
	Joins    float64 // share of the users that joins a day; 0: as many as are deleted
	Readers  bool    // users read messages
	Canaries int     // living users that are configured as such
	Warm     int     // honest days before it begins
	Days     int     // it lasts

	// Begin happens once, Day at the beginning of each day from 0 on, Step before
	// each run with the days since the beginning.
	Begin func(ctx context.Context, p *play) error          `json:"-"`
	Day   func(ctx context.Context, p *play, day int) error `json:"-"`
	Step  func(p *play, days float64)                       `json:"-"`
	// Honest: an operator approves what a run was refused for, once.
	Honest bool
	// Stolen: runs are those of a thief, see [thief].
	Stolen bool
	// Large histories take many minutes and are played when asked for.
	Large bool
}

// Outcome is what came of it.
type Outcome struct {
	History
	Users          int // at the beginning
	RowsBefore     int64
	RefusedDay     int // after how many days it was first refused; -1: never
	Breaker        string
	RefusedDays    int // days with a refused run
	Breakers       map[string]int
	LivingDeleted  int64 // rows of living users that were deleted
	OrphansDeleted int64
	WarmRefused    int // days refused before it began
	Runs           int
}

// play is a history under way.
type play struct {
	*world
	History
	cfg     settings.Run
	out     Outcome
	begun   bool
	day     int
	refused map[int]bool
	onEnd   int  // days refused on end
	skip    bool // the runner is down
	began   int  // users when it began
	owed    float64
	thief   *thief
}

// patience is how many days on end a dishonest history is refused before it ends:
// longer than the retention and what the breakers compare with.
const patience = 40

// newPlay is a world without a history so far, in an empty migrated database.
func newPlay(pool *pgxpool.Pool, h History, limits settings.Limits) *play {
	p := &play{world: newWorld(pool, h.Rows, h.Readers), History: h, cfg: settings.DefaultRun()}
	p.cfg.Host, p.cfg.Version, p.cfg.Limits = "simulation", "simulation", limits
	if p.Joins == 0 {
		p.Joins = p.Deaths
	}
	p.forget()
	return p
}

// forget what came of it so far.
func (p *play) forget() {
	p.out = Outcome{History: p.History, RefusedDay: -1, Breakers: map[string]int{}, WarmRefused: len(p.refused)}
	p.refused = map[int]bool{}
}

// warm fills the table and lets honest days pass.
func (p *play) warm(ctx context.Context) error {
	if err := p.settle(ctx); err != nil {
		return err
	}
	for range p.Warm {
		if err := p.step(ctx, 24); err != nil {
			return err
		}
	}
	return p.vacuum(ctx)
}

// play plays the history in a world that is warm.
func (p *play) play(ctx context.Context) error {
	p.forget()
	p.canaries = p.some(p.Canaries, anybody)
	p.cfg.CanaryAlive = p.canaries
	p.begun, p.began, p.out.Users = true, len(p.users), len(p.users)
	if err := p.pool.QueryRow(ctx, rowsSQL).Scan(&p.out.RowsBefore); err != nil {
		return err
	}
	if p.Begin != nil {
		if err := p.Begin(ctx, p); err != nil {
			return err
		}
	}
	for p.day = 0; p.day < p.Days; p.day++ {
		if err := p.playDay(ctx); err != nil {
			return err
		}
		if p.onEnd++; !p.refused[p.hour/24] {
			p.onEnd = 0
		}
		if !p.Honest && p.onEnd > patience {
			break
		}
	}
	p.out.RefusedDays = len(p.refused)
	return nil
}

func (p *play) playDay(ctx context.Context) error {
	if p.Day != nil {
		if err := p.Day(ctx, p, p.day); err != nil {
			return err
		}
	}
	for hour := 0; hour < 24; hour += p.Every {
		if p.Step != nil {
			p.Step(p, float64(p.day)+float64(hour)/24)
		}
		if err := p.step(ctx, p.Every); err != nil {
			return err
		}
	}
	return nil
}

// step lets time pass and makes a run, or two where the operator approves.
func (p *play) step(ctx context.Context, hours int) error {
	if err := p.pass(ctx, hours, p.Deaths, p.Joins); err != nil {
		return err
	}
	if p.skip {
		return nil
	}
	ended, err := p.run(ctx)
	refusal, refused := errors.AsType[*run.Refusal](err)
	if !refused {
		return err
	}
	p.refused[p.hour/24] = true
	p.out.Breakers[refusal.Breaker]++
	if p.begun && p.out.RefusedDay < 0 {
		p.out.RefusedDay, p.out.Breaker = p.day, refusal.Breaker
	}
	if !p.Honest || !settings.Approvable(refusal.Breaker) {
		return nil
	}
	if _, err := database.Queries(p.pool).ApprovalGive(ctx, db.ApprovalGiveParams{RunID: ended.RunID, ApprovedBy: "operator", Lasting: 24 * time.Hour}); err != nil {
		return fmt.Errorf("approving: %w", err)
	}
	if _, err := p.run(ctx); err != nil && !errors.Is(err, run.ErrRefused) {
		return err
	}
	return nil
}

// run is one run of the product, or of a thief.
func (p *play) run(ctx context.Context) (result.Run, error) {
	var ended result.Run
	var err error
	if p.Stolen && p.begun {
		ended, err = p.steal(ctx)
	} else {
		ended, err = run.New(p.pool, p.world, slog.New(slog.DiscardHandler), p.cfg, func(context.Context) error { return nil }).Run(ctx)
	}
	p.out.Runs++
	if p.out.Runs%30 == 0 {
		if err := p.vacuum(ctx); err != nil {
			return ended, err
		}
	}
	if ended.MembersDeleted > 0 {
		living, err := p.livingDeleted(ctx)
		if err != nil {
			return ended, err
		}
		p.out.LivingDeleted += living
		p.out.OrphansDeleted += ended.MembersDeleted - living
	}
	return ended, err
}

// drip loses n more users, a fraction of one being carried over.
func (p *play) drip(n float64, is func(uuid.UUID) bool) {
	p.owed += n
	p.lose(int(p.owed), is)
	p.owed -= float64(int(p.owed))
}
