package target

import (
	"errors"
	"maps"
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

// Load reads a file and checks what can be checked without a database. Its error joins an
// *[Error] for each place that has to be changed, in their order.
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
	if r.errs = append(r.errs, f.distinct()...); len(r.errs) > 0 {
		return File{}, inOrder(r.errs)
	}
	f.Targets, err = sorted(f.Targets)
	return f, err
}

func (r *reader) target(n *yaml.Node) Target {
	var t Target
	before := len(r.errs)
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
		"name":  func(n *yaml.Node) { t.Name = r.targetName(n) },
		"table": func(n *yaml.Node) { t.Table = r.table(n) },
		"user":  func(n *yaml.Node) { t.User = r.column(n) },
		"key":   names("key", &t.Key, r.column),
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
		"counter": func(n *yaml.Node) { t.Counter = r.counter(n, within) },
		"owners": func(n *yaml.Node) {
			r.fail(n, "owners is a choice of effects, for conversations alone: remove it; see docs/effects.md")
		},
	})
	maps.Copy(p.at, within.at)
	t.place = p
	if len(r.errs) == before {
		r.errs = append(r.errs, t.coherent()...)
	}
	return t
}

// coherent are the errors where the fields of a target do not fit together.
func (t Target) coherent() (errs []error) {
	wrong := func(is bool, field, format string, args ...any) {
		if is {
			errs = append(errs, t.Errorf(field, format, args...))
		}
	}
	wrong(t.Action == Delete && t.Set != nil, "set", "a delete sets nothing: remove set, or write action: update")
	wrong(t.Action == Delete && t.Backup.Columns != nil, "backup", "a delete backs up whole rows: remove columns")
	wrong(t.Action == Update && len(t.Set) == 0, "set", "an update needs set: the columns and the expressions that they are set to")
	wrong(t.Action == Update && t.Where == "", "action", "an update needs where, which is false after set: without it each run would update the same rows again")
	wrong(t.Backup.Window != 0 && t.Backup.Window < 24*time.Hour, "backup", "window is under one day: backups would be dropped before anybody notices a mistake")
	if c := t.Counter; c != nil {
		wrong(slices.ContainsFunc(c.Key, func(p Pair) bool { return p.Counter == c.Column }),
			"counter.column", "%s is of the key, by which the count is found: name the column that counts", c.Column)
	}
	for _, a := range t.Set {
		wrong(slices.Contains(t.Key, a.Column), "set."+a.Column, "%s is of the key, by which a restore finds the row: set another column", a.Column)
	}
	return errs
}

func (r *reader) ignored(n *yaml.Node) (i Ignored) {
	i.place = r.mapping(n, "an entry of ignore", []string{"column", "reason"}, map[string]func(*yaml.Node){
		"column": func(n *yaml.Node) {
			// Whatever the catalog has: nothing is printed of it.
			names := strings.Split(r.text(n, "a name"), ".")
			if len(names) != 3 || slices.Contains(names, "") {
				r.fail(n, "%q is no schema, table and column, such as public.posts.moderated_by, as in the catalog and without quotes", n.Value)
				return
			}
			i.Table, i.Column = Table{names[0], names[1]}, names[2]
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

func (r *reader) table(n *yaml.Node) (t Table) {
	if names := r.names(n, 2, "schema and table, such as public.likes"); names != nil {
		t = Table{names[0], names[1]}
	}
	return t
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
	limits, known := settings.Limits{}, slices.Sorted(slices.Values(settings.TargetLimitNames()))
	r.pairs(n, "limits", func(name string, key, value *yaml.Node) {
		limit, err := strconv.ParseFloat(r.text(value, name), 64)
		if err == nil {
			err = settings.CheckLimit(name, limit)
		} else {
			err = errors.New("it is a number, as 0.05 for 5 %")
		}
		if !slices.Contains(known, name) {
			r.unknown(key, name, "limit of a target", known)
		} else if err != nil {
			r.fail(value, "%s is %q: %s", name, value.Value, err)
		}
		limits[name] = limit
	})
	return limits
}

// distinct are the errors at the second of two entries of one name or one column. What is missing is like nothing.
func (f File) distinct() (errs []error) {
	names, columns := map[string]bool{}, map[string]string{}
	for _, t := range append([]Target{Members()}, f.Targets...) {
		column := t.Table.String() + "." + t.User
		if names[t.Name] && t.Name != "" {
			errs = append(errs, t.Errorf("name", "there is a target %s already: choose another name", t.Name))
		}
		if other := columns[column]; other != "" && t.User != "" && t.Table.Name != "" {
			errs = append(errs, t.Errorf("user", "%s is %s already: a column has one target", column, other))
		}
		if t.deletesOthers() {
			errs = append(errs, t.Errorf("action", "a delete by %s would delete members whose own users may live, and knows no hold on a conversation, owner or count: use action update", t.User))
		}
		names[t.Name] = true
		if t.Name != "" {
			columns[column] = "the column of target " + t.Name
		}
	}
	for _, i := range f.Ignored {
		column := i.Table.String() + "." + i.Column
		if other := columns[column]; other != "" && i.Column != "" {
			errs = append(errs, i.Errorf("column", "%s is %s already: remove one", column, other))
		}
		columns[column] = "ignored"
	}
	return errs
}

// deletesOthers says that it deletes members by another column than theirs.
func (t Target) deletesOthers() bool {
	return t.Action == Delete && t.Table == Members().Table && t.User != Members().User
}

// sorted puts each target behind those that it names in after, and otherwise leaves them as they are.
func sorted(targets []Target) ([]Target, error) {
	done := map[string]bool{Members().Name: true}
	known := func(name string) bool {
		return done[name] || slices.ContainsFunc(targets, func(t Target) bool { return t.Name == name })
	}
	var unknown []error
	for _, t := range targets {
		for _, name := range t.After {
			if !known(name) {
				unknown = append(unknown, t.Errorf("after."+name, "there is no target %s: add it, or remove it from after", name))
			}
		}
	}
	if unknown != nil {
		return nil, inOrder(unknown)
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
