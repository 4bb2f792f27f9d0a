// Package runbook_test runs the scripts that a DBA runs by hand, by psql, on
// databases that have a history.
package runbook_test

import (
	"context"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// The groups of roles.sql under which scripts are run.
const (
	asMigrator = "orphan_cleaner_migrator"
	asRunner   = "orphan_cleaner_runner"
	asRestorer = "orphan_cleaner_restorer"
	asReader   = "orphan_cleaner_reader"
)

// place is messaging-service's database with a history: 100 users with three
// members each in 20 conversations, and two conversations more.
//
//	1 to 8    deleted 40 days ago; their members, 24 and 2 more, are due
//	9         likewise, but one member joined five days ago
//	10        likewise, on hold
//	11 to 15  deleted ten days ago
//	others    living
//
// Conversation 20 has but users 1 and 2 and is owned by user 1, conversation 0 by
// user 20, the others by the user of that number.
type place struct {
	*testdb.DB
	t       *testing.T
	missing []uuid.UUID // what auth-service leaves out
}

func newPlace(t *testing.T, targets ...string) *place {
	t.Helper()
	t.Parallel()
	p := &place{DB: testdb.New(t), t: t}
	for n := 1; n <= 15; n++ {
		p.missing = append(p.missing, p.user(n))
	}
	p.Exec(`INSERT INTO users (id, username, created_at, deleted_at)
		SELECT md5('user ' || n)::uuid, 'user' || n, now() - interval '1 year', CASE WHEN n <= 10 THEN now() - interval '40 days' WHEN n <= 15 THEN now() - interval '10 days' END
		FROM generate_series(1, 100) AS n`)
	p.Exec("INSERT INTO conversations (id, name) SELECT md5('conversation ' || n)::uuid, 'c' || n FROM generate_series(0, 20) AS n")
	p.Exec(`INSERT INTO conversation_members (conversation_id, user_id, role, joined_at, last_read_at, is_muted, user_public_key)
		SELECT md5('conversation ' || c)::uuid, md5('user ' || n)::uuid, CASE WHEN c = n OR c = 20 AND n = 1 OR c = 0 AND n = 20 THEN 'owner' ELSE 'member' END,
			now() - make_interval(days => CASE WHEN n = 9 AND c = 9 THEN 5 ELSE 90 END), now() - interval '50 days', n % 2 = 0, 'key of ' || n
		FROM generate_series(1, 100) AS n, unnest(ARRAY[n % 20, (n + 7) % 20, (n + 13) % 20] || CASE WHEN n <= 2 THEN 20 END) AS c
		WHERE c IS NOT NULL`)
	p.Exec("UPDATE conversations AS c SET member_count = (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)")
	p.Exec("INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES ($1, 'a lawsuit')", p.user(10))
	if len(targets) > 0 {
		p.Targets(targets...)
	}
	p.Roles("../roles.sql")
	return p
}

func (p *place) user(n int) uuid.UUID {
	p.t.Helper()
	return testdb.One[uuid.UUID](p.DB, "SELECT md5('user ' || $1::int)::uuid", n)
}

// Missing is auth-service.
func (p *place) Missing(_ context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	return slices.DeleteFunc(slices.Clone(ids), func(id uuid.UUID) bool { return !slices.Contains(p.missing, id) }), nil
}

// run makes a run, or a dry one. Most of what it finds is due or new, which is not
// what these tests are about.
func (p *place) run(dry bool) result.Run {
	p.t.Helper()
	p.Settle()
	cfg := settings.DefaultRun()
	cfg.DryRun, cfg.Host, cfg.Version = dry, "test:1", "test"
	for _, name := range []string{
		"new-missing-share", "new-missing-rate", "candidate-share", "delete-share", "delete-share-7d", "delete-share-30d",
	} {
		cfg.Limits[name] = 1
	}
	latest, err := migrate.Latest()
	if err != nil {
		p.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	r, err := run.New(p.Pool, p, log, cfg, check.New(p.Pool, log, latest).ForRun(dry)).Run(p.t.Context())
	if err != nil {
		p.t.Fatalf("the run ended %s: %v", r.State, err)
	}
	return r
}

// script runs a script by psql as a member of a group, with variables NAME=VALUE,
// and returns what it printed, its columns separated by bars.
func (p *place) script(group, name string, variables ...string) string {
	p.t.Helper()
	out, err := p.try(group, name, variables...)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p *place) try(group, name string, variables ...string) (string, error) {
	p.t.Helper()
	args := []string{"-A", "-P", "footer=off", "-f", name}
	for _, variable := range variables {
		args = append(args, "-v", variable)
	}
	url := p.URL
	if group != "" {
		url = p.Login(group)
	}
	return p.PsqlAs(url, args...)
}

// wantLines fails the test unless each pattern matches a whole line of out, and no
// two of them the same.
func wantLines(t *testing.T, out string, patterns ...string) {
	t.Helper()
	lines := strings.Split(out, "\n")
	missed := false
	for _, pattern := range patterns {
		re := regexp.MustCompile("^(?:" + pattern + ")$")
		at := slices.IndexFunc(lines, re.MatchString)
		if at < 0 {
			t.Errorf("no line is %s", pattern)
			missed = true
			continue
		}
		lines = slices.Delete(lines, at, at+1)
	}
	if missed {
		t.Log(out)
	}
}
