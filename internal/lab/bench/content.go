package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/lab/content"
	"github.com/nova-social/orphan-cleaner/internal/lab/document"
	"github.com/nova-social/orphan-cleaner/internal/lab/process"
)

// rowsEach is how many rows a user has in each table of the content service.
const rowsEach = 2

// Content is what a run over the tables of a page costs beside floors, one for each table
// and one after another.
type Content struct {
	Tables, Users, Dead int
	Rows, Due           int64
	Calls, Expected     int
	Run, Floors         Cost
	Restore             Cost // of the run
}

// RunContent measures that, for so many users of whom a share is dead.
func RunContent(ctx context.Context, options Options, page string, users int, share float64) (c Content, err error) {
	service, err := content.Read(page)
	if err != nil {
		return c, err
	}
	options.Say("Starting a throw-away PostgreSQL …")
	server, err := startServer(ctx)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, server.stop(context.WithoutCancel(ctx))) }()
	b, size := &bench{server, options}, Size{Users: users}
	d := &dataset{size: size, dead: size.dead(share)}
	c.Users, c.Dead, c.Expected = users, d.dead, calls(users)+calls(d.dead)
	b.Say("Filling %d tables with %d rows of each of %d users, making %d of them due …", 5, rowsEach, users, d.dead)
	if err := b.fillContent(ctx, d, service.Unlimited()); err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, d.auth.Stop()) }()
	before, err := b.states(ctx, d, d.fresh)
	if err != nil {
		return c, err
	}
	c.Tables = len(before)
	for _, s := range before {
		c.Rows, c.Due = c.Rows+s.Open, c.Due+s.OfUsers
	}
	for repetition := range b.Repeat {
		b.Say("  repetition %d of %d", repetition+1, b.Repeat)
		if err := b.contentRun(ctx, d, before, &c, repetition == 0); err != nil {
			return c, fmt.Errorf("measuring a run: %w", err)
		}
		if err := b.contentFloors(ctx, d, before, &c.Floors); err != nil {
			return c, fmt.Errorf("measuring the floors: %w", err)
		}
	}
	return c, nil
}

// fillContent makes the tables, targets of them, and the dead due.
func (b *bench) fillContent(ctx context.Context, d *dataset, service content.Service) (err error) {
	if d.fresh, err = b.fill(ctx, d.size); err != nil {
		return err
	}
	if err := b.on(ctx, d.fresh, func(conn *pgx.Conn) error { return service.Fill(ctx, conn, rowsEach) }); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "orphan-cleaner-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := service.Write(dir); err != nil {
		return err
	}
	for _, args := range [][]string{{"target", "print", content.File, "--dir", content.Folder}, {"target", "apply", "--dir", content.Folder}} {
		cmd := process.Command(ctx, []string{"DATABASE_URL=" + b.cluster.URL(d.fresh)}, b.Product, args...)
		cmd.Dir = dir
		if _, err := b.done(cmd); err != nil {
			return err
		}
	}
	if d.auth, err = b.startAuthService(ctx, d.fresh, d); err != nil {
		return err
	}
	if err = b.runs(ctx, d, d.fresh, 1); err == nil {
		err = b.script(ctx, d.fresh, "moving the clocks back", dueSQL, nil)
	}
	if err == nil {
		err = b.vacuum(ctx, d.fresh)
	}
	if err != nil {
		err = errors.Join(err, d.auth.Stop())
	}
	return err
}

// contentRun measures a run on a clone of its own, and its restore where that is wanted.
func (b *bench) contentRun(ctx context.Context, d *dataset, before []content.State, c *Content, restore bool) (err error) {
	name, err := b.warm(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.drop(ctx, name)) }()
	if _, err := d.auth.Calls(); err != nil { // from here on
		return err
	}
	var r result
	if err := b.cost(&c.Run, func() (e process.Ended, err error) {
		r, e, err = b.product(ctx, d, name)
		if err == nil && r.State != "succeeded" {
			err = fmt.Errorf("the run ended %s: %s", r.State, e.Stderr)
		}
		return e, err
	}); err != nil {
		return err
	}
	if c.Calls, err = d.auth.Calls(); err != nil {
		return err
	}
	if err := b.sameContent(ctx, d, name, before, true); err != nil || !restore {
		return err
	}
	b.Say("  restoring it")
	if err := b.cost(&c.Restore, func() (process.Ended, error) {
		return b.done(process.Command(ctx, b.env(d, name), b.Product, "restore", "--run", strconv.FormatInt(r.RunID, 10), "--execute"))
	}); err != nil {
		return err
	}
	after, err := b.states(ctx, d, name)
	for i, s := range after {
		if s.AllRows != before[i].AllRows {
			err = errors.Join(err, fmt.Errorf("%w: %s is not restored to what it was", ErrNotTheSame, s.Target))
		}
	}
	return err
}

// contentFloors measures the floors on a clone of their own.
func (b *bench) contentFloors(ctx context.Context, d *dataset, before []content.State, cost *Cost) (err error) {
	name, err := b.warm(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.drop(ctx, name)) }()
	if err := b.script(ctx, name, "switching the triggers off", contentTriggersOffSQL, nil); err != nil {
		return err
	}
	if err := b.cost(cost, func() (all process.Ended, err error) {
		for _, s := range before {
			args := []string{"floor", "--table=public." + s.Target}
			if s.Target == "posts" {
				args = append(args, "--mark")
			}
			e, err := b.done(process.Command(ctx, b.env(d, name), b.Lab, args...))
			if err != nil {
				return all, err
			}
			all.Seconds, all.CPU = all.Seconds+e.Seconds, all.CPU+e.CPU
		}
		return all, nil
	}); err != nil {
		return err
	}
	return b.sameContent(ctx, d, name, before, false)
}

// done runs a command that must succeed.
func (b *bench) done(cmd *exec.Cmd) (process.Ended, error) {
	e, err := process.Run(cmd)
	if err == nil && e.Status != 0 {
		err = fmt.Errorf("%s ended with %d: %s", strings.Join(cmd.Args, " "), e.Status, e.Stderr)
	}
	return e, err
}

// warm is a clone whose tables were read.
func (b *bench) warm(ctx context.Context, d *dataset) (name string, err error) {
	if name, err = b.create(ctx, d.fresh); err == nil {
		_, err = b.states(ctx, d, name)
	}
	return name, err
}

func (b *bench) states(ctx context.Context, d *dataset, name string) (states []content.State, err error) {
	err = b.on(ctx, name, func(conn *pgx.Conn) error {
		rows, _ := conn.Query(ctx, deadSQL, d.dead) // its error is that of the rows
		dead, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err == nil {
			states, err = content.States(ctx, conn, dead)
		}
		return err
	})
	return states, err
}

// sameContent is an [ErrNotTheSame] unless all rows of the dead are done, each with
// evidence where it is owed, and no row of others was touched.
func (b *bench) sameContent(ctx context.Context, d *dataset, name string, before []content.State, evidence bool) error {
	after, err := b.states(ctx, d, name)
	if err != nil {
		return err
	}
	for i, s := range after {
		owed := before[i].OfUsers
		if !evidence {
			owed = 0
		}
		if s.OfUsers != 0 || before[i].Open-s.Open != before[i].OfUsers || s.OfOthers != before[i].OfOthers || s.Audited != owed || s.BackedUp != owed {
			return fmt.Errorf("%w: %+v after %+v", ErrNotTheSame, s, before[i])
		}
	}
	return nil
}

// ToFloors is how much longer the run took than the floors together, by their medians.
func (c Content) ToFloors() float64 { return median(c.Run.Wall) / median(c.Floors.Wall) }

// Text is the report for a terminal.
func (c Content) Text() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s rows in %d tables, of %s users; %s rows of %s dead users done, no other; each is audited and backed up, and restored as it was.\n",
		document.Thousands(c.Rows), c.Tables, document.Thousands(c.Users), document.Thousands(c.Due), document.Thousands(c.Dead))
	fmt.Fprintf(&text, "Calls: %s; expected: %s. Medians of %d repetitions.\n\n", document.Thousands(c.Calls), document.Thousands(c.Expected), len(c.Run.Wall))
	t := newTable("Seconds", "", "wall", "least", "most", "CPU", "PostgreSQL's CPU", "CPU in all")
	for _, row := range []struct {
		name string
		Cost
	}{{"run", c.Run}, {"floors", c.Floors}, {"restore", c.Restore}} {
		timing := (&sample{seconds: row.Wall}).timing()
		t.AppendRow([]any{row.name, seconds(timing.Seconds), seconds(timing.Min), seconds(timing.Max), seconds(median(row.CPU)), seconds(median(row.Server)), seconds(median(row.CPU) + median(row.Server))})
	}
	fmt.Fprintf(&text, "%s\n\nrun / floors: %.2f by the clock, %.2f by CPU.\n", t.Render(), c.ToFloors(),
		(median(c.Run.CPU)+median(c.Run.Server))/(median(c.Floors.CPU)+median(c.Floors.Server)))
	return text.String()
}
