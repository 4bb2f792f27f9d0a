package check

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// How far the clocks of this machine and of the database may be apart. The
// retention goes by the database's alone: a minute means that either is wrong,
// and that nobody knows which.
const (
	skewWarn = 5 * time.Second
	MaxSkew  = time.Minute
)

// SetClocks is the hint where they are further apart.
const SetClocks = "set the clocks: chronyc tracking, or timedatectl timesync-status, on both machines"

// checkSkew compares the database's time with those of asking and answer here; false:
// they are too far apart.
func checkSkew(there, asked, answered time.Time, f *Findings) (agree bool) {
	skew := max(there.Sub(answered), asked.Sub(there), 0)
	which := "ahead of"
	if there.Before(asked) {
		which = "behind"
	}
	message := fmt.Sprintf("the database is %s %s this machine", skew.Round(time.Second), which)
	switch {
	case skew > MaxSkew:
		f.add("clock-skew", Fail, message, SetClocks)
	case skew > skewWarn:
		f.add("clock-skew", Warn, message, SetClocks)
	default:
		f.add("clock-skew", OK, "database and this machine agree about the time", "")
	}
	return skew <= MaxSkew
}

// Clock is an error where the clocks of this machine and of the database are so far
// apart that either is wrong: nothing that goes by time may delete or drop then.
func Clock(ctx context.Context, pool *pgxpool.Pool) error {
	asked := time.Now()
	there, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) (time.Time, error) { return q.ClockNow(ctx) })
	if err != nil {
		return fmt.Errorf("reading the database's clock: %w", err)
	}
	var found Findings
	checkSkew(there, asked, time.Now(), &found)
	return found.Err("check")
}
