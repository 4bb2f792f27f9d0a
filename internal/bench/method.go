package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
)

// Method is a way to remove the members of dead users.
type Method struct {
	Name  string
	About string // one line
	// Audited: what it deletes is audited and backed up. All others run without
	// the trigger.
	Audited bool
	// Asks: it calls auth-service.
	Asks bool
	// Prepare, before the clock starts, brings a clone into the state it needs;
	// nil: nothing to do.
	Prepare func(ctx context.Context, conn *pgx.Conn, settings map[string]string) error
	// Do is what is timed.
	Do func(ctx context.Context, s Subject) (Outcome, error)
	// Pause is what the method waits after each of its Outcome's pauses.
	Pause time.Duration
	// Serial: one call after the other, so that what it waits for can be computed.
	Serial bool
	// Base is the same method without its pause. Where that is measured too, its
	// check serves for both, and so do its repetitions where waits are computed.
	Base string
}

// Subject is what a method works on.
type Subject struct {
	Pool   *pgxpool.Pool // of the clone; connected
	Client *authclient.Client
	Config cleaner.Config // of ours; others take batch size and concurrency from it
	Pause  time.Duration  // Method.Pause, or 0 where it is computed
}

// Outcome is what a method did.
type Outcome struct {
	Deleted int64                    // members
	Pauses  int                      // made, or to be computed
	Phases  map[string]time.Duration // of ours
}

// Methods are all of them, ours first.
func Methods() []Method {
	return []Method{
		{
			Name: "ours", About: "a whole run: preflight, verify, judge, sweep with audit, backup and proof, finish",
			Audited: true, Asks: true, Do: ours,
		},
		{
			Name: "row-at-a-time", About: "the first implementation: a call at a time, one DELETE per missing user, 100 ms after each batch that deleted",
			Asks: true, Serial: true, Prepare: triggersOff, Do: rowAtATime,
			Pause: 100 * time.Millisecond, Base: "row-at-a-time-no-pause",
		},
		{
			Name: "row-at-a-time-no-pause", About: "the same without its pause",
			Asks: true, Serial: true, Prepare: triggersOff, Do: rowAtATime,
		},
		{
			Name: "fdw", About: "postgres_fdw: one anti-join DELETE over auth-service's own table, not audited",
			Prepare: foreignUnaudited, Do: foreign,
		},
		{
			Name: "fdw-audited", About: "the same under our trigger, which audits and backs up",
			Audited: true, Prepare: foreignUsers, Do: foreignAudited,
		},
		{
			Name: floorName, About: "the least that asking takes: scan, all calls at our concurrency, one DELETE, not audited",
			Asks: true, Prepare: triggersOff, Do: floor,
		},
	}
}

// floorName is the method that the others are compared with.
const floorName = "floor"

func triggersOff(ctx context.Context, conn *pgx.Conn, _ map[string]string) error {
	return script(ctx, conn, "switching the audit trigger off", triggersOffSQL, nil)
}

// ParseMethod finds a method by its name.
func ParseMethod(name string) (Method, error) {
	if m, found := find(Methods(), name); found {
		return m, nil
	}
	return Method{}, fmt.Errorf("method %q is none of ours, row-at-a-time, row-at-a-time-no-pause, fdw, fdw-audited, floor", name)
}

func find(methods []Method, name string) (Method, bool) {
	i := slices.IndexFunc(methods, func(m Method) bool { return m.Name == name })
	if i < 0 {
		return Method{}, false
	}
	return methods[i], true
}
