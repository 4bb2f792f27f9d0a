package printer_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v4"

	"github.com/nova-social/orphan-cleaner/internal/printer"
	"github.com/nova-social/orphan-cleaner/internal/target"
)

// texts are what people choose: in a file, and in the catalog.
type texts struct{ name, schema, table, user, key, column, extra, typed, set, where string }

// printedOf prints an update and a delete of these texts; false: they are refused.
func printedOf(t *testing.T, x texts) (string, bool) {
	t.Helper()
	all := ""
	for _, action := range []string{target.Update, target.Delete} {
		one := map[string]any{
			"name": x.name, "table": x.schema + "." + x.table, "user": x.user, "key": []string{x.key}, "age": "none", "action": action, "where": x.where,
			"counter": map[string]any{"table": x.schema + "." + x.table, "key": map[string]string{x.key: x.user}, "column": x.column},
		}
		if action == target.Update {
			one["set"] = map[string]string{x.column: x.set}
		}
		text, err := yaml.Dump(map[string]any{"targets": []any{one}})
		if err != nil {
			return "", false
		}
		path := filepath.Join(t.TempDir(), "targets.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := target.Load(path)
		if err != nil {
			return "", false
		}
		quoted := func(name string) string { return pgx.Identifier{name}.Sanitize() }
		shape := target.Shape{Table: quoted(x.schema) + "." + quoted(x.table), Base: quoted(x.table)}
		for _, name := range []string{x.user, x.key, x.column, x.extra} {
			shape.Columns = append(shape.Columns, target.Column{Name: name, Ident: quoted(name), Type: x.typed})
		}
		user, key, column := shape.Columns[0], shape.Columns[1], shape.Columns[2]
		shape.Counter = target.CounterShape{Table: shape.Table, Column: column, Key: []target.Column{key}, Values: []target.Column{user}}
		if file.Targets[0].Printable(shape) != nil {
			return "", false
		}
		files, err := printer.Folder{}.Print(file, []target.Shape{shape})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			all += f.Text
		}
	}
	return all, true
}

var plain = texts{"likes", "public", "posts", "user_id", "id", "deleted_at", "body", "uuid", "now()", "deleted_at IS NULL"}

// shapeOf is what must be the same whatever the texts are: the lines that are comments, the
// annotations of goose, and how often anything stands that ends something.
func shapeOf(text string) string {
	shape := ""
	// JSON escapes what it has to.
	text = regexp.MustCompile(`(?m)^-- Target: .*$`).ReplaceAllStringFunc(text, func(header string) string { return strings.ReplaceAll(header, `\"`, "") })
	// Lists of functions are wrapped where they are long.
	text = regexp.MustCompile(`,\n? +orphan_cleaner\.`).ReplaceAllString(text, ", orphan_cleaner.")
	for _, part := range []string{"\n", ";", "$$", "--", "/*", "*/", `\`, "-- +goose", "\r", "\x00"} {
		shape += strings.Repeat("x", strings.Count(text, part)) + "|"
	}
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "--"):
			shape += "comment\n"
		case strings.Count(line, "'")%2 == 1 || strings.Count(line, `"`)%2 == 1:
			shape += "open\n"
		default:
			shape += "\n"
		}
	}
	return shape
}

func distinct(names ...string) bool {
	seen := map[string]bool{}
	for _, name := range names {
		seen[strings.ToLower(name)] = true
	}
	return len(seen) == len(names)
}

// Whatever names, types and expressions are, they stay within their line and their quotes,
// or are refused.
func FuzzPrint(f *testing.F) {
	add := func(x texts) {
		f.Add(x.name, x.schema, x.table, x.user, x.key, x.column, x.extra, x.typed, x.set, x.where)
	}
	add(plain)
	for _, hostile := range []string{
		`a"b`, "a'b", "a; DROP TABLE x", "a -- b", "a /* b", "$$", "a$$; DROP TABLE x; --", "a\n-- +goose StatementEnd\nDROP TABLE x", `a\`, "Größe", "select", "a b", `"; --`, "'; --",
		"now()) FROM x; --", "'it''s'", "1, 2", "(SELECT 1)", "a\r\nb", "a\u2028b",
	} {
		for i := range 10 {
			x := plain
			*[]*string{&x.name, &x.schema, &x.table, &x.user, &x.key, &x.column, &x.extra, &x.typed, &x.set, &x.where}[i] = hostile
			add(x)
		}
	}
	f.Fuzz(func(t *testing.T, name, schema, table, user, key, column, extra, typed, set, where string) {
		if !distinct(user, key, column, extra) {
			return
		}
		text, is := printedOf(t, texts{name, schema, table, user, key, column, extra, typed, set, where})
		if !is {
			return
		}
		want, _ := printedOf(t, plain)
		if got, want := shapeOf(text), shapeOf(want); got != want {
			t.Errorf("the text has another shape: %q", text)
		}
	})
}

// Texts that nobody could quote are refused, and odd ones that can be are printed.
func TestTextsAreQuotedOrRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		change func(x *texts)
		is     bool
	}{
		{func(x *texts) { x.extra = "Größe" }, true},
		{func(x *texts) { x.table = "Order" }, true},
		{func(x *texts) { x.user = "userId" }, true},
		{func(x *texts) { x.where = `"deleted_at" IS NULL AND body <> 'it''s (%'` }, true},
		{func(x *texts) { x.typed = `content."My Type"[]` }, true},
		{func(x *texts) { x.typed = "numeric(10,2)" }, true},
		{func(x *texts) { x.extra = `a"b` }, false},
		{func(x *texts) { x.extra = "a$$b" }, false},
		{func(x *texts) { x.extra = "a\nb" }, false},
		{func(x *texts) { x.extra = "set_to" }, false},
		{func(x *texts) { x.typed = `"a'b"` }, false},
		{func(x *texts) { x.typed = `"a$$b"` }, false},
		{func(x *texts) { x.typed = `"a--b"` }, false},
	} {
		x := plain
		c.change(&x)
		text, is := printedOf(t, x)
		if is != c.is {
			t.Errorf("%+v: printed is %v", x, is)
		}
		if want, _ := printedOf(t, plain); is && shapeOf(text) != shapeOf(want) {
			t.Errorf("%+v: another shape", x)
		}
	}
}
