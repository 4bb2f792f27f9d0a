package bench

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/lab/process"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp/dbsetup"
)

// survivors are the members that a program leaves.
type survivors struct {
	Members     int64
	Fingerprint string
}

// dataset is one size and share: the databases to be cloned, and auth-service.
type dataset struct {
	size     Size
	dead     int    // users
	fresh    string // a database whose dead are due
	worn     string // the same after many runs; empty: none
	auth     *process.AuthService
	users    string // auth-service's database, where it is asked by SQL
	expected survivors
	doomed   int64 // members
}

func (s Size) settings() map[string]string {
	return map[string]string{
		"bench.conversations": strconv.Itoa(s.Conversations), "bench.members": strconv.Itoa(s.Members), "bench.users": strconv.Itoa(s.Users),
	}
}

// fill makes messaging-service, and then our schema.
func (b *bench) fill(ctx context.Context, size Size) (name string, err error) {
	if name, err = b.create(ctx, ""); err != nil {
		return "", err
	}
	if err := dbsetup.Schema(ctx, b.cluster.URL(name)); err != nil {
		return "", err
	}
	// First the rows, then the triggers: loading is nobody's figure.
	if err := b.script(ctx, name, "filling messaging-service", seedSQL, size.settings()); err != nil {
		return "", err
	}
	if _, err := b.done(process.Command(ctx, []string{"DATABASE_URL=" + b.cluster.URL(name)}, b.Product, "migrate", "up")); err != nil {
		return "", err
	}
	return name, b.vacuum(ctx, name)
}

// fillUsers makes the database of an auth-service that knows all users but the first.
func (b *bench) fillUsers(ctx context.Context, d *dataset) (err error) {
	if d.users, err = b.create(ctx, ""); err != nil {
		return err
	}
	settings := map[string]string{"bench.users": strconv.Itoa(d.size.Users), "bench.dead": strconv.Itoa(d.dead)}
	if err := b.script(ctx, d.users, "filling auth-service", usersSQL, settings); err != nil {
		return err
	}
	return b.vacuum(ctx, d.users)
}

// startAuthService starts one that knows all users but the first, who are dead.
func (b *bench) startAuthService(ctx context.Context, base string, d *dataset) (auth *process.AuthService, err error) {
	args := []string{"--p50=" + b.P50.String(), "--p99=" + b.P99.String()}
	err = b.on(ctx, base, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "SELECT set_config('bench.users', $1, false), set_config('bench.dead', $2, false)",
			strconv.Itoa(d.size.Users), strconv.Itoa(d.dead)); err != nil {
			return err
		}
		auth, err = process.StartAuthService(ctx, b.Lab, args, func(stdin io.Writer) error {
			_, err := conn.PgConn().CopyTo(ctx, stdin, "COPY ("+livingSQL+") TO STDOUT")
			return err
		})
		return err
	})
	return auth, err
}

// makeDue has runs find the dead missing, one for the fresh database and all those
// before for the worn one, and then moves the clocks back. The worn one is not
// vacuumed: that is the worst that many runs can leave.
func (b *bench) makeDue(ctx context.Context, base string, d *dataset) (err error) {
	if d.fresh, err = b.create(ctx, base); err != nil {
		return err
	}
	if err := b.runs(ctx, d, d.fresh, 1); err != nil {
		return err
	}
	if err := b.vacuum(ctx, d.fresh); err != nil {
		return err
	}
	if b.RunsBefore > 0 {
		if d.worn, err = b.create(ctx, d.fresh); err != nil {
			return err
		}
		b.Say("  making %d runs …", b.RunsBefore)
		if err := b.runs(ctx, d, d.worn, b.RunsBefore-1); err != nil {
			return err
		}
	}
	for _, name := range []string{d.fresh, d.worn} {
		if name == "" {
			continue
		}
		if err := b.script(ctx, name, "moving the clocks back", dueSQL, nil); err != nil {
			return err
		}
		if name == d.fresh {
			if err := b.vacuum(ctx, name); err != nil {
				return err
			}
		}
	}
	return b.on(ctx, d.fresh, func(conn *pgx.Conn) error {
		var all survivors
		if err := conn.QueryRow(ctx, expectedSQL, d.dead).Scan(&d.expected.Members, &d.expected.Fingerprint); err != nil {
			return fmt.Errorf("finding out who must be left: %w", err)
		}
		if err := conn.QueryRow(ctx, survivorsSQL).Scan(&all.Members, &all.Fingerprint); err != nil {
			return err
		}
		if all.Members != int64(d.size.Members) {
			return fmt.Errorf("%w: %d members are there before the first deletion, not %d", ErrNotTheSame, all.Members, d.size.Members)
		}
		d.doomed = all.Members - d.expected.Members
		return nil
	})
}

// clone makes a database to be measured on, and warms it up: who connects first
// writes PostgreSQL's own caches, and who reads first fills its memory.
func (b *bench) clone(ctx context.Context, template string) (name string, err error) {
	if name, err = b.create(ctx, template); err != nil {
		return "", err
	}
	var warm survivors
	err = b.on(ctx, name, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, survivorsSQL).Scan(&warm.Members, &warm.Fingerprint)
	})
	return name, err
}

// same is an [ErrNotTheSame] unless a program left what it had to, with as many rows
// of evidence as it owes.
func (b *bench) same(ctx context.Context, d *dataset, name string, deleted, evidence int64) error {
	return b.on(ctx, name, func(conn *pgx.Conn) error {
		var left survivors
		if err := conn.QueryRow(ctx, survivorsSQL).Scan(&left.Members, &left.Fingerprint); err != nil {
			return fmt.Errorf("looking who is left: %w", err)
		}
		if left != d.expected || deleted != d.doomed {
			return fmt.Errorf("%w: %d members are left (sum %s), not the %d (sum %s) of living users; deleted, it says, %d, not %d",
				ErrNotTheSame, left.Members, left.Fingerprint, d.expected.Members, d.expected.Fingerprint, deleted, d.doomed)
		}
		var audited, backedUp int64
		if err := conn.QueryRow(ctx, evidenceSQL).Scan(&audited, &backedUp); err != nil {
			return fmt.Errorf("looking for evidence: %w", err)
		}
		if audited != evidence || backedUp != evidence {
			return fmt.Errorf("%w: %d members audited and %d backed up, not %d", ErrNotTheSame, audited, backedUp, evidence)
		}
		return nil
	})
}
