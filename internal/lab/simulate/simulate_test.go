package simulate

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// TestBreakers plays short histories. Each breaker has one that it refuses first,
// on the day and at the cost that are documented: take it out and its history fails.
func TestBreakers(t *testing.T) {
	const rows, warm = 2000, 40
	small := func(h History) History {
		h.Rows, h.Warm, h.Days = rows, warm, min(h.Days, 45)
		return h
	}
	fading := small(loss("", 0.9, perWeek, func(h *History) { h.Readers, h.Days = false, 45 }))
	tests := []struct {
		name    string
		history History
		breaker string // "": never refused
		by      int    // day on which it is refused at the latest
		cost    int64  // rows of living users, at most
	}{
		{"everybody is lost", small(History{Every: 24, Deaths: 0.0005, Days: 10, Day: once(1, nil)}), "canary-alive", 0, 0},
		{"one in seven is lost", small(History{Every: 24, Deaths: 0.0005, Days: 10, Day: once(0.14, nil)}), "new-missing-share", 0, 0},
		{"one in a hundred a day", small(loss("", 1, perDay, nil)), "new-missing-rate", 1, 0},
		{"one in fifty a week, nobody reads", small(loss("", 2, perWeek, func(h *History) { h.Readers = false })), "new-missing-rate", 10, 0},
		{"readers among the lost", small(loss("", 0, perWeek, func(h *History) { h.Begin, h.Step = nobodyDies, dripReaders })), "recently-active", 29, 0},
		{"a ledger filled by hand", small(History{Every: 24, Deaths: 0.0005, Days: 5, Day: byHand(0.2, 100)}), "candidate-share", 0, 0},
		{"a tenth of the ledger is due", small(History{Every: 24, Deaths: 0.0005, Days: 5, Day: byHand(0.1, 100)}), "delete-share", 0, 0},
		{"a ledger filled by hand, day by day", small(History{Every: 24, Deaths: 0.0005, Days: 45, Day: byHand(0.009, 1)}), "delete-share-7d", 7, rows * 20 / 100},
		{"as slow as ordinary deletions", fading, "", 0, rows * 5 / 100},
		{"honest", small(History{Every: 24, Deaths: 0.003, Days: 40, Readers: true, Honest: true}), "", 0, 0},
		{"honest, with a down runner", small(History{Every: 24, Deaths: 0.001, Days: 20, Readers: true, Honest: true, Day: down(6)}), "", 0, 0},
	}
	var histories []History
	for _, test := range tests {
		test.history.Name = test.name
		histories = append(histories, test.history)
	}
	outcomes, err := Run(context.Background(), Options{Histories: histories, Parallel: 2, Limits: settings.DefaultLimits(), Results: &Results{}, Say: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	for i, test := range tests {
		o := outcomes[i]
		switch {
		case o.WarmRefused > 0:
			t.Errorf("%s: %d of the honest days before were refused", test.name, o.WarmRefused)
		case o.Breaker != test.breaker || o.RefusedDay > test.by:
			t.Errorf("%s: want refused by %q on day %d at the latest, got: %s", test.name, test.breaker, test.by, o)
		case o.LivingDeleted > test.cost:
			t.Errorf("%s: want at most %d rows of living users deleted, got: %s", test.name, test.cost, o)
		}
	}
	if o := outcomes[len(outcomes)-2]; o.OrphansDeleted == 0 {
		t.Errorf("no orphan was deleted in an honest history: %s", o)
	}
}

// A thief who has the runner's login and is auth-service as well gets nothing for a month,
// and then no more than the limits of a week and a month let go.
func TestStolenLogin(t *testing.T) {
	h := History{Name: "a thief", Rows: 5000, Every: 24, Deaths: 0.0005, Readers: true, Stolen: true, Warm: 20}
	month, longer := h, h
	month.Days, longer.Days = 30, 50
	outcomes, err := Run(t.Context(), Options{Histories: []History{month, longer}, Parallel: 1, Limits: settings.DefaultLimits(), Results: &Results{}, Say: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if o := outcomes[0]; o.LivingDeleted != 0 {
		t.Errorf("within the retention: %s", o)
	}
	if o := outcomes[1]; o.LivingDeleted == 0 || o.Cost() > 15 {
		t.Errorf("within a month of its end: %s", o)
	}
}

func nobodyDies(_ context.Context, p *play) error {
	p.Deaths, p.Joins = 0, 0
	return nil
}

// dripReaders loses users who read daily, three in ten days.
func dripReaders(p *play, _ float64) {
	p.drip(0.3, func(id uuid.UUID) bool { return p.reads[id] == 24 })
}

// What was played is not played again: nor is a half-written line taken for a history.
func TestResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	played := Outcome{History: History{Group: "losses", Name: "4 % a day", Rows: 200}, RefusedDay: 2, Breaker: "canary-alive", LivingDeleted: 12}
	results, err := OpenResults(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := results.add(played); err != nil {
		t.Fatal(err)
	}
	outcomes, err := Run(t.Context(), Options{Histories: []History{played.History}, Limits: settings.DefaultLimits(), Results: reopened(t, path), Say: t.Logf})
	if err != nil || len(outcomes) != 1 || outcomes[0].LivingDeleted != 12 || outcomes[0].Breaker != "canary-alive" {
		t.Errorf("%v, %v", outcomes, err)
	}
	larger := played.History
	larger.Rows = 2000
	if o, isKnown := reopened(t, path).of(larger); isKnown {
		t.Errorf("a table of another size: %v", o)
	}
	if err := os.WriteFile(path, []byte(`{"Group": "los`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenResults(path); err == nil {
		t.Error("half a line was read")
	}
}

func reopened(t *testing.T, path string) *Results {
	t.Helper()
	results, err := OpenResults(path)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// The tables stand between the marks of a document, also the second time.
func TestWriteMarkdown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	outcomes := []Outcome{
		{History: History{Group: honestGroup, Name: "a year", Rows: 20_000}, RefusedDay: -1},
		{History: History{Group: "losses", Name: "4 % a day", Rows: 200}, RefusedDay: 2, Breaker: "canary-alive", LivingDeleted: 1234, RowsBefore: 2000},
	}
	if err := WriteMarkdown(path, outcomes); err == nil {
		t.Error("a document that is not there was written to")
	}
	if err := os.WriteFile(path, []byte("before\n"+markBegin+"\nold\n"+markEnd+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := WriteMarkdown(path, outcomes); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before\n" + markBegin, markEnd + "\nafter\n", "| a year | 20,000 |", "| 3 | canary-alive | 1,234 | 61.70 % |"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the document has no %q:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") {
		t.Error("the old tables are still there")
	}
}
