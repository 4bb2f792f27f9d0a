package printer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ErrFolder is returned where a folder holds what was not printed.
var ErrFolder = errors.New("not printed by orphan-cleaner: --dir names a folder for printed migrations alone")

// Folder is what the migrations of a folder make together, once they are applied.
type Folder struct {
	Path    string
	targets []printed // in the order of the sweep
	version int       // of the last migration
	indexed []string  // targets with an index of ours
}

// printed is a target as the migrations of a folder have it.
type printed struct {
	Model
	functions []Function
}

var (
	migrationName = regexp.MustCompile(`^(\d{5,})_[a-z0-9_]+\.sql$`)
	header        = regexp.MustCompile(`(?m)^-- (Target|Dropped|Order|Index): (.+)$`)
	function      = regexp.MustCompile(`(?s)\bCREATE OR REPLACE FUNCTION orphan_cleaner\.([a-z0-9_]+)\(.*?\nAS \$\$\n.*?\n\$\$;\n`)
	comment       = regexp.MustCompile(`(?m)^COMMENT ON FUNCTION orphan_cleaner\.([a-z0-9_]+) IS '(.*)';$`)
	droppedNames  = regexp.MustCompile(`(?s)\nDROP FUNCTION IF EXISTS([^;]*);`)
)

const mark = "-- Printed by `orphan-cleaner target print`"

// Read reads a folder; one that is not there is empty.
func Read(path string) (Folder, error) {
	f := Folder{Path: path}
	entries, err := os.ReadDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return f, nil
	} else if err != nil {
		return f, fmt.Errorf("reading the folder: %w", err)
	}
	for _, entry := range entries { // by name, and so by version
		if filepath.Ext(entry.Name()) != ".sql" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(path, entry.Name()))
		if err != nil {
			return f, fmt.Errorf("reading the folder: %w", err)
		}
		name := migrationName.FindStringSubmatch(entry.Name())
		if name == nil || !strings.Contains(string(text), mark) {
			return f, fmt.Errorf("%s: %w", filepath.Join(path, entry.Name()), ErrFolder)
		}
		if f.version, err = strconv.Atoi(name[1]); err == nil {
			err = f.add(string(text))
		}
		if err != nil {
			return f, fmt.Errorf("%s: its header cannot be read: %w", filepath.Join(path, entry.Name()), err)
		}
	}
	return f, nil
}

// add takes in what the Up part of one migration does.
func (f *Folder) add(text string) error {
	up, _, _ := strings.Cut(text, "-- +goose Down\n")
	m := header.FindStringSubmatch(up)
	if m == nil {
		return errors.New("it says of no target, index or order that it changes it")
	}
	named := func(name string) func(printed) bool { return func(p printed) bool { return p.Name == name } }
	switch kind, what := m[1], m[2]; kind {
	case "Index":
		f.indexed = append(f.indexed, what)
	case "Dropped":
		f.targets = slices.DeleteFunc(f.targets, named(what))
		f.indexed = slices.DeleteFunc(f.indexed, func(name string) bool { return name == what })
	case "Order":
		order := strings.Fields(what)
		slices.SortStableFunc(f.targets, func(a, b printed) int { return slices.Index(order, a.Name) - slices.Index(order, b.Name) })
	case "Target":
		var model Model
		if err := json.Unmarshal([]byte(what), &model); err != nil {
			return err
		}
		i := slices.IndexFunc(f.targets, named(model.Name))
		if i < 0 {
			i, f.targets = len(f.targets), append(f.targets, printed{})
		}
		f.targets[i].Model = model
		f.targets[i].change(up)
	}
	return nil
}

// change replaces the functions that a text makes, and takes those away that it drops.
func (p *printed) change(up string) {
	for _, m := range droppedNames.FindAllStringSubmatch(up, -1) {
		p.functions = slices.DeleteFunc(p.functions, func(f Function) bool {
			return slices.Contains(strings.FieldsFunc(m[1], func(r rune) bool { return strings.ContainsRune(" \n,", r) }), "orphan_cleaner."+f.Name)
		})
	}
	comments := map[string]string{}
	for _, m := range comment.FindAllStringSubmatch(up, -1) {
		comments[m[1]] = strings.ReplaceAll(m[2], "''", "'")
	}
	for _, m := range function.FindAllStringSubmatch(up, -1) {
		made := Function{m[1], m[0], comments[m[1]]}
		if i := named(p.functions, made.Name); i >= 0 {
			p.functions[i] = made
		} else {
			p.functions = append(p.functions, made)
		}
	}
}

// IsEmpty says that it holds no migration.
func (f Folder) IsEmpty() bool { return f.version == 0 }

// Names are the targets of the folder, in the order of the sweep.
func (f Folder) Names() []string {
	names := make([]string, len(f.targets))
	for i, t := range f.targets {
		names[i] = t.Name
	}
	return names
}
