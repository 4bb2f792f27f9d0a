package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v4"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// CounterShape is what the catalog says of a counter's table. It is empty without a counter.
type CounterShape struct {
	Table  string   // quoted where it must be, with its schema
	Column Column   // that counts
	Key    []Column // of that table, and
	Values []Column // of the target, those with its values
}

// JSON is the counter as the registry has it, empty without one: the table is quoted where it must be.
func (c *Counter) JSON(table string) (string, error) {
	if c == nil {
		return "", nil
	}
	key := map[string]string{}
	for _, p := range c.Key {
		key[p.Counter] = p.Target
	}
	text, err := json.Marshal(struct {
		Table  string            `json:"table"`
		Key    map[string]string `json:"key"`
		Column string            `json:"column"`
	}{table, key, c.Column})
	return string(text), err
}

// counter reads a counter, and where its parts stand.
func (r *reader) counter(n *yaml.Node, within place) *Counter {
	var c Counter
	p := r.mapping(n, "a counter", []string{"table", "key", "column"}, map[string]func(*yaml.Node){
		"table": func(n *yaml.Node) { c.Table = r.table(n) },
		"key": func(n *yaml.Node) {
			r.pairs(n, "key", func(_ string, key, value *yaml.Node) {
				pair := Pair{r.column(key), r.column(value)}
				within.at["counter.key."+pair.Counter] = position{value.Line, value.Column}
				c.Key = append(c.Key, pair)
			})
			if len(c.Key) == 0 {
				r.fail(n, "key is empty: name the columns of the counter's key, each with the column of the target that has its value")
			}
		},
		"column": func(n *yaml.Node) { c.Column = r.column(n) },
	})
	for name, at := range p.at {
		within.at["counter."+name] = at
	}
	return &c
}

// validCounter checks the counter of a target, whose columns are given.
func (f File) validCounter(ctx context.Context, q *db.Queries, t Target, ours db.TargetTableRow) error {
	c := t.Counter
	if c == nil {
		return nil
	}
	theirs, err := q.TargetTable(ctx, db.TargetTableParams{TableSchema: c.Table.Schema, TableName: c.Table.Name})
	if err != nil {
		return fmt.Errorf("reading the catalog: %w", err)
	}
	switch {
	case theirs.Unfit != "":
		return t.Errorf("counter.table", "%s can have no counter, %s: name an ordinary table", c.Table, theirs.Unfit)
	case c.Table == t.Table:
		return t.Errorf("counter.table", "%s is the target's own table: its rows would change while they are cleaned; count in another table", c.Table)
	}
	for _, other := range append([]Target{Members()}, f.Targets...) {
		switch {
		case other.Table != c.Table:
		case other.Action == Delete:
			return t.Errorf("counter.table", "rows of %s are deleted by target %s, and its restore brings back the count of that time: count in another table, or give that target action update", c.Table, other.Name)
		case slices.ContainsFunc(other.Set, func(a Assignment) bool { return a.Column == c.Column }):
			return t.Errorf("counter.column", "%s.%s is set by target %s, which restores it only while it is as it was set: take it out of its set, or count in another column", c.Table, c.Column, other.Name)
		}
	}
	typeOf := func(field string, of Table, columns db.TargetTableRow, name string) (string, error) {
		at := slices.Index(columns.ColumnNames, name)
		switch {
		case at < 0:
			return "", t.Errorf(field, "%s has no column %s: name one of its columns", of, name)
		case slices.Contains(columns.Generated, name):
			return "", t.Errorf(field, "%s.%s is generated: name another column", of, name)
		}
		return columns.ColumnTypes[at], nil
	}
	var names []string
	for _, p := range c.Key {
		field := "counter.key." + p.Counter
		has, err := typeOf(field, c.Table, theirs, p.Counter)
		if err != nil {
			return err
		}
		is, err := typeOf(field, t.Table, ours, p.Target)
		switch {
		case err != nil:
			return err
		case is != has:
			return t.Errorf(field, "%s.%s is %s, and %s.%s is %s: they must be of one type", t.Table, p.Target, is, c.Table, p.Counter, has)
		case strings.HasSuffix(has, "[]"):
			return t.Errorf(field, "%s.%s is an array: a counter's key has none", c.Table, p.Counter)
		}
		names = append(names, p.Counter)
	}
	counts, err := typeOf("counter.column", c.Table, theirs, c.Column)
	if err != nil {
		return err
	}
	if base, _, _ := strings.Cut(counts, "("); !slices.Contains([]string{"smallint", "integer", "bigint", "numeric"}, base) {
		return t.Errorf("counter.column", "%s.%s is %s: a count is smallint, integer, bigint or numeric", c.Table, c.Column, counts)
	}
	isUnique, err := q.TargetKey(ctx, db.TargetKeyParams{TableSchema: c.Table.Schema, TableName: c.Table.Name, KeyColumns: names})
	if err == nil && !isUnique {
		err = t.Errorf("counter.key", "%s has no primary key and no valid, whole unique index of exactly %v: name the columns of one, or create it", c.Table, names)
	}
	return err
}

// counterShape reads the names and types of a counter, for a target whose shape is given.
func (t Target) counterShape(ctx context.Context, q *db.Queries, s Shape) (found CounterShape, err error) {
	if t.Counter == nil {
		return found, nil
	}
	theirs, err := readShape(ctx, q, t.Counter.Table, "")
	if errors.Is(err, pgx.ErrNoRows) {
		return found, t.Errorf("counter.table", "there is no table %s: remove the counter, or create the table", t.Counter.Table)
	} else if err != nil {
		return found, fmt.Errorf("reading the columns of %s: %w", t.Counter.Table, err)
	}
	take := func(field string, of Table, from Shape, name string, into *[]Column) {
		columns := from.only([]string{name})
		switch {
		case err != nil:
		case len(columns) == 0:
			err = t.Errorf(field, "%s has no column %s that can be set: name one of its columns", of, name)
		case !printableType.MatchString(columns[0].Type):
			err = t.Errorf(field, "%s.%s is %q: a migration names types of letters, digits and _ only; rename the type", of, name, columns[0].Type)
		default:
			*into = append(*into, columns[0])
		}
	}
	var counts []Column
	take("counter.column", t.Counter.Table, theirs, t.Counter.Column, &counts)
	for _, p := range t.Counter.Key {
		take("counter.key."+p.Counter, t.Counter.Table, theirs, p.Counter, &found.Key)
		take("counter.key."+p.Counter, t.Table, s, p.Target, &found.Values)
	}
	if err != nil {
		return CounterShape{}, err
	}
	found.Table, found.Column = theirs.Table, counts[0]
	return found, nil
}
