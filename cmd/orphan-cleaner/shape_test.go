package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// newShaped is a world whose conversation_members was made another before the first
// migration: of its 60 users with two members each 5 are due.
func newShaped(t *testing.T, db *testdb.DB, shape string) *world {
	t.Helper()
	w := &world{DB: db, auth: newAuth(t)}
	w.env = w.envOf(w.URL)
	w.Exec(shape)
	program(t, w.env, "migrate", "up").expect(t, exitDone)
	w.Exec(`INSERT INTO users (id, username, created_at) SELECT md5('user ' || n)::uuid, 'user' || n, now() - interval '400 days'
		FROM generate_series(1, 60) AS n`)
	w.Exec(`INSERT INTO conversations (id) SELECT md5('conversation ' || n)::uuid FROM generate_series(0, 9) AS n`)
	w.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT md5('conversation ' || (n + c) % 10)::uuid, md5('user ' || n)::uuid, now() - interval '60 days'
		FROM generate_series(1, 60) AS n, generate_series(1, 2) AS c`)
	w.dead = w.users(t, "id IN (SELECT md5('user ' || n)::uuid FROM generate_series(1, 5) AS n)")
	w.auth.Add(w.users(t, "true")...)
	w.auth.Delete(w.dead...)
	w.longMissing(w.dead...)
	return w
}

const shapedDue = 10

// lives is the life of the due members: deleted, restored, deleted by a revert and
// restored again, each time the same, byte for byte.
func (w *world) lives(t *testing.T) {
	t.Helper()
	w.Settle()
	before := w.Snapshot("conversation_members")
	same := func(what string) {
		t.Helper()
		if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
			t.Errorf("%s the table is not as it was:\n%s", what, diff)
		}
	}
	for _, f := range w.findings(t, exitDone) {
		if f.Status != check.OK && f.Name != "limits" && f.Name != "member-count" && f.Name != "canaries" {
			t.Errorf("check: %+v", f)
		}
	}
	if due := w.backlogDue(t); due != shapedDue {
		t.Errorf("status has %v members due now, want %d", due, shapedDue)
	}
	ran := program(t, w.env, "run", "--json").expect(t, exitDone).result(t)
	if ran["members_deleted"] != float64(shapedDue) {
		t.Fatalf("%v members are deleted, want %d", ran["members_deleted"], shapedDue)
	}
	run := fmt.Sprint(ran["run_id"])
	restored := w.restore(t, "--run", run)
	if restored["members_restored"] != float64(shapedDue) {
		t.Fatalf("%v", restored)
	}
	same("restored")
	if again := w.restore(t, "--run", run); again["there"] != float64(shapedDue) || again["there_differs"] != 0.0 {
		t.Errorf("restored rows are taken for others: %v", again)
	}
	w.Settle()
	reverted := w.restore(t, "--revert", fmt.Sprint(restored["run_id"]))
	if reverted["members_reverted"] != float64(shapedDue) {
		t.Fatalf("%v", reverted)
	}
	w.scripts(t, fmt.Sprint(reverted["run_id"]))
	same("restored, reverted and restored")
	program(t, w.env, "report", "--since", testdb.One[string](w.DB, "SELECT current_date::text")).expect(t, exitDone)
	if warned := w.leave(t); warned != nil {
		t.Errorf("the application was warned: %v", warned)
	}
}

// scripts runs those of the runbook that look at members, and restores what a run deleted.
func (w *world) scripts(t *testing.T, run string) {
	t.Helper()
	for _, args := range [][]string{
		{"preflight.sql"},
		{"due_now.sql"},
		{"backlog.sql"},
		{"orphans_left_behind.sql"},
		{"empty_conversations.sql"},
		{"run_deleted.sql", "-v", "list=1", "-v", "run=" + run},
		{"user_everything.sql", "-v", "user=" + w.dead[0].String()},
		{"user_erase.sql", "-v", "user=" + w.dead[0].String()},
		{"restore_range.sql", "-v", "from=yesterday", "-v", "to=tomorrow", "-v", "run=" + run, "-v", "execute=1"},
	} {
		w.Psql(append([]string{"-f", "../../sql/runbook/" + args[0]}, args[1:]...)...)
	}
}

// backlogDue is how many members status says are due now.
func (w *world) backlogDue(t *testing.T) (due float64) {
	t.Helper()
	backlog, _ := program(t, w.env, "status", "--json").expect(t, exitDone).object(t)["backlog"].([]any)
	for _, day := range backlog {
		if b, _ := day.(map[string]any); b["is_due"] == true {
			members, _ := b["members"].(float64)
			due += members
		}
	}
	return due
}

// Tables that are not quite the one that was expected, and that runs can work on.
func TestShapes(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 63)
	for name, c := range map[string]struct{ shape, values string }{
		"the key in another order": {`ALTER TABLE conversation_members DROP CONSTRAINT conversation_members_pkey,
			ADD PRIMARY KEY (user_id, conversation_id)`, ""},
		"a unique index and a key of its own": {`ALTER TABLE conversation_members DROP CONSTRAINT conversation_members_pkey,
			ADD id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;
			CREATE UNIQUE INDEX ON conversation_members (user_id, conversation_id) INCLUDE (role)`, ""},
		"members of nobody": {`ALTER TABLE conversation_members DROP CONSTRAINT conversation_members_pkey, ADD UNIQUE (conversation_id, user_id),
			ALTER user_id DROP NOT NULL`, `INSERT INTO conversation_members (conversation_id, joined_at) SELECT id, now() - interval '60 days' FROM conversations`},
		"no role":                             {`ALTER TABLE conversation_members DROP COLUMN role`, ""},
		"no column but those that are needed": {`ALTER TABLE conversation_members DROP role, DROP last_read_at, DROP is_muted, DROP user_public_key`, ""},
		"domains": {`CREATE DOMAIN id AS uuid; CREATE DOMAIN moment AS timestamptz; CREATE DOMAIN title AS text CHECK (value <> 'god');
			ALTER TABLE conversation_members ALTER user_id TYPE id, ALTER conversation_id TYPE id, ALTER joined_at TYPE moment,
			ALTER last_read_at TYPE moment, DROP CONSTRAINT conversation_members_role_check, ALTER role TYPE title`, ""},
		"a domain that old rows would not pass": {
			`CREATE DOMAIN nick AS text; ALTER TABLE conversation_members ADD nick nick`,
			`UPDATE conversation_members SET nick = ' '; ALTER DOMAIN nick ADD CHECK (btrim(value) <> '') NOT VALID`,
		},
		"an enum for the role": {
			`CREATE TYPE roles AS ENUM ('member', 'owner');
			ALTER TABLE conversation_members DROP CONSTRAINT conversation_members_role_check, ALTER role DROP DEFAULT;
			ALTER TABLE conversation_members ALTER role TYPE roles USING role::roles, ALTER role SET DEFAULT 'member'`,
			`UPDATE conversation_members SET role = 'owner'`,
		},
		"generated columns": {`ALTER TABLE conversation_members ADD shout text GENERATED ALWAYS AS (upper(user_public_key)) STORED,
			ADD doubly json GENERATED ALWAYS AS (('"' || role || '"')::json) STORED`, `UPDATE conversation_members SET user_public_key = 'ä' || user_id`},
		"identity columns": {`ALTER TABLE conversation_members ADD seq bigint GENERATED ALWAYS AS IDENTITY,
			ADD other int GENERATED BY DEFAULT AS IDENTITY (MINVALUE -5)`, ""},
		"exotic types": {
			`CREATE TYPE pair AS (a int, b text);
			ALTER TABLE conversation_members ADD j json, ADD jb jsonb, ADD x xml, ADD pairs pair [], ADD cash money, ADD raw bytea, ADD f float8, ADD g float4,
			ADD i interval, ADD r tstzrange, ADD rr int4multirange, ADD p point, ADD poly polygon, ADD v tsvector, ADD q tsquery, ADD b bit varying,
			ADD n numeric, ADD c char(7), ADD ch "char", ADD net inet, ADD t timetz, ADD path jsonpath, ADD lsn pg_lsn, ADD xs xml [], ADD js json []`,
			`UPDATE conversation_members SET j = '{"a": "\u0000", "a":   1}', jb = '{"b": 1.00}', x = '<a>&lt;<b/></a>',
			pairs = ARRAY[(1, ' "')::pair, NULL, (NULL, '\')::pair], cash = 12.3::numeric::money, raw = '\x00ff5c27', f = 'NaN', g = '-0',
			i = '1 mon -1 day 00:00:00.000001', r = '[-infinity,)', rr = '{[1,2),[5,9)}', p = '(0.1,1e300)', poly = '((0,0),(1,1))',
			v = '''a b'':1A c', q = 'a & !b', b = '0101', n = '1.500', c = 'a', ch = 'x', net = '10.0.0.1/8', t = '12:00:00.1+05:30',
			path = '$."a"', lsn = '0/16B3748', xs = ARRAY['<a/>'::xml, NULL], js = ARRAY['"\u0000"'::json]`,
		},
		"odd names": {
			`ALTER TABLE conversation_members ADD "group" text, ADD "Mixed" text, ADD "with ""quotes"" and 'others'" text, ADD " " text, ADD "%1$s" text,
			ADD "@" json, ADD "$1" json, ADD "a;--b" text, ADD "ä世界😀" json, ADD "retired_" text, ADD "` + long + `" text, ADD "pg_catalog" json,
			ADD "public" json, ADD "conversation_members" json, ADD "conversation_members_backup" json`,
			`UPDATE conversation_members SET "group" = '1', "Mixed" = '2', " " = '3', "%1$s" = '4', "@" = '5', "$1" = '6', "` + long + `" = '7'`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newShaped(t, testdb.NewBare(t), c.shape)
			w.Exec(c.values)
			w.lives(t)
		})
	}
}

// A column may have any name, also each that occurs in our own SQL. Not parallel: rows of
// other tests would count as changed while a thousand columns are added.
func TestShapesWithOurNames(t *testing.T) {
	words := map[string]bool{}
	for _, pattern := range []string{"../../queries/*.sql", "../../sql/runbook/*.sql", "../../migrations/*.sql"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code := regexp.MustCompile(`--.*|COMMENT ON .*|(?m:'[^'\n]* [^'\n]*'[,;]?$)`).ReplaceAllString(string(text), "")
			for _, word := range regexp.MustCompile(`[a-z_][a-z0-9_]*`).FindAllString(code, -1) {
				words[word] = len(word) < 64
			}
		}
	}
	for _, name := range []string{
		"conversation_id", "user_id", "role", "joined_at", "last_read_at", "is_muted", "user_public_key", // are there
		"run_id", "backed_up_at", // are refused
		"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", // PostgreSQL's own
	} {
		delete(words, name)
	}
	if len(words) < 300 || !words["horizon"] || !words["m"] || !words["counted"] {
		t.Fatalf("%d names of ours", len(words))
	}
	// A table has 1,600 columns at most.
	for some := range slices.Chunk(slices.Sorted(maps.Keys(words)), 1000) {
		var columns, values []string
		for _, word := range some {
			columns = append(columns, `ADD "`+word+`" json`)
			values = append(values, `"`+word+`" = '1'`)
		}
		// Of a type that nothing of ours can take for something else.
		w := newShaped(t, testdb.NewBare(t), "ALTER TABLE conversation_members "+strings.Join(columns, ", "))
		w.Exec("UPDATE conversation_members SET " + strings.Join(values, ", "))
		w.lives(t)
	}
}

// Text that is no UTF8 comes back as it was.
func TestShapesInOtherEncodings(t *testing.T) {
	t.Parallel()
	for encoding, value := range map[string]string{"LATIN1": `'ÿé ' || user_id`, "SQL_ASCII": `convert_from('\xfffe80', 'SQL_ASCII') || user_id`} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			w := newShaped(t, testdb.NewEncoded(t, encoding), `ALTER TABLE conversation_members ADD naïve text`)
			w.Exec(`UPDATE conversation_members SET user_public_key = ` + value + `, naïve = ` + value)
			w.Settle()
			// As bytes: the driver reads no text that is not UTF8.
			const bytes = `(SELECT user_id, conversation_id, joined_at, convert_to(user_public_key || naïve, getdatabaseencoding()) FROM conversation_members) AS m`
			before := w.Snapshot(bytes)
			run := fmt.Sprint(program(t, w.env, "run", "--json").expect(t, exitDone).result(t)["run_id"])
			if restored := w.restore(t, "--run", run); restored["members_restored"] != float64(shapedDue) {
				t.Fatalf("%v", restored)
			}
			if diff := before.Diff(w.Snapshot(bytes)); diff != "" {
				t.Errorf("not as it was:\n%s", diff)
			}
		})
	}
}

// What messaging-service does to its table later: check and run say what is wrong and
// nothing is deleted; its own deletes pass.
func TestShapeChangesLater(t *testing.T) {
	t.Parallel()
	const both = `ALTER TABLE conversation_members %[1]s; ALTER TABLE conversation_members_backup %[1]s`
	for name, c := range map[string]struct{ change, says, hint string }{
		// Members of 29 days and 20 hours, eight hours older where UTC is taken for the time of Shanghai.
		"the zone is lost": {
			`SET timezone = 'UTC'; ` + fmt.Sprintf(both, "ALTER joined_at TYPE timestamp") + `;
			UPDATE conversation_members SET joined_at = (now() - interval '29 days 20 hours') AT TIME ZONE 'UTC'; SET timezone = 'Asia/Shanghai'`,
			"joined_at is timestamp without time zone", "AT TIME ZONE 'UTC', or the zone that messaging-service writes, such as 'Asia/Shanghai'",
		},
		"joined_at is lost":     {fmt.Sprintf(both, "DROP joined_at"), "joined_at is missing", "RENAME COLUMN another TO joined_at"},
		"activity is a number":  {fmt.Sprintf(both, "ALTER last_read_at TYPE bigint USING 1"), "last_read_at is bigint", "to_timestamp(last_read_at / 1000.0)"},
		"the key is lost":       {"ALTER TABLE conversation_members DROP CONSTRAINT conversation_members_pkey", "no unique key", "ADD PRIMARY KEY"},
		"a key is made lenient": {"ALTER TABLE conversation_members ADD rank int UNIQUE DEFERRABLE; ALTER TABLE conversation_members_backup ADD rank int", "is deferrable", "NOT DEFERRABLE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testdb.NewBare(t)
			w := newShaped(t, db, `ALTER DATABASE "`+db.Name+`" SET timezone = 'Asia/Shanghai'`)
			w.Exec(c.change)
			w.Settle()
			before := w.Snapshot("conversation_members")
			for _, f := range w.findings(t, exitFailed) {
				if f.Status == check.Fail && (f.Name != "shape" || !strings.Contains(f.Message, c.says) || !strings.Contains(f.Hint, c.hint)) {
					t.Errorf("check: %+v", f)
				}
			}
			result := program(t, w.env, "run", "--json").expect(t, exitFailed).result(t)
			if said, _ := result["error"].(string); !strings.Contains(said, c.says) || !strings.Contains(said, c.hint) || result["members_deleted"] != 0.0 {
				t.Errorf("the run: %v", result)
			}
			if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
				t.Errorf("a run deleted:\n%s", diff)
			}
			if warned := w.leave(t); warned != nil {
				t.Errorf("the application was warned: %v", warned)
			}
		})
	}
}

// A member without joined_at is young for ever, and every figure says so; so does each
// of a hold.
func TestShapeWithoutJoinedAt(t *testing.T) {
	t.Parallel()
	w := newShaped(t, testdb.NewBare(t), `ALTER TABLE conversation_members ALTER joined_at DROP NOT NULL`)
	nameless, held := w.dead[0], w.dead[1]
	w.Exec(`UPDATE conversation_members SET joined_at = NULL WHERE user_id = $1`, nameless)
	w.Exec(`UPDATE conversation_members SET joined_at = NULL WHERE (user_id, conversation_id) = (SELECT user_id, min(conversation_id::text)::uuid
		FROM conversation_members WHERE user_id = $1 GROUP BY 1)`, w.dead[2])
	program(t, w.env, "hold", "add", "--user", held.String(), "--reason", "test").expect(t, exitDone)
	w.Settle()
	figures := func(due, young float64) {
		t.Helper()
		if status := w.backlogDue(t); status != due {
			t.Errorf("status: %v due, want %v", status, due)
		}
		metrics, err := db.New(w.Pool).MetricsDue(t.Context(), 30*24*time.Hour)
		if err != nil || float64(metrics.DueMembers) != due {
			t.Errorf("metrics: %+v due, want %v (%v)", metrics, due, err)
		}
		if out := w.Psql("-At", "-f", "../../sql/runbook/due_now.sql"); !strings.Contains(out, fmt.Sprintf("all||||%v|2|%v\n", due, young)) {
			t.Errorf("due_now.sql: want %v due and %v young:\n%s", due, young, out)
		}
		dry := program(t, w.env, "run", "--dry-run", "--json").expect(t, exitDone).result(t)
		if dry["members_due"] != due || dry["members_kept_young"] != young {
			t.Errorf("dry run: %v due and %v young, want %v and %v", dry["members_due"], dry["members_kept_young"], due, young)
		}
	}
	figures(5, 3)
	before := w.Snapshot("conversation_members WHERE joined_at IS NULL OR user_id = $1", held)
	ran := program(t, w.env, "run", "--json").expect(t, exitDone).result(t)
	if ran["members_deleted"] != 5.0 || ran["members_kept_young"] != 3.0 || ran["members_held"] != 2.0 {
		t.Errorf("the run: %v", ran)
	}
	if diff := before.Diff(w.Snapshot("conversation_members WHERE user_id = ANY ($1)", w.dead)); diff != "" {
		t.Errorf("what should have stayed:\n%s", diff)
	}
	figures(0, 3)
}
