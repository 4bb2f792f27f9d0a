package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/nova-social/orphan-cleaner/internal/lab/content"
)

//go:embed dead.sql
var deadSQL string

//go:embed miscounted.sql
var miscountedSQL string

//go:embed early.sql
var earlySQL string

// rowsEach is how many rows a user has in each table of the content service.
const rowsEach = 3

// playTargets makes targets of the tables of a page, a run over all of them, and a restore.
func (d *demo) playTargets(ctx context.Context) (err error) {
	if err := d.product(ctx, "migrate", "up"); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "orphan-cleaner-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	if err := d.service.Write(d.dir); err != nil {
		return err
	}
	if err := d.product(ctx, "target", "print", content.File, "--dir", content.Folder); err != nil {
		return err
	}
	if err := d.product(ctx, "target", "apply", "--dir", content.Folder); err != nil {
		return err
	}
	rows, _ := d.conn.Query(ctx, deadSQL) // its error is that of the rows
	dead, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("reading who is dead: %w", err)
	}
	before, err := content.States(ctx, d.conn, dead)
	if err != nil {
		return err
	}
	if _, err := d.auth.Calls(); err != nil {
		return err
	}
	start := time.Now()
	if err := d.product(ctx, "run", "--targets", content.File); err != nil {
		return err
	}
	took := time.Since(start)
	calls, err := d.auth.Calls()
	if err != nil {
		return err
	}
	d.say("That took %.2f s and %d calls for %d tables.", took.Seconds(), calls, 1+len(before))
	cleaned, err := content.States(ctx, d.conn, dead)
	if err != nil {
		return err
	}
	if err := d.figures(before, cleaned); err != nil {
		return err
	}
	var wrong int64
	if err := d.conn.QueryRow(ctx, miscountedSQL).Scan(&wrong); err != nil || wrong > 0 {
		return errors.Join(fmt.Errorf("%d posts have a wrong count", wrong), err)
	}
	d.say("The counts of likes and comments of each post are right.")
	run, err := d.lastRun(ctx)
	if err != nil {
		return err
	}
	if err := d.product(ctx, "restore", "--run", run, "--execute"); err != nil {
		return err
	}
	restored, err := content.States(ctx, d.conn, dead)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(before, restored, func(a, b content.State) bool { return a.AllRows == b.AllRows }) {
		return errors.New("what was restored is not what was there")
	}
	d.say("Each row of each of these tables is as it was before the run.")
	return nil
}

// figures says what a run did, by the lab's own count; it is an error where it touched a row of others.
func (d *demo) figures(before, after []content.State) error {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options.DrawBorder, t.Style().Options.SeparateColumns = false, false
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"", "rows", "of the dead", "done", "audited", "backed up", "kept longer"})
	for i, b := range before {
		a := after[i]
		if a.OfOthers != b.OfOthers {
			return fmt.Errorf("rows of the living in %s are not what they were", a.Target)
		}
		t.AppendRow(table.Row{a.Target, b.Open, b.OfUsers, b.Open - a.Open, a.Audited, a.BackedUp, a.OfUsers})
	}
	d.say("%s", t.Render())
	return nil
}
