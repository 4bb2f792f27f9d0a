package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
)

// hostile sets a title, returns to the start of the line, turns text around and
// makes a line that looks like one of ours.
const hostile = "a\x1b]0;owned\a\rb\u202ec\u009b2J\x7f\U000e0041\xff\nrun 7: succeeded"

// graphic fails the test unless text has this many lines and nothing that a
// terminal acts upon.
func graphic(t *testing.T, text string, lines int) {
	t.Helper()
	if at := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) }); at >= 0 {
		t.Errorf("at %d of %q", at, text)
	}
	if n := strings.Count(strings.TrimSuffix(text, "\n"), "\n") + 1; n != lines || !strings.Contains(text, "owned") {
		t.Errorf("%d lines, want %d: %s", n, lines, text)
	}
}

func TestOneLineOfHostileText(t *testing.T) {
	graphic(t, oneLine(errors.New(hostile)), 1)
	if text := oneLine(errors.New("dial postgres://u:hunter2@db/x: refused")); strings.Contains(text, "hunter2") {
		t.Error(text)
	}
	if text := oneLine(errors.New(strings.Repeat("x ", 1<<20))); len(text) > maxShown {
		t.Errorf("%d bytes", len(text))
	}
}

func TestTableOfHostileText(t *testing.T) {
	type state string
	var out strings.Builder
	rows := newTable("Holds "+hostile, "hold", "reason")
	rows.AppendRow(table.Row{1, hostile})
	rows.AppendRows([]table.Row{{2, state(hostile)}, {3, "fine"}})
	rows.AppendFooter(table.Row{"all", hostile})
	if err := printTable(&out, rows); err != nil {
		t.Fatal(err)
	}
	graphic(t, out.String(), 8) // title, header, line, three rows, line, footer
	if !strings.Contains(out.String(), "\n    3  fine") {
		t.Errorf("numbers are not to the right:\n%s", &out)
	}
}

func TestJSONOfHostileText(t *testing.T) {
	want := map[string]any{"text": strings.ToValidUTF8(hostile, "\ufffd"), "n": 7.0}
	var lines, line strings.Builder
	if err := errors.Join(printJSON(&lines, want), printJSONLine(&line, want)); err != nil {
		t.Fatal(err)
	}
	graphic(t, lines.String(), 4)
	graphic(t, line.String(), 1)
	for _, text := range []string{lines.String(), line.String()} {
		var got map[string]any
		if err := json.Unmarshal([]byte(text), &got); err != nil || got["text"] != want["text"] || got["n"] != 7.0 {
			t.Errorf("%v: %s became %q", err, text, got)
		}
	}
}
