package printer

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/target"
)

// Update has the tests write what is printed.
var Update = flag.Bool("update", false, "write what is printed: internal/testdb/targets, and the functions of conversation_members in migrations")

// The migrations have of conversation_members what is printed: each function, with its comment, its audit and its triggers.
func TestMembersMigrationsArePrinted(t *testing.T) {
	t.Parallel()
	r, err := newRenderer()
	if err != nil {
		t.Fatal(err)
	}
	functions, err := r.functions(members())
	if err != nil {
		t.Fatal(err)
	}
	var pieces []string
	for _, name := range []string{"evidence", "evidence_refuse", "index_up", "trigger", "trigger_drop"} {
		text, err := r.render(name, members())
		if err != nil {
			t.Fatal(err)
		}
		pieces = append(pieces, text)
	}
	texts := map[string]string{}
	files, err := filepath.Glob("../../migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[file] = string(text)
	}
	for _, f := range functions {
		want := strings.Replace(f.Text, "CREATE OR REPLACE FUNCTION", "CREATE FUNCTION", 1)
		head, _, _ := strings.Cut(want, "(")
		var found bool
		for file, text := range texts {
			before, rest, is := strings.Cut(text, "\n"+head+"(")
			if !is {
				continue
			}
			found = true
			body, after, _ := strings.Cut(rest, "\n$$;\n")
			if shipped := head + "(" + body + "\n$$;\n"; shipped == want {
				continue
			}
			if texts[file] = before + "\n" + want + after; !*Update {
				t.Errorf("%s: %s is not what is printed: go test ./internal/printer -run %s -update", file, f.Name, t.Name())
			}
		}
		if !found {
			t.Errorf("no migration has what is printed:\n%s", want)
		}
		pieces = append(pieces, fmt.Sprintf("COMMENT ON FUNCTION orphan_cleaner.%s IS %s;\n", f.Name, literal(f.Comment)))
	}
	for _, piece := range pieces {
		if !slices.ContainsFunc(slices.Collect(maps.Values(texts)), func(text string) bool { return strings.Contains(text, "\n"+piece) }) {
			t.Errorf("no migration has what is printed:\n%s", piece)
		}
	}
	if *Update {
		for file, text := range texts {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// members is conversation_members.
func members() Model {
	id := func(name string) Column { return Column{Name: name, Ident: name, Type: "uuid"} }
	conversation, user := id("conversation_id"), id("user_id")
	return Model{
		Name: "conversation_members", Table: "public.conversation_members", Base: "conversation_members", Action: target.Delete, Shipped: true,
		Owner: "user_id", Aged: "joined_at", Active: "last_read_at", Key: []Column{conversation, user},
		Audited: []Column{conversation, user, {Name: "role", Ident: "role", Type: "text"}, {Name: "joined_at", Ident: "joined_at", Type: "timestamptz"}},
		Audit: []Column{
			{Name: "conversation_id", Ident: "conversation_id", Type: "uuid NOT NULL"},
			{Name: "user_id", Ident: "user_id", Type: "uuid NOT NULL"},
			{Name: "role", Ident: "role", Type: "text"},
			{Name: "joined_at", Ident: "joined_at", Type: "timestamptz"},
		},
		Counts: "{}", Counter: target.CounterShape{
			Table: "public.conversations", Key: []Column{id("id")}, Values: []Column{conversation},
			Column: Column{Name: "member_count", Ident: "member_count"},
		},
	}
}
