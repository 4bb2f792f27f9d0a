package target

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func TestParseExpression(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"deleted_at IS NULL", "now()", "NULL", "true", "0", "''", "'it''s'", `"order" = 'paid'`, `"select"`, "status <> 'deleted'",
		"user_id IS NOT NULL AND (body IS DISTINCT FROM '[deleted]')", "'deleted-' || md5(id::text)", "tags[1]", "ARRAY['a', 'b']::text[]",
		"price::numeric(10, 2)", "data->>'name'", "created_at < now() - interval '30 days'", "state IN ('a', 'b')", "public.posts.state = 'live'",
		"CASE WHEN (a) THEN (b) ELSE 'ö' END", "coalesce (a, b)", "'00'::public.state",
	} {
		if got, err := ParseExpression(" " + good + " "); err != nil || string(got) != good {
			t.Errorf("%s: %q, %v", good, got, err)
		}
	}
	for bad, says := range map[string]string{
		"": "bytes", " ": "bytes", strings.Repeat("a", 1001): "bytes", "a\nb": "one line", "a\x00": "one line", "'\u202e'": "one line",
		"1; DROP TABLE x": "has no ;", "';'": "has no ;", `'\'`: `has no \`, "$$a$$": "has no $", "$1": "has no $", "a -- b": "has no --", "a /* b */": "has no /*",
		"'": "unclosed", `"a`: "unclosed", "'a": "unclosed", `""`: "unclosed", "a{": "not allowed", "ö": "not allowed", "a:b": "not allowed", "a\u00a0b": "not allowed",
		"E'a'": "escapes", "U&'a'": "not allowed", "x'1f'": "escapes", "n'a'": "escapes",
		"(SELECT 1)": "more than an expression", "exists(Select)": "more than", "ARRAY(TABLE x)": "calls ARRAY", "(VALUES (1))": "more than", "1 INTO x": "more than", "a OPERATOR(public.+) b": "more than",
		"count(*) OVER ()": "calls count", "query_to_xml('x')": "calls query_to_xml", "public.now()": "calls now", `"now"()`: `calls "now"`, "pg_catalog . now ()": "calls now", "setval ('a', 1)": "calls setval",
		"a, b": "list", "posts.*": "after a dot", "(posts).*": "after a dot", "a)": "closes nothing", "(a": ") is missing", "(a]": "closes nothing", "1) FROM x WHERE (true": "closes nothing", "true) OR (true": "closes nothing",
	} {
		if got, err := ParseExpression(bad); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %q, %v; want %q", bad, got, err, says)
		}
	}
}

// parsing says what PostgreSQL makes of an expression in a statement of a different
// shape each: whether it is a syntax error, and an error where it is more than an
// expression. Nothing is changed: it is READ ONLY and is rolled back.
func parsing(t *testing.T, conn *pgconn.PgConn, expression string) (isSyntax bool, err error) {
	t.Helper()
	var verdicts []bool
	for _, c := range []struct{ before, after, columns string }{
		{"SELECT (", ")", "one"},
		{"SELECT (", ") AS c FROM public.things LIMIT 0", "c"},
		{"SELECT 1 AS a, 2 AS b FROM public.things WHERE 3 = 4 AND (", ") IS NULL LIMIT 0", "a b"},
		{"SELECT f.c, 5 AS d FROM public.things, LATERAL (SELECT (", ") AS c) AS f LIMIT 0", "c d"},
		{"EXPLAIN (FORMAT text) SELECT (", ") AS c FROM public.things", "QUERY PLAN"},
	} {
		results, err := conn.Exec(t.Context(), "BEGIN READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp").ReadAll()
		if err != nil || len(results) != 2 {
			t.Fatal(err)
		}
		reader, statements, plan := conn.Exec(t.Context(), c.before+expression+c.after), 0, ""
		var columns []string
		for reader.NextResult() {
			statements++
			for _, f := range reader.ResultReader().FieldDescriptions() {
				columns = append(columns, f.Name)
			}
			for reader.ResultReader().NextRow() {
				plan += string(reader.ResultReader().Values()[0])
			}
		}
		err = reader.Close()
		if _, rolledBack := conn.Exec(t.Context(), "ROLLBACK").ReadAll(); rolledBack != nil {
			t.Fatal(rolledBack)
		}
		said, _ := errors.AsType[*pgconn.PgError](err)
		if said == nil && err != nil {
			t.Fatal(err)
		}
		verdicts = append(verdicts, said != nil && said.Code == "42601")
		if got := strings.Join(columns, " "); said == nil && (statements != 1 || got != c.columns && (c.columns != "one" || len(columns) != 1)) {
			return false, fmt.Errorf("%d statements with columns %q", statements, columns)
		}
		if strings.HasPrefix(c.before, "EXPLAIN") && (strings.Contains(plan, "SubPlan") || strings.Contains(plan, "InitPlan")) {
			return false, fmt.Errorf("a subquery: %s", plan)
		}
	}
	for _, v := range verdicts {
		if v != verdicts[0] {
			return false, fmt.Errorf("syntax errors in some statements only: %v", verdicts)
		}
	}
	return verdicts[0], nil
}

func expressionServer(t *testing.T) *pgconn.PgConn {
	t.Helper()
	db := testdb.NewEmpty(t)
	db.Exec(`CREATE TABLE public.things (id uuid, a text, b integer, "order" text, d timestamptz, tags text [], j jsonb)`)
	conn, err := pgconn.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(t.Context()); err != nil {
			t.Log(err)
		}
	})
	return conn
}

// The judge of the property below sees injections that are handed to PostgreSQL as they are.
func TestParsingSeesInjections(t *testing.T) {
	t.Parallel()
	conn := expressionServer(t)
	for _, injection := range []string{
		"1) AS c FROM public.things; SELECT (2", "1) AS c, (2", "1) FROM pg_class WHERE (true", "(SELECT 1)", "EXISTS (SELECT FROM pg_class)", "1) AS c --",
		"things.*", "1) AS c FROM public.things UNION ALL SELECT (1", "$$1$$) AS c, (2",
	} {
		if _, err := parsing(t, conn, injection); err == nil {
			t.Errorf("%s: passes for an expression", injection)
		} else if got, err := ParseExpression(injection); err == nil {
			t.Errorf("%s is let through: %q", injection, got)
		}
	}
	for _, plain := range []string{"a IS NULL", "now()", "'x' || a", "(b + 1) * 2", "nonsense", "a b c"} {
		if _, err := parsing(t, conn, plain); err != nil {
			t.Errorf("%s: %v", plain, err)
		}
	}
}

// Whatever passes is one expression to PostgreSQL, or a syntax error wherever it stands.
func TestExpressionIsOneExpression(t *testing.T) {
	t.Parallel()
	conn := expressionServer(t)
	hostile := rapid.SampledFrom([]string{
		"(", ")", "[", "]", ",", "'", "''", `"`, ";", "--", "/*", "*/", "\\", "$", "$$", "$a$", "E", "U&", "B", "N", ".", ".*", "::", ":", " ", "\n", "\t", "\x00", "\u00a0", "ö", "\u202e",
		"SELECT", "(SELECT 1)", "TABLE public.things", "VALUES (1)", "WITH", "FROM", "UNION", "INTO", "AS c", "OVER ()", "FILTER", "COLLATE \"C\"", "ORDER BY", "GROUP BY", "FOR UPDATE", "LIMIT 1", "DEFAULT",
		"EXISTS", "ARRAY", "ANY", "ROW", "count(*)", "query_to_xml('SELECT 1', true, true, '')", "pg_catalog.", "OPERATOR(pg_catalog.+)", "AT TIME ZONE", "IS DISTINCT FROM", "UESCAPE '!'", "1e5", "0x1F", "1_0", "1a", ".5",
		") FROM public.things WHERE (true", ") AS c, (2", "; SELECT (2", "' || '", "''''", "WITHIN GROUP", "VARIADIC", "=>", "CURRENT_USER", "CASE", "WHEN", "END", "OVERLAPS", "SIMILAR TO", "BETWEEN",
	})
	leaf := rapid.SampledFrom([]string{
		"a", "b", "d", "id", `"order"`, "tags", "j", "things.a", "things", "(things)", "1", "1.5", "''", "'a'", "'it''s'", "NULL", "true", "now()", "interval '1 day'", "tags[1]", "'(ö'", "')'", "CURRENT_TIMESTAMP", "id::text",
	})
	var expression func(depth int) *rapid.Generator[string]
	expression = func(depth int) *rapid.Generator[string] {
		if depth == 0 {
			return leaf
		}
		sub := expression(depth - 1)
		return rapid.Custom(func(t *rapid.T) string {
			one, two := sub.Draw(t, "one"), sub.Draw(t, "two")
			switch rapid.IntRange(0, 9).Draw(t, "shape") {
			case 0:
				return "(" + one + ")"
			case 1:
				return one + rapid.SampledFrom([]string{" = ", " <> ", " || ", " AND ", " + ", " -", "->>", "~", " IS NULL OR ", " IS DISTINCT FROM ", " IN ", "::", " "}).Draw(t, "operator") + two
			case 2:
				return rapid.SampledFrom(callable).Draw(t, "function") + "(" + one + ", " + two + ")"
			case 3:
				return "CASE WHEN " + one + " THEN " + two + " END"
			case 4:
				at := rapid.IntRange(0, len(one)).Draw(t, "at")
				return one[:at] + hostile.Draw(t, "hostile") + one[at:]
			case 5:
				return one + hostile.Draw(t, "hostile")
			case 6:
				return hostile.Draw(t, "hostile")
			default:
				return one
			}
		})
	}
	passed, sound := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		for _, text := range rapid.SliceOfN(expression(3), 30, 30).Draw(rt, "expressions") {
			e, err := ParseExpression(text)
			if err != nil {
				continue
			}
			passed++
			isSyntax, err := parsing(t, conn, string(e))
			if err != nil {
				rt.Fatalf("%q is let through: %v", e, err)
			}
			if !isSyntax {
				sound++
			}
		}
	})
	if passed < 500 || sound < 300 {
		t.Errorf("%d passed, %d of them sound: the property was hardly tried", passed, sound)
	}
	t.Logf("%d passed, %d of them no syntax error", passed, sound)
}

func FuzzExpression(f *testing.F) {
	for _, seed := range []string{"now()", "a IS NULL", "'a'", `"a"`, "(a, b)", "1) FROM x WHERE (true"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseExpression(text)
		if err != nil {
			return
		}
		if strings.ContainsAny(string(e), ";\\$\n\r\x00") || strings.Contains(string(e), "--") || strings.Contains(string(e), "/*") {
			t.Errorf("%q is let through", e)
		}
		if again, err := ParseExpression(string(e)); err != nil || again != e {
			t.Errorf("%q becomes %q, %v", e, again, err)
		}
	})
}
