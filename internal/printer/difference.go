package printer

import (
	"slices"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/target"
)

// changed is the difference between a target as it was printed and as it is now.
type changed struct {
	Why                     string // empty: there is none
	New, Old                Model
	AddedAudit, AddedBackup []Column
	Retyped                 []retyped
	After, Before           []Function // those that change, as they become and as they were
	Added, Gone             []Function // those of either side only
}

// retyped is a column of a table of ours that follows the target's.
type retyped struct{ Table, Ident, From, To string }

// difference compares a target with what was printed of it. The error is a
// *[target.Error] where the change is none that a migration can make.
func difference(t target.Target, old, next printed) (changed, error) {
	switch {
	case old.Table != next.Table:
		return changed{}, t.Errorf("table", "target %s was printed for %s: its backups are of that; give the target of %s another name", t.Name, old.Table, next.Table)
	case old.Action != next.Action:
		return changed{}, t.Errorf("action", "target %s was printed with action %s: its backups are of that; give the target another name", t.Name, old.Action)
	case old.User != next.User:
		return changed{}, t.Errorf("user", "target %s was printed for the column %s: give the target of %s another name", t.Name, old.User, next.User)
	}
	c := changed{New: next.Model, Old: old.Model}
	var why []string
	follow := func(table string, had, has []Column) (all, added []Column) {
		all = slices.Clone(had)
		for _, column := range has {
			i := slices.IndexFunc(all, func(o Column) bool { return o.Name == column.Name })
			switch {
			case i < 0:
				all, added = append(all, column), append(added, column)
				why = append(why, "column "+column.Name)
			case all[i].Type != column.Type:
				c.Retyped = append(c.Retyped, retyped{table, column.Ident, all[i].Type, column.Type})
				why = append(why, "type of "+column.Name)
				all[i] = column
			}
		}
		return all, added
	}
	c.New.Audit, c.AddedAudit = follow(next.AuditTable(), old.Audit, next.Audit)
	c.New.Backup, c.AddedBackup = follow(next.BackupTable(), old.Backup, next.Backup)
	for _, f := range next.functions {
		switch i := named(old.functions, f.Name); {
		case i < 0:
			c.Added, c.After = append(c.Added, f), append(c.After, f)
		case old.functions[i] != f:
			c.After, c.Before = append(c.After, f), append(c.Before, old.functions[i])
			// CREATE OR REPLACE changes no result, and of other arguments it makes a second function.
			if before := old.functions[i]; before.signature() != f.signature() {
				c.Added, c.Gone = append(c.Added, f), append(c.Gone, before)
			}
		default:
			continue
		}
		why = append(why, strings.TrimPrefix(f.Name, t.Name+"_"))
	}
	for _, f := range old.functions {
		if named(next.functions, f.Name) < 0 {
			c.Gone, c.Before = append(c.Gone, f), append(c.Before, f)
			why = append(why, strings.TrimPrefix(f.Name, t.Name+"_"))
		}
	}
	if old.Retention != next.Retention {
		why = append(why, "retention")
	}
	if old.Limits != next.Limits {
		why = append(why, "limits")
	}
	if old.Window != next.Window {
		why = append(why, "backup window")
	}
	if old.Counts != next.Counts {
		why = append(why, "counter")
	}
	if old.Digest != next.Digest && len(why) == 0 {
		why = append(why, "digest")
	}
	slices.Sort(why)
	c.Why = strings.Join(slices.Compact(why), ", ")
	return c, nil
}

func named(functions []Function, name string) int {
	return slices.IndexFunc(functions, func(f Function) bool { return f.Name == name })
}
