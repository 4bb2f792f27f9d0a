package target

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// whole has every field, each where the tests below replace it.
const whole = `# yaml-language-server: $schema=targets.schema.json
targets:
  - name: posts
    table: content.posts
    user: author_id
    key: [id]
    age: created_at
    where: deleted_at IS NULL
    action: update
    set: {deleted_at: now(), body: NULL, author: "'deleted user'"}
    after: [likes]
    retention: 90d
    limits: {delete-share: 0.02, delete-rows: 100}
    activity: edited_at
    backup: {columns: [title], window: 180d}
  - name: likes
    table: content.likes
    user: user_id
    key: [post_id, user_id]
    age: none
    action: delete
    after:
      - conversation_members
    counter: {table: content.posts, key: {id: post_id, part: user_id}, column: likes}
ignore:
  - {column: content.posts.moderated_by, reason: staff ids}
`

func TestLoad(t *testing.T) {
	t.Parallel()
	f := loaded(t, whole)
	likes, posts := f.Targets[0], f.Targets[1] // in the order of the sweep
	likes.place, posts.place = place{}, place{}
	if want := (Target{
		Name: "likes", Table: Table{"content", "likes"}, User: "user_id", Key: []string{"post_id", "user_id"}, Action: Delete, After: []string{"conversation_members"},
		Counter: &Counter{Table{"content", "posts"}, []Pair{{"id", "post_id"}, {"part", "user_id"}}, "likes"},
	}); !reflect.DeepEqual(likes, want) {
		t.Errorf("%+v", likes)
	}
	if want := (Target{
		Name: "posts", Table: Table{"content", "posts"}, User: "author_id", Key: []string{"id"}, Age: "created_at", Action: Update,
		Set:   []Assignment{{"deleted_at", "now()"}, {"body", "NULL"}, {"author", "'deleted user'"}},
		Where: "deleted_at IS NULL", After: []string{"likes"}, Retention: 90 * 24 * time.Hour, Activity: "edited_at",
		Limits: settings.Limits{"delete-share": 0.02, "delete-rows": 100},
		Backup: Backup{[]string{"title"}, 180 * 24 * time.Hour},
	}); !reflect.DeepEqual(posts, want) {
		t.Errorf("%+v", posts)
	}
	if i := f.Ignored[0]; i.Table != (Table{"content", "posts"}) || i.Column != "moderated_by" || i.Reason != "staff ids" {
		t.Errorf("%+v", i)
	}
	if f := loaded(t, "ignore: []"); len(f.Targets)+len(f.Ignored) > 0 {
		t.Errorf("%+v", f)
	}
}

// broken replaces one line or word of whole; the error stands at a place and says something.
// What an editor cannot see, because it compares places of the file, is Go's alone to refuse.
var broken = []struct {
	old, new, at, says string
	goAlone            bool
}{
	{"name: posts", "naem: posts", "3:5", "did you mean name?", false},
	{"name: posts", "name: Posts", "3:11", "is no name of a target", false},
	{"name: posts", `name: "a; DROP TABLE x"`, "3:11", "is no name of a target", false},
	{"name: posts", "name: [posts]", "3:11", "must be one value", false},
	{"name: posts", "name: likes", "16:11", "there is a target likes already", true},
	{"name: posts", "name: conversation_members", "3:11", "there is a target conversation_members already", true},
	{"  - name: posts\n    table", "  - table", "3:5", `has no "name"`, false},
	{"table: content.posts", "table: posts", "4:12", "no schema and table, such as", false},
	{"table: content.posts", "table: a.b.c", "4:12", "no schema and table, such as", false},
	{"table: content.posts", `table: 'content."posts"'`, "4:12", "without quotes", false},
	{"table: content.posts\n    user: author_id", "table: content.likes\n    user: user_id", "18:11", "a column has one target", true},
	{"table: content.posts\n    user: author_id", "table: public.conversation_members\n    user: user_id", "5:11", "target conversation_members already", true},
	{"table: content.likes\n    user: user_id", "table: public.conversation_members\n    user: invited_by", "21:13", "members whose own users may live", true},
	{"user: author_id", `user: "user id"`, "5:11", "no plain name of a column", false},
	{"user: author_id", "user: $1", "5:11", "no plain name of a column", false},
	{"user: author_id", "user: " + strings.Repeat("a", 64), "5:11", "no plain name of a column", false},
	{"key: [id]", "key: id", "6:10", "key must be a list", false},
	{"key: [id]", "key: []", "6:10", "key is empty", false},
	{"key: [id]", "key: [id, id]", "6:15", "there twice", false},
	{"    age: created_at\n", "", "3:5", `has no "age"`, false},
	{"where: deleted_at IS NULL", "where: (SELECT true)", "8:12", "more than an expression", true},
	{"where: deleted_at IS NULL", "where: true; DROP TABLE x", "8:12", "has no ;", false},
	{"where: deleted_at IS NULL", "where: true -- all", "8:12", "has no --", false},
	{"where: deleted_at IS NULL", "where: |-\n      a\n      b", "8:12", "write it on one line", false},
	{"where: deleted_at IS NULL", "where:", "8:11", "1 to 1000 bytes", true},
	{"    where: deleted_at IS NULL\n", "", "8:13", "needs where", false},
	{"action: update", "action: purge", "9:13", "delete or update", false},
	{"action: update", "action: delete", "10:10", "a delete sets nothing", false},
	{"set: {deleted_at: now(), body: NULL", "set: {deleted_at: lo_import('x'), body: NULL", "10:23", "calls lo_import", true},
	{"set: {deleted_at: now(), body: NULL", "set: {id: now(), body: NULL", "10:15", "is of the key", true},
	{"set: {deleted_at: now(), body: NULL", "set: {'a = 1, b': now(), body: NULL", "10:11", "no plain name", false},
	{"set: {deleted_at: now(), body: NULL", "set: {deleted_at: now(), deleted_at: NULL", "10:30", "there twice", true},
	{"after: [likes]", "after: [like]", "11:13", "no target like", true},
	{"after:\n      - conversation_members", "after:\n      - posts", "11:12", "cycle", true},
	{"retention: 90d", "retention: 90", "12:16", "is not a duration", false},
	{"retention: 90d", "retention: -1d", "12:16", "is not a duration", false},
	{"delete-share: 0.02", "delete-shares: 0.02", "13:14", "did you mean delete-share?", false},
	{"delete-share: 0.02", "candidate-share: 0.02", "13:14", "no limit of a target", false},
	{"delete-share: 0.02", "delete-share: 2", "13:28", "0 to 1", false},
	{"delete-share: 0.02", "delete-share: a lot", "13:28", "it is a number, as 0.05 for 5 %", false},
	{"delete-share: 0.02", "delete-share: 5%", "13:28", "it is a number, as 0.05 for 5 %", false},
	{"delete-rows: 100", "delete-rows: -1", "13:47", "0 or more", false},
	{"window: 180d", "window: 1h", "15:13", "under one day", true},
	{"window: 180d", "windows: 1d", "15:32", "did you mean window?", false},
	{"action: delete", "action: delete\n    backup: {columns: [a]}", "22:13", "whole rows", false},
	{"action: delete", "action: delete\n    owners: keep", "22:13", "for conversations alone", false},
	{"counter: {table: content.posts, key: {id: post_id, part: user_id}, column: likes}", "counter: likes", "24:14", "counter must be a mapping", false},
	{"key: {id: post_id, part: user_id}, ", "", "24:14", `a counter has no "key"`, false},
	{"table: content.posts, key: {id", "table: posts, key: {id", "24:22", "no schema and table, such as", false},
	{"{id: post_id, part: user_id}", "{}", "24:42", "key is empty", false},
	{"{id: post_id, part: user_id}", "[id]", "24:42", "key must be a mapping", false},
	{"part: user_id}", "'a b': user_id}", "24:56", "no plain name of a column", false},
	{"part: user_id}", "part: user.id}", "24:62", "no plain name of a column", false},
	{"part: user_id}", "id: user_id}", "24:56", "there twice", true},
	{"part: user_id}, column: likes", "part: user_id}, column: part", "24:80", "part is of the key", true},
	{"column: likes", "column: '; DROP TABLE x'", "24:80", "no plain name of a column", false},
	{"column: likes", "colum: likes", "24:72", "did you mean column?", false},
	{"age: none", "age: &none none", "20:10", "", true},
	{"age: none", "age: *none", "20:10", "unknown anchor", true},
	{"moderated_by", "posts.moderated_by", "26:14", "no schema, table and column", false},
	{"content.posts.moderated_by", "content.posts.author_id", "26:14", "remove one", true},
	{"reason: staff ids", "reason: ''", "26:50", "a reason is", false},
	{"reason: staff ids", `reason: "a\nb"`, "26:50", "a reason is", true},
	{", reason: staff ids", "", "26:5", `has no "reason"`, false},
	{"ignore:", "ignored:", "25:1", "did you mean ignore?", false},
	{"ignore:", "targets:", "25:1", "there twice", true},
	{"ignore:\n", "ignore:\n  - {column: content.posts.moderated_by, reason: once}\n", "27:14", "content.posts.moderated_by is ignored already: remove one", true},
	{"after: [likes]", "after: [likes", "12:14", "correct the YAML", true},
	{"after: [likes]", "after: [\x07]", "11:13", "UTF-8 text", true},
	{"after: [likes]", "after: [\xff]", "11:13", "UTF-8 text", true},
	{"targets:\n", "--- {}\n---\ntargets:\n", "1:1", "one YAML document", true},
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range broken {
		text := strings.Replace(whole, c.old, c.new, 1)
		if text == whole {
			t.Fatalf("%q is not in the file", c.old)
		}
		_, err := file(t, text)
		if c.says == "" && err == nil {
			continue
		}
		of, is := errors.AsType[*Error](err)
		if !is || !strings.Contains(err.Error(), "/targets.yaml:"+c.at+": ") || !strings.Contains(of.Message, c.says) {
			t.Errorf("%q for %q: %v; want :%s: … %s", c.new, c.old, err, c.at, c.says)
		}
	}
	for _, text := range []string{"", "# nothing\n", "[]", "a", "targets: {}", "targets: [1]", strings.Repeat("#", maxFile+1)} {
		if _, err := file(t, text); err == nil || !strings.Contains(err.Error(), "targets.yaml:1:") {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml:1:1: it cannot be read") {
		t.Errorf("%v", err)
	}
}

// All that is wrong is told at once, a line for each place, in their order; what follows from an error is not.
func TestLoadTellsAll(t *testing.T) {
	t.Parallel()
	text := whole
	for _, change := range [][2]string{
		{"name: likes\n", "name: Likes\n"},
		{"user: author_id", "user: author id"},
		{"retention: 90d", "retention: 90"},
		{"delete-share: 0.02", "delete-share: 5%"},
		{"moderated_by", "posts.moderated_by"},
		{"action: delete", "action: delete\n    set: {a: 'b;'}"},
	} {
		if !strings.Contains(text, change[0]) {
			t.Fatal(change[0])
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	_, err := file(t, text)
	var places []string
	for _, m := range regexp.MustCompile(`(?m)^/.*/targets\.yaml:(\d+:\d+): `).FindAllStringSubmatch(fmt.Sprint(err), -1) {
		places = append(places, m[1])
	}
	if want := []string{"5:11", "12:16", "13:28", "16:11", "22:14", "27:14"}; !slices.Equal(places, want) || strings.Count(err.Error(), "\n") != len(want)-1 {
		t.Errorf("%q, want %q:\n%v", places, want, err)
	}
	// Of one target that is well-formed, and of two that are of one column.
	text = strings.NewReplacer("action: update", "action: delete", "content.likes\n    user: user_id", "content.posts\n    user: author_id").Replace(whole)
	if _, err = file(t, text); strings.Count(fmt.Sprint(err), "\n") != 2 {
		t.Errorf("%v", err)
	}
}

// Targets are swept in the order of the file, but for what after says.
func TestSweepOrder(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("targets:\n")
	for _, c := range []struct{ name, after string }{{"a", "after: [d, c]"}, {"b", ""}, {"c", ""}, {"d", "after: [b]"}} {
		text.WriteString("  - {name: " + c.name + ", table: public." + c.name + ", user: u, key: [k], age: none, action: delete, " + c.after + "}\n")
	}
	var order []string
	for _, target := range loaded(t, text.String()).Targets {
		order = append(order, target.Name)
	}
	if !slices.Equal(order, []string{"b", "c", "d", "a"}) {
		t.Errorf("%v", order)
	}
}

func TestSchemaAndGoAgree(t *testing.T) {
	t.Parallel()
	const path = "../../docs/targets.schema.json"
	schema, err := jsonschema.NewCompiler().Compile(path)
	if err != nil {
		t.Fatal(err)
	}
	validate := func(text string) error {
		var value any
		if err := yaml.Load([]byte(text), &value); err != nil {
			return err
		}
		asJSON, err := json.Marshal(value)
		if err != nil {
			return err
		}
		if value, err = jsonschema.UnmarshalJSON(bytes.NewReader(asJSON)); err != nil {
			return err
		}
		return schema.Validate(value)
	}
	if err := validate(whole); err != nil {
		t.Error(err)
	}
	for _, c := range broken {
		if err := validate(strings.Replace(whole, c.old, c.new, 1)); err == nil && !c.goAlone {
			t.Errorf("the schema lets %q through", c.new)
		}
	}
	// The same fields, and the same limits: each that the schema has is known to Go, and whole has all that Go knows.
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Defs map[string]struct {
			Properties map[string]struct{ Properties map[string]any }
		} `json:"$defs"`
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("load.go")
	if err != nil {
		t.Fatal(err)
	}
	inGo := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\t+"(\w+)": +(func|names)\(`).FindAllStringSubmatch(string(source), -1) {
		inGo[m[1]] = m[1] != "owners" // reserved
	}
	inSchema := map[string]bool{"targets": true, "ignore": true, "owners": false}
	for _, def := range []string{"target", "ignored"} {
		for name := range s.Defs[def].Properties {
			inSchema[name] = true
		}
	}
	for _, field := range []string{"backup", "counter"} {
		for name := range s.Defs["target"].Properties[field].Properties {
			inSchema[name] = true
		}
	}
	if !reflect.DeepEqual(inGo, inSchema) {
		t.Errorf("Go knows %v\nthe schema %v", inGo, inSchema)
	}
	known := settings.TargetLimitNames()
	page, err := os.ReadFile("../../docs/targets.md")
	if err != nil {
		t.Fatal(err)
	}
	needed := slices.Concat(callable[slices.Index(callable, "cast"):], known)
	for name, is := range inGo {
		if is {
			needed = append(needed, name)
		}
	}
	for _, name := range needed {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/targets.md does not have %s", name)
		}
	}
	var limits []string
	for name := range s.Defs["target"].Properties["limits"].Properties {
		limits = append(limits, name)
	}
	slices.Sort(limits)
	slices.Sort(known)
	if !slices.Equal(limits, known) {
		t.Errorf("limits of the schema %v, of Go %v", limits, known)
	}
}

// Whatever a file holds, it is a file or one line with a place.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(whole))
	for _, c := range broken {
		f.Add([]byte(strings.Replace(whole, c.old, c.new, 1)))
	}
	path := filepath.Join(f.TempDir(), "targets.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, err := Load(path)
		if of, is := errors.AsType[*Error](err); err != nil && (!is || of.Line < 1 || of.Column < 1) {
			t.Errorf("%v", err)
		}
		for _, target := range loaded.Targets {
			for _, name := range append([]string{target.User, target.Table.Schema, target.Table.Name}, target.Key...) {
				if !plainNames.MatchString(name) || strings.Contains(name, ".") {
					t.Errorf("%q is let through", name)
				}
			}
		}
	})
}
