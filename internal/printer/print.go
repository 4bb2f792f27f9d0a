package printer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/target"
)

// Migration is one file that is to be written.
type Migration struct {
	Name string
	Text string
}

// Digests are those of the functions of each target of a file, by its name.
func Digests(file target.File, shapes []target.Shape) (map[string]string, error) {
	r, err := newRenderer()
	if err != nil {
		return nil, err
	}
	digests := map[string]string{}
	for i, t := range file.Targets {
		next, err := r.rendered(t, shapes[i])
		if err != nil {
			return nil, err
		}
		digests[t.Name] = next.Digest
	}
	return digests, nil
}

// rendered is a target as it is printed anew.
func (r renderer) rendered(t target.Target, s target.Shape) (p printed, err error) {
	if p.Model, err = newModel(t, s); err != nil {
		return p, err
	}
	if p.functions, err = r.functions(p.Model); err != nil {
		return p, err
	}
	p.Digest = digest(p.functions)
	return p, nil
}

// Print is what has to be added to a folder, so that it makes the targets of a file, whose
// shapes are given; nothing where it does, but for targets that somebody changed in the database,
// see [Changed]. The error is a *[target.Error] where the file has to be changed.
func (f Folder) Print(file target.File, shapes []target.Shape, changed ...string) ([]Migration, error) {
	r, err := newRenderer()
	if err != nil {
		return nil, err
	}
	var files []Migration
	add := func(name, template string, data any) error {
		text, err := r.render(template, data)
		f.version++
		files = append(files, Migration{fmt.Sprintf("%05d_%s.sql", f.version, name), strings.TrimRight(text, "\n") + "\n"})
		return err
	}
	var order []string // as it comes to be without an order of its own
	for _, old := range f.targets {
		if slices.ContainsFunc(file.Targets, func(t target.Target) bool { return t.Name == old.Name }) {
			order = append(order, old.Name)
		} else if err := add("drop_"+old.Name+"_target", "drop", dropped{created{old.Model, old.functions}, f.Names()}); err != nil {
			return nil, err
		}
	}
	var wanted []string
	for i, t := range file.Targets {
		wanted = append(wanted, t.Name)
		next, err := r.rendered(t, shapes[i])
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(f.targets, func(old printed) bool { return old.Name == t.Name })
		if !shapes[i].IsIndexed && !slices.Contains(f.indexed, t.Name) {
			if err := add("index_"+t.Name, "index", next.Model); err != nil {
				return nil, err
			}
		}
		if at < 0 {
			order = append(order, t.Name)
			err = add("create_"+t.Name+"_target", "create", created{next.Model, next.functions})
		} else if change, is := difference(t, f.targets[at], next); is != nil {
			err = is
		} else if slices.Contains(changed, t.Name) {
			change.After, change.Before = next.functions, next.functions
			err = add("change_"+t.Name+"_target", "change", change)
		} else if change.Why != "" {
			err = add("change_"+t.Name+"_target", "change", change)
		}
		if err != nil {
			return nil, err
		}
	}
	if !slices.Equal(order, wanted) {
		if err := add("order_targets", "order", struct{ New, Old []string }{wanted, order}); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// created is what makes a target.
type created struct {
	Model     Model
	Functions []Function
}

type dropped struct {
	created
	Order []string
}

// VersionTable is where goose records them.
const VersionTable = "public.orphan_cleaner_targets_goose"

// environment has goose record these migrations in a table of their own.
const environment = `# Read by goose: plain "goose up" in this folder is right, given GOOSE_DBSTRING.
GOOSE_DRIVER=postgres
GOOSE_MIGRATION_DIR=.
GOOSE_TABLE=` + VersionTable + `
`

// Write adds migrations to the folder, which is made where it is not there. A file that is
// there is never overwritten.
func (f Folder) Write(files []Migration) error {
	if len(files) == 0 {
		return nil
	}
	if err := os.MkdirAll(f.Path, 0o755); err != nil { //nolint:gosec // as any folder of sources: others review it
		return fmt.Errorf("making the folder: %w", err)
	}
	if _, err := os.Stat(filepath.Join(f.Path, ".env")); errors.Is(err, os.ErrNotExist) {
		files = append(slices.Clone(files), Migration{".env", environment})
	}
	for i, m := range files {
		if err := writeNew(filepath.Join(f.Path, m.Name), m.Text); err != nil {
			// All or nothing: half of a change would be taken for all of it.
			for _, written := range files[:i] {
				err = errors.Join(err, os.Remove(filepath.Join(f.Path, written.Name)))
			}
			return fmt.Errorf("writing the migrations: %w", err)
		}
	}
	return nil
}

func writeNew(path, text string) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // as any source
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	_, err = file.WriteString(text)
	return err
}
