package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
)

// roles grants what sql/roles.sql does, to the login cleaner.
func (w *world) roles(cluster *pgtemp.Cluster) {
	w.t.Helper()
	psql := exec.Command(filepath.Join(cluster.BinDir(), "psql"), "-X", "-q", "-d", w.url, "-f", "../../sql/roles.sql")
	if out, err := psql.CombinedOutput(); err != nil {
		w.t.Fatalf("roles.sql: %v\n%s", err, out)
	}
	w.exec(`GRANT orphan_cleaner_runner TO cleaner`)
}

// asCleaner leads the program to the database as the login cleaner, which it makes.
func (w *world) asCleaner() {
	w.t.Helper()
	w.exec(`CREATE ROLE cleaner LOGIN`)
	w.env = []string{"DATABASE_URL=" + strings.Replace(w.url, "postgres@", "cleaner@", 1)}
}

// loginStolen: what the login may not do by hand, and what comes of it when it
// plays the part of the runner and of auth-service.
func loginStolen(w *world) {
	cluster := w.ownCluster(pgtemp.Options{})
	w.asCleaner()
	w.roles(cluster)
	owner := w.url
	w.url = strings.Replace(w.url, "postgres@", "cleaner@", 1)
	thief, _ := w.session()
	w.url = owner
	ctx := context.Background()
	for _, attempt := range []string{
		`DELETE FROM conversation_members`,
		`SET orphan_cleaner.run_token = 'x'; DELETE FROM conversation_members`,
		`INSERT INTO conversation_members (conversation_id, user_id) SELECT conversation_id, gen_random_uuid() FROM conversation_members LIMIT 1`,
		`UPDATE conversation_members SET joined_at = '2000-01-01'`,
		`TRUNCATE conversation_members`,
		`ALTER TABLE conversation_members DISABLE TRIGGER ALL`,
		`DO 'BEGIN LOCK TABLE conversation_members IN ACCESS EXCLUSIVE MODE; END'`,
		`SET session_replication_role = replica`,
		`SELECT token FROM orphan_cleaner.runs`,
		`UPDATE orphan_cleaner.candidates SET first_missing_at = '2000-01-01'`,
		`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence) VALUES (gen_random_uuid(), '2000-01-01', now(), 1, 'sightings')`,
		`UPDATE orphan_cleaner.runs SET state = 'failed', finished_at = now()`,
		`DELETE FROM orphan_cleaner.hours`,
		`DELETE FROM orphan_cleaner.limits`,
		`DO 'BEGIN LOCK TABLE orphan_cleaner.runs IN ROW EXCLUSIVE MODE; END'`,
		`DELETE FROM conversation_members_audit`,
		`DELETE FROM conversation_members_backup`,
		`SELECT orphan_cleaner.conversation_members_delete('{}', now(), '1', 1)`,
		`SELECT orphan_cleaner.candidates_leave('{}')`,
		`CREATE TABLE public.mine ()`,
		`CREATE FUNCTION orphan_cleaner.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'`,
		`SET ROLE orphan_cleaner_owner`,
	} {
		var refused *pgconn.PgError
		if _, err := thief.Exec(ctx, attempt); !errors.As(err, &refused) || refused.Code != "42501" {
			w.t.Errorf("%s: %v", attempt, err)
		}
	}

	// A living user, said to be missing. The clock has only just begun, and the
	// retention is pinned.
	w.exec(`INSERT INTO orphan_cleaner.limits (name, value) VALUES ('retention', 30 * 86400)`)
	run, token := w.forges(thief, w.living[40])
	var deleted int64
	if err := thief.QueryRow(ctx, `SELECT rows_deleted[1] FROM orphan_cleaner.sweep_chunk($1, $2, ARRAY(SELECT DISTINCT user_id FROM conversation_members),
		pg_snapshot_xmin(pg_current_snapshot()), 1000000)`, run, token).Scan(&deleted); err != nil || deleted != 0 {
		w.t.Errorf("%d members deleted: %v", deleted, err)
	}
	w.does(thief, `SELECT orphan_cleaner.run_finish($1, $2, 'succeeded', NULL, NULL, '{}')`, run, token)
	w.sound()
	w.amount(untouched)
	w.holds("I9")
	w.note.exit, w.note.state, w.note.shows = "", "", "permission denied; a forged run deletes nobody"
}

// forges makes a run of the session's own, in which a user is missing, up to its judgement.
func (w *world) forges(session *pgx.Conn, missing uuid.UUID) (run int64, token uuid.UUID) {
	w.t.Helper()
	ctx, token := context.Background(), uuid.New()
	settings, err := json.Marshal(map[string]any{
		"retention": 0, "max-gap": 1e9, "new-missing-share": 1, "new-missing-rate": 1, "candidate-share": 1, "delete-share": 1,
		"delete-share-7d": 1, "delete-share-30d": 1, "delete-rows": 1e9, "history": 0, "recently-active": 1e9,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := session.QueryRow(ctx, `SELECT run_id FROM orphan_cleaner.run_begin($1, 'clean', 'verify', $2::jsonb, '1 minute', 'x:1', 'x', NULL, false)`,
		token, string(settings)).Scan(&run); err != nil {
		w.t.Fatal(err)
	}
	w.does(session, `SELECT orphan_cleaner.run_stage($1, $2, ARRAY[$3::uuid], '{}')`, run, token, missing)
	var breaker *string
	if err := session.QueryRow(ctx, `SELECT breaker FROM orphan_cleaner.run_judge($1, $2, '{"users_checked": 600, "users_missing": 1, "users_unknown": 0,
		"members_total": 1200, "batch_calls": 6, "users_covered": 600, "alive_missing": 0, "dead_present": 0}')`, run, token).Scan(&breaker); err != nil || breaker != nil {
		w.t.Fatalf("the forged run was not let pass, and the row tests nothing: %v, %v", breaker, err)
	}
	return run, token
}

// stackExhausted: a chunk with ever a little more stack, until it has enough: it ends within the
// function, in front of the trigger, and in it. It deletes with evidence, or does not delete.
func stackExhausted(w *world) {
	hostile, _ := w.session()
	user := w.dead[0]
	run, token := w.forges(hostile, user) // in which the others are alive
	w.spare(`user_id <> $1`, user)
	w.does(hostile, fmt.Sprintf(`CREATE FUNCTION pg_temp.deep(n integer) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			IF n > 0 THEN
				PERFORM pg_temp.deep(n - 1);
			ELSE
				PERFORM orphan_cleaner.sweep_chunk(%d, '%s', ARRAY['%s'::uuid], pg_snapshot_xmin(pg_current_snapshot()), 1000);
			END IF;
		END $$`, run, token, user))
	failures := 0
	for kilobytes := 100; w.count(`conversation_members WHERE user_id = $1`, user) > 0; kilobytes++ {
		w.does(hostile, fmt.Sprintf(`SET max_stack_depth = '%dkB'`, kilobytes))
		_, err := hostile.Exec(context.Background(), `SELECT pg_temp.deep(100)`)
		if said := new(pgconn.PgError); errors.As(err, &said) && said.Code != "54001" || kilobytes > 1500 {
			w.t.Fatalf("with %d kB: %v", kilobytes, err)
		}
		if err != nil {
			failures++
		}
	}
	if failures < 10 {
		w.t.Errorf("only %d attempts ran out of stack: the row tests nothing", failures)
	}
	w.does(hostile, `RESET max_stack_depth`)
	w.does(hostile, `SELECT orphan_cleaner.run_finish($1, $2, 'succeeded', NULL, NULL, '{}')`, run, token)
	w.sound()
	w.converges()
	w.note.exit, w.note.state, w.note.shows = "", "", "deleted with evidence, or not at all"
}
