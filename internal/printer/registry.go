package printer

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/target"
)

// Registered is a target as the database has it.
type Registered struct {
	Name      string          `json:"name"`
	Table     string          `json:"table"`
	Column    string          `json:"column"`
	Action    string          `json:"action"`
	Retention int64           `json:"retention_seconds"` // 0: the run's
	Limits    settings.Limits `json:"limits"`
	InForce   settings.Limits `json:"limits_in_force"`       // these, or the pins where they are stricter
	Window    int64           `json:"backup_window_seconds"` // 0: prune's
	Counter   json.RawMessage `json:"counter"`               // table, key and column of what counts its rows, or null
	Digest    string          `json:"digest"`                // of the functions that were printed; empty: built in
	Functions string          `json:"functions"`             // of the functions as they are
	Columns   string          `json:"columns"`               // how the table differs from what the backup of a delete was printed for; empty: it does not
	AppliedAt time.Time       `json:"applied_at"`
	AppliedBy string          `json:"applied_by"`
}

// IsPrinted says that the target is not built in.
func (r Registered) IsPrinted() bool { return r.Digest != "" }

// With are the limits of the target where the pins are not stricter.
func (r Registered) With(pins settings.Limits) settings.Limits {
	limits := maps.Clone(r.Limits)
	for name, limit := range limits {
		if pin, is := pins[name]; is {
			limits[name] = settings.Stricter(name, limit, pin)
		}
	}
	return limits
}

// Disagrees says how the functions differ from what was printed; empty: they do not.
func (r Registered) Disagrees() string {
	if !r.IsPrinted() || r.Functions == r.Digest {
		return ""
	}
	return fmt.Sprintf("target %s: its functions are not those that its migration made: remove what changed them, or: orphan-cleaner target print, and apply what it prints", r.Name)
}

// differs says that the figures of the target are not those of the file.
func (r Registered) differs(t target.Target) bool {
	return time.Duration(r.Retention)*time.Second != t.Retention || !maps.Equal(r.Limits, t.Limits) || time.Duration(r.Window)*time.Second != t.Backup.Window
}

// Changed names the targets of a file that somebody changed in the database: their functions or figures are not those
// that were applied, once all of the folder is and it is what the file prints.
func Changed(file target.File, registry []Registered) (names []string) {
	for _, t := range file.Targets {
		if slices.ContainsFunc(registry, func(r Registered) bool { return r.Name == t.Name && (r.Disagrees() != "" || r.differs(t)) }) {
			names = append(names, t.Name)
		}
	}
	return names
}

// Drifted says how the table differs from what its backup was printed for: no run could back
// up a row of it. Empty: it does not.
func (r Registered) Drifted() string {
	if r.Columns == "" {
		return ""
	}
	return fmt.Sprintf("target %s: %s: its backup was printed for other columns: orphan-cleaner target print, and apply what it prints", r.Name, r.Columns)
}

// Registry is what the database has, in the order of the sweep.
func Registry(ctx context.Context, q *db.Queries) ([]Registered, error) {
	rows, err := q.TargetList(ctx, verbs())
	if err != nil {
		return nil, fmt.Errorf("reading the registry: %w", err)
	}
	registry := make([]Registered, len(rows))
	for i, row := range rows {
		registry[i] = Registered{
			Name: row.Name, Table: row.TableName, Column: row.UserColumn, Action: row.Action, Retention: row.RetentionSeconds, Window: row.BackupWindowSeconds, Counter: row.Counter,
			Digest: row.Digest, Functions: row.FunctionsDigest, Columns: row.ColumnsDiffer, AppliedAt: row.AppliedAt, AppliedBy: row.AppliedBy,
		}
		if err := json.Unmarshal(row.Limits, &registry[i].Limits); err != nil {
			return nil, fmt.Errorf("reading the limits of %s: %w", row.Name, err)
		}
	}
	return registry, nil
}

// verbs are the ends of the names of all functions that are printed.
func verbs() []string {
	var ends []string
	for _, action := range []string{target.Delete, target.Update} {
		for _, f := range functionsOf(action) {
			ends = append(ends, f.verb)
		}
	}
	slices.Sort(ends)
	return slices.Compact(ends)
}

// Compare says where file, registry and functions disagree, a line for each, and which
// targets of the file were never applied. The tables must be those of the file, see
// [target.File.Validate].
func Compare(ctx context.Context, pool *pgxpool.Pool, file target.File) (disagree, unapplied []string, err error) {
	shapes, err := file.Shapes(ctx, pool)
	if err != nil {
		return nil, nil, err
	}
	digests, err := Digests(file, shapes)
	if err != nil {
		return nil, nil, err
	}
	registry, err := database.Once(ctx, pool, pgx.ReadOnly, Registry)
	if err != nil {
		return nil, nil, err
	}
	const again = "orphan-cleaner target print, and apply what it prints"
	var order, applied []string
	for _, r := range registry {
		if line := r.Disagrees(); line != "" {
			disagree = append(disagree, line)
		}
		i := slices.IndexFunc(file.Targets, func(t target.Target) bool { return t.Name == r.Name })
		if i < 0 {
			if r.IsPrinted() {
				disagree = append(disagree, fmt.Sprintf("target %s is in the registry and not in the file: add it, or %s", r.Name, again))
			}
			continue
		}
		applied = append(applied, r.Name)
		t := file.Targets[i]
		switch {
		case digests[t.Name] != r.Digest:
			disagree = append(disagree, fmt.Sprintf("target %s: the file or the table changed since its migration was printed: %s", t.Name, again))
		case r.differs(t):
			disagree = append(disagree, fmt.Sprintf("target %s: retention, limits or backup window are not those of the file: %s", t.Name, again))
		}
	}
	for _, t := range file.Targets {
		if slices.Contains(applied, t.Name) {
			order = append(order, t.Name)
		} else {
			unapplied = append(unapplied, fmt.Sprintf("target %s is in the file and not in the registry: %s", t.Name, again))
		}
	}
	if !slices.Equal(order, applied) {
		disagree = append(disagree, fmt.Sprintf("the targets are swept in the order %v, and %v in the file: %s", applied, order, again))
	}
	return disagree, unapplied, nil
}
