package faults

import (
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// row is one fault and how it is met: injected, seen, lifted.
type row struct {
	fault string
	meet  func(w *world)
}

// faults is the list of what can go wrong, by who goes wrong. Each has a row.
func faults() []struct {
	who   string
	names []string
} {
	return []struct {
		who   string
		names []string
	}{
		{"auth-service", []string{
			"nothing at all", "half", "in-band error without users", "in-band error with users",
			"an error that repeats the token", "a new field in the response", "users in another field",
			"ids nobody asked for", "only ids nobody asked for", "ids that do not parse", "upper-case ids", "duplicates", "NotFound", "Internal",
			"Unavailable", "Unauthenticated", "DeadlineExceeded", "a status that does not exist", "a response over the message limit", "answers slowly",
			"never answers", "its name does not resolve", "GOAWAY in mid-call", "NOT_SERVING", "no health service", "an expired certificate",
			"a wrong certificate", "another environment's users", "flapping between two truths", "loses a few per cent a day",
			"nothing at all, of 50 users",
		}},
		{"an SQL source", []string{
			"the table is truncated", "a view with a wrong filter", "flapping between two truths, SQL", "users nobody asked for",
			"NULL in place of an id", "a join that doubles the users", "another column of uuid", "an error in mid-result", "cut in mid-result",
			"the query never ends", "a right was revoked", "a policy hides users", "the table is locked", "no server", "no such host",
			"an expired certificate, SQL", "a wrong certificate, SQL", "another environment's database", "a standby that is behind", "behind PgBouncer, SQL",
		}},
		{"an HTTP source", []string{
			"nobody", "every second user", "flapping between two truths, HTTP", "an error beside the users", "a foreign id",
			"an id that does not parse", "ids in upper case", "each user twice", "404", "401", "500", "503", "slow", "silence", "a new field",
			"complete is false", "complete is missing", "users twice, none the second time", "something follows", "a redirect",
			"another content type", "over the size limit", "a body that ends early", "cut in mid-body", "an expired certificate, HTTP",
			"a wrong certificate, HTTP", "another environment's API",
		}},
		{"PostgreSQL", []string{
			"killed before COMMIT", "COMMIT never arrives", "COMMIT done, its answer lost", "restarted", "read-only standby",
			"deadlock with the application", "lock timeout", "statement timeout", "disk full",
			"today's backup partition missing", "backup columns drifted", "trigger dropped", "trigger disabled",
			"session_replication_role = replica", "a grant missing", "TRUNCATE", "behind PgBouncer",
			"PgBouncer restarted meanwhile", "no index on user_id", "crashed between two pages of the sweep",
			"failed over, the run's id used again", "the network goes black while staging", "staging locked",
			"synchronous_commit = off", "statement_timeout of the role", "default_transaction_read_only",
			"a trigger raises for one user's rows", "a trigger swallows one user's rows", "a rule keeps one user's rows",
			"row-level security hides half", "a foreign key keeps one user's rows",
			"impossible dates in the shadow table", "ESC and CR in what it holds",
		}},
		{"between check and delete", []string{
			"the user is restored", "the member rejoins", "the row changes", "the conversation is deleted", "a hold is placed", "a pause",
			"the rows move",
		}},
		{"the runner", []string{
			"kill -9 at every step", "kill -9 at random moments", "an error at every step", "SIGTERM", "paused past its lease", "frozen inside a chunk",
			"its login stolen", "the stack nearly exhausted", "two started at once", "started every minute", "clock forward 31 days", "clock back 2 days",
			"memory limit", "stdout closed", ":9091 taken", "Pushgateway down",
		}},
		{"five targets", []string{
			"a dry run over five targets", "one target over its limit", "a hold on rows of five targets",
			"a key that cascades into a target", "kill -9 between two targets",
			"overtaken before five targets",
			"half of five targets' users", "everybody alive the second time", "few users a day with most likes",
		}},
		{"the application", []string{
			"a malformed setting of ours", "500 deletes in one transaction", "a delete that finds nothing", "the audit is locked",
		}},
		{"a fleet", []string{
			"a lie below every shard's floor", "a shard away at the first pass", "a shard away at its sweep", "one database under two names",
			"a shard is paused", "an approval used again", "an approval of other databases", "another fleet's control database",
			"the control database killed", "its clock set back in mid-wave", "it is restored from a backup",
			"a worker killed in its sweep", "two workers on one shard",
		}},
		{"an event sink", []string{
			"Redis is gone", "killed before its cursor moves", "failed over after it had told",
		}},
		{"restore", []string{
			"the member is back, other role", "its conversation is gone", "half was restored before", "the same restore twice",
			"the table has a new column", "nobody exists to a revert", "pruned 95 days ahead",
			"its user is erased meanwhile",
		}},
	}
}

func rows() map[string][]row {
	return map[string][]row{
		"auth-service":             authRows(),
		"an SQL source":            sqlRows(),
		"an HTTP source":           httpRows(),
		"PostgreSQL":               postgresRows(),
		"between check and delete": betweenRows(),
		"the runner":               runnerRows(),
		"five targets":             targetRows(),
		"the application":          applicationRows(),
		"a fleet":                  fleetRows(),
		"an event sink":            eventRows(),
		"restore":                  restoreRows(),
	}
}

// TestFaults is the matrix.
func TestFaults(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the rows read from /proc what became of the program")
	}
	program := build(t, "-tags=failpoint")
	seen := &matrix{notes: map[string]note{}}
	t.Cleanup(func() { seen.print(t) })
	for who, rows := range rows() {
		for _, row := range rows {
			t.Run(who+"/"+row.fault, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, program)
				defer func() {
					w.note.failed, w.note.skipped = t.Failed(), t.Skipped()
					seen.add(who+"/"+row.fault, w.note)
				}()
				row.meet(w)
			})
		}
	}
}

// The list and the rows are the same, name by name.
func TestEveryFaultHasARow(t *testing.T) {
	rows := rows()
	for _, list := range faults() {
		var names []string
		for _, row := range rows[list.who] {
			names = append(names, row.fault)
		}
		for _, name := range list.names {
			if n := len(slices.DeleteFunc(slices.Clone(names), func(other string) bool { return other != name })); n != 1 {
				t.Errorf("%s, %q: %d rows, want 1", list.who, name, n)
			}
		}
		if len(names) != len(list.names) {
			t.Errorf("%s: %d faults, %d rows", list.who, len(list.names), len(names))
		}
		delete(rows, list.who)
	}
	if len(rows) > 0 {
		t.Errorf("rows of nobody in the list: %v", slices.Collect(maps.Keys(rows)))
	}
}

// The page that shows the matrix leaves no fault out.
func TestEveryFaultIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(page), "\n")
	for _, list := range faults() {
		for _, name := range append(list.names, strings.ToUpper(list.who)) {
			if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(strings.TrimSpace(line)+" ", name+" ") }) {
				t.Errorf("docs/faults.md does not show %q; make faults prints the table", name)
			}
		}
	}
}

// invariants is how many there are.
const invariants = 10

// matrix collects what the rows saw.
type matrix struct {
	mu    sync.Mutex
	notes map[string]note
}

func (m *matrix) add(name string, n note) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes[name] = n
}

// print writes the matrix to the file that ORPHAN_CLEANER_TEST_FAULT_MATRIX names, or
// to the log of the test. Rows that were not run are left out.
func (m *matrix) print(t *testing.T) {
	t.Helper()
	out := table.NewWriter()
	out.SetStyle(table.StyleLight)
	out.Style().Options.DrawBorder = false
	out.Style().Options.SeparateColumns = false
	out.Style().Format.Header = text.FormatDefault
	out.SetColumnConfigs([]table.ColumnConfig{{Number: 5, WidthMax: 32, WidthMaxEnforcer: text.WrapSoft}})
	out.AppendHeader(table.Row{"fault", "held: I", "exit", "state", "how it shows"})
	for _, list := range faults() {
		out.AppendSeparator()
		out.AppendRow(table.Row{strings.ToUpper(list.who)})
		for _, name := range list.names {
			n, ran := m.notes[list.who+"/"+name]
			if !ran {
				continue
			}
			held := ""
			for i := 1; i <= invariants; i++ {
				number := strconv.Itoa(i)
				if !n.held["I"+number] {
					number = "·"
				}
				held += number
			}
			switch {
			case n.failed:
				held = "FAILED"
			case n.skipped:
				held = "skipped"
			}
			out.AppendRow(table.Row{"  " + name, held, n.exit, n.state, n.shows})
		}
	}
	file := os.Getenv("ORPHAN_CLEANER_TEST_FAULT_MATRIX")
	if file == "" {
		t.Log("\n" + out.Render())
		return
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte(out.Render()+"\n"), 0o644); err != nil {
		t.Error(err)
	}
}
