package target

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v4"

	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// none is the age of a target without one.
const none = "none"

// Names of tables and columns are plain ones, as in the catalog: 1, 2 or 3 of them with dots between.
var (
	targetName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)
	plainNames = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62}){0,2}$`)
)

// Load reads a file and checks what can be checked without a database. Its error is an
// *[Error] at the first place that has to be changed.
func Load(path string) (File, error) {
	root, err := document(path)
	if err != nil {
		return File{}, err
	}
	r, f := &reader{path: path}, File{Path: path}
	r.mapping(root, "the file", nil, map[string]func(*yaml.Node){
		"targets": func(n *yaml.Node) {
			r.list(n, "targets", func(n *yaml.Node) { f.Targets = append(f.Targets, r.target(n)) })
		},
		"ignore": func(n *yaml.Node) {
			r.list(n, "ignore", func(n *yaml.Node) { f.Ignored = append(f.Ignored, r.ignored(n)) })
		},
	})
	if r.err != nil {
		return File{}, r.err
	}
	if err := f.distinct(); err != nil {
		return File{}, err
	}
	f.Targets, err = sorted(f.Targets)
	return f, err
}

func (r *reader) target(n *yaml.Node) Target {
	var t Target
	within := place{r.path, map[string]position{}} // of the items of lists and mappings
	names := func(field string, into *[]string, name func(*yaml.Node) string) func(*yaml.Node) {
		return func(n *yaml.Node) {
			r.list(n, field, func(n *yaml.Node) {
				item := name(n)
				if slices.Contains(*into, item) {
					r.fail(n, "%q is there twice: remove one", item)
				}
				within.at[field+"."+item] = position{n.Line, n.Column}
				*into = append(*into, item)
			})
			if len(*into) == 0 {
				r.fail(n, "%s is empty: name at least one, or remove it", field)
			}
		}
	}
	p := r.mapping(n, "a target", []string{"name", "table", "user", "key", "age", "action"}, map[string]func(*yaml.Node){
		"name": func(n *yaml.Node) { t.Name = r.targetName(n) },
		"table": func(n *yaml.Node) {
			if names := r.names(n, 2, "schema and table, such as public.likes"); names != nil {
				t.Table = Table{names[0], names[1]}
			}
		},
		"user": func(n *yaml.Node) { t.User = r.column(n) },
		"key":  names("key", &t.Key, r.column),
		"age": func(n *yaml.Node) {
			if t.Age = r.column(n); t.Age == none {
				t.Age = ""
			}
		},
		"action": func(n *yaml.Node) {
			if t.Action = r.text(n, "action"); t.Action != Delete && t.Action != Update {
				r.fail(n, "action is %q: it must be delete or update", t.Action)
			}
		},
		"set": func(n *yaml.Node) {
			r.pairs(n, "set", func(_ string, key, value *yaml.Node) {
				a := Assignment{r.column(key), r.expression(value)}
				within.at["set."+a.Column] = position{value.Line, value.Column}
				t.Set = append(t.Set, a)
			})
		},
		"where":     func(n *yaml.Node) { t.Where = r.expression(n) },
		"after":     names("after", &t.After, r.targetName),
		"retention": func(n *yaml.Node) { t.Retention = r.duration(n, "retention") },
		"limits":    func(n *yaml.Node) { t.Limits = r.limits(n) },
		"activity":  func(n *yaml.Node) { t.Activity = r.column(n) },
		"backup": func(n *yaml.Node) {
			r.mapping(n, "backup", nil, map[string]func(*yaml.Node){
				"columns": names("columns", &t.Backup.Columns, r.column),
				"window":  func(n *yaml.Node) { t.Backup.Window = r.duration(n, "window") },
			})
		},
		"counter": func(n *yaml.Node) { r.fail(n, "counter is reserved for a later version: remove it") },
		"owners":  func(n *yaml.Node) { r.fail(n, "owners is reserved for a later version: remove it") },
	})
	for name, at := range within.at {
		p.at[name] = at
	}
	t.place = p
	if r.err == nil {
		r.err = t.coherent()
	}
	return t
}

// coherent is an error where the fields of a target do not fit together.
func (t Target) coherent() error {
	switch {
	case t.Action == Delete && t.Set != nil:
		return t.Errorf("set", "a delete sets nothing: remove set, or write action: update")
	case t.Action == Delete && t.Backup.Columns != nil:
		return t.Errorf("backup", "a delete backs up whole rows: remove columns")
	case t.Action == Update && len(t.Set) == 0:
		return t.Errorf("set", "an update needs set: the columns and the expressions that they are set to")
	case t.Action == Update && t.Where == "":
		return t.Errorf("action", "an update needs where, which is false after set: without it each run would update the same rows again")
	case t.Backup.Window != 0 && t.Backup.Window < 24*time.Hour:
		return t.Errorf("backup", "window is under one day: backups would be dropped before anybody notices a mistake")
	}
	for _, a := range t.Set {
		if slices.Contains(t.Key, a.Column) {
			return t.Errorf("set."+a.Column, "%s is of the key, by which a restore finds the row: set another column", a.Column)
		}
	}
	return nil
}

func (r *reader) ignored(n *yaml.Node) (i Ignored) {
	i.place = r.mapping(n, "an entry of ignore", []string{"column", "reason"}, map[string]func(*yaml.Node){
		"column": func(n *yaml.Node) {
			if names := r.names(n, 3, "schema, table and column, such as public.posts.moderated_by"); names != nil {
				i.Table, i.Column = Table{names[0], names[1]}, names[2]
			}
		},
		"reason": func(n *yaml.Node) {
			i.Reason = r.text(n, "reason")
			if i.Reason == "" || len(i.Reason) > 200 || strings.ContainsFunc(i.Reason, func(c rune) bool { return !unicode.IsGraphic(c) }) {
				r.fail(n, "a reason is one line of 1 to 200 bytes")
			}
		},
	})
	return i
}

// names are the parts of a name with dots, or nil.
func (r *reader) names(n *yaml.Node, parts int, what string) []string {
	names := strings.Split(r.text(n, "a name"), ".")
	if len(names) != parts || !plainNames.MatchString(n.Value) {
		r.fail(n, "%q is no %s: letters, digits and _, as in the catalog and without quotes", n.Value, what)
		return nil
	}
	return names
}

func (r *reader) column(n *yaml.Node) string {
	return strings.Join(r.names(n, 1, "plain name of a column"), "")
}

func (r *reader) targetName(n *yaml.Node) string {
	name := r.text(n, "the name of a target")
	if !targetName.MatchString(name) {
		r.fail(n, "%q is no name of a target: a to z, 0 to 9 and _, a letter first, at most 40", name)
	}
	return name
}

func (r *reader) expression(n *yaml.Node) Expression {
	e, err := ParseExpression(r.text(n, "an expression"))
	if err != nil {
		r.fail(n, "%s", err)
	}
	return e
}

func (r *reader) duration(n *yaml.Node, what string) time.Duration {
	var d settings.Duration
	if err := d.UnmarshalText([]byte(r.text(n, what))); err != nil {
		r.fail(n, "%s: %s", what, err)
	}
	return time.Duration(d)
}

func (r *reader) limits(n *yaml.Node) settings.Limits {
	limits, known := settings.Limits{}, map[string]func(*yaml.Node){}
	for _, name := range settings.TargetLimitNames() {
		known[name] = nil
	}
	r.pairs(n, "limits", func(name string, key, value *yaml.Node) {
		limit, err := strconv.ParseFloat(r.text(value, name), 64)
		if err == nil {
			err = settings.CheckLimit(name, limit)
		}
		if _, is := known[name]; !is {
			r.unknown(key, name, "limit of a target", known)
		} else if err != nil {
			r.fail(value, "%s is %q: %s", name, value.Value, strings.TrimPrefix(err.Error(), "strconv.ParseFloat: parsing "+strconv.Quote(value.Value)+": "))
		}
		limits[name] = limit
	})
	return limits
}

// distinct is an error at the second of two entries of one name or one column.
func (f File) distinct() error {
	names, columns := map[string]bool{}, map[string]string{}
	for _, t := range append([]Target{Members()}, f.Targets...) {
		column := t.Table.String() + "." + t.User
		if names[t.Name] {
			return t.Errorf("name", "there is a target %s already: choose another name", t.Name)
		}
		if other := columns[column]; other != "" {
			return t.Errorf("user", "%s is the column of target %s already: a column has one target", column, other)
		}
		names[t.Name], columns[column] = true, t.Name
	}
	for _, i := range f.Ignored {
		column := i.Table.String() + "." + i.Column
		if other := columns[column]; other != "" {
			return i.Errorf("column", "%s is the column of target %s, or ignored already: remove one", column, other)
		}
		columns[column] = "ignore"
	}
	return nil
}

// sorted puts each target behind those that it names in after, and otherwise leaves them as they are.
func sorted(targets []Target) ([]Target, error) {
	done := map[string]bool{Members().Name: true}
	known := func(name string) bool {
		return done[name] || slices.ContainsFunc(targets, func(t Target) bool { return t.Name == name })
	}
	for _, t := range targets {
		for _, name := range t.After {
			if !known(name) {
				return nil, t.Errorf("after."+name, "there is no target %s: add it, or remove it from after", name)
			}
		}
	}
	var order []Target
	for len(order) < len(targets) {
		next := slices.IndexFunc(targets, func(t Target) bool {
			return !done[t.Name] && !slices.ContainsFunc(t.After, func(name string) bool { return !done[name] })
		})
		if next < 0 {
			t := targets[slices.IndexFunc(targets, func(t Target) bool { return !done[t.Name] })]
			return nil, t.Errorf("after", "%s would be swept after itself or after a target that is: take the cycle out of after", t.Name)
		}
		done[targets[next].Name], order = true, append(order, targets[next])
	}
	return order, nil
}
