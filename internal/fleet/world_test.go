package fleet_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// world is a fleet: real databases, and one auth-service for all.
type world struct {
	t      *testing.T
	shards []*testdb.DB
	auth   *authfake.Server
	fleet  *fleet.Fleet
	users  [][]uuid.UUID // of each shard

	mu  sync.Mutex
	log strings.Builder
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// newWorld has shards s0, s1, … of users with perUser members each, who joined 90 days ago.
func newWorld(t *testing.T, shards, users, perUser int) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t}
	var err error
	if w.auth, err = authfake.Start(authfake.Options{Record: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.auth.Stop)
	cfg := settings.DefaultRun()
	cfg.Host, cfg.Version = "test:1", "test"
	latest, err := migrate.Latest()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(w, nil))
	w.fleet = &fleet.Fleet{
		File:     fleet.File{Path: "fleet.yaml", Waves: []int{1, 2}, Limits: settings.DefaultLimits(), Outlier: 10, Workers: 3, JobTimeout: time.Hour},
		Settings: cfg, Users: w.client(), Log: log,
		Open: func(ctx context.Context, shard fleet.Shard) (*pgxpool.Pool, error) {
			return database.Open(ctx, shard.URL, 0, 4)
		},
		Preflight: func(pool *pgxpool.Pool, log *slog.Logger, isDry bool) func(ctx context.Context) error {
			return check.New(pool, log, latest).ForRun(isDry)
		},
	}
	for i := range shards {
		db := testdb.New(t)
		w.shards = append(w.shards, db)
		w.fleet.Shards = append(w.fleet.Shards, fleet.Shard{Name: fmt.Sprintf("s%d", i), URL: db.URL})
		db.Exec(`INSERT INTO conversations (name) SELECT 'c' || n FROM generate_series(1, $1::int) AS n`, perUser)
		ids := make([]uuid.UUID, users)
		for j := range ids {
			ids[j] = uuid.New()
		}
		db.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
			SELECT c.id, u, now() - interval '90 days' FROM unnest($1::uuid[]) AS u, conversations AS c`, ids)
		w.auth.Add(ids...)
		w.users = append(w.users, ids)
	}
	return w
}

func (w *world) client() run.Checker {
	w.t.Helper()
	client, err := authclient.Dial(source.Config{
		URL: w.auth.URL(), BackoffInitial: time.Millisecond, BackoffMax: 5 * time.Millisecond,
		Timeout: time.Minute, MaxAttempts: 2, Logger: slog.New(slog.NewTextHandler(w, nil)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = client.Close() })
	return client
}

// missingFor seeds the ledger of a shard: users missing for so many days, seen a minute ago.
func (w *world) missingFor(shard, days int, users ...uuid.UUID) {
	w.t.Helper()
	w.auth.Delete(users...)
	w.shards[shard].Exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
		SELECT u, now() - make_interval(days => $2::int), now() - interval '1 minute', 0, 'sightings' FROM unnest($1::uuid[]) AS u`, users, days)
}

// settle waits until the rows are old enough for a sweep.
func (w *world) settle() {
	w.t.Helper()
	for _, db := range w.shards {
		db.Settle()
	}
}

// contents is a fingerprint of everything of ours and of the members, runs among them.
func (w *world) contents() []string {
	w.t.Helper()
	var all []string
	for _, db := range w.shards {
		var text strings.Builder
		for _, table := range []string{"runs", "candidates", "sightings", "hours", "coverage", "refusals", "rechecks"} {
			text.WriteString(table + " " + db.Fingerprint("orphan_cleaner."+table) + "\n")
		}
		for _, table := range []string{"conversation_members", "conversation_members_audit", "conversation_members_backup"} {
			text.WriteString(table + " " + db.Fingerprint(table) + "\n")
		}
		all = append(all, text.String())
	}
	return all
}

// unchanged fails the test where a shard is not what it was.
func (w *world) unchanged(before []string, shards ...int) {
	w.t.Helper()
	after := w.contents()
	for i := range w.shards {
		if (len(shards) == 0 || slices.Contains(shards, i)) && before[i] != after[i] {
			w.t.Errorf("shard %d was changed:\n%s\nit was:\n%s", i, after[i], before[i])
		}
	}
}

// cleaned asserts I3 of a shard: so many rows deleted, audited and backed up, by one run.
func (w *world) cleaned(shard int, deleted int64) {
	w.t.Helper()
	db := w.shards[shard]
	audited := db.Count(`conversation_members_audit WHERE run_id IS NOT NULL`)
	backedUp := db.Count(`conversation_members_backup`)
	runs := db.Count(`orphan_cleaner.runs WHERE state = 'succeeded'`)
	if audited != deleted || backedUp != deleted || runs != 1 {
		w.t.Errorf("shard %d: audited %d, backed up %d, want %d; %d runs succeeded, want 1", shard, audited, backedUp, deleted, runs)
	}
}

// write writes a file beside the others of a test, and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
