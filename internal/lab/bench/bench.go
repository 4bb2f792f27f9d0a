package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/lab/document"
	"github.com/nova-social/orphan-cleaner/internal/lab/process"
	"github.com/nova-social/orphan-cleaner/internal/speed"
)

// Options say what is measured.
type Options struct {
	Product, Lab string // the programs
	Sizes        []Size
	Shares       []float64     // of dead users
	Source       string        // how auth-service is asked: grpc or sql
	P50, P99     time.Duration // of an answer of auth-service by gRPC; 0: at once
	Repeat       int
	RunsBefore   int // made in the worn database; 0: it is not measured
	Rate         int // the application's transactions a second; 0: it is not measured
	// Quiet is how long the application is measured alone.
	Quiet   time.Duration
	Version string
	// Say is told what is under way.
	Say func(format string, args ...any)
}

// ErrNotTheSame is returned when a program leaves other members than it has to, or
// deletes without the evidence that it owes.
var ErrNotTheSame = errors.New("the programs do not do the same work")

// bench is one under way.
type bench struct {
	*server
	Options
}

// Run measures everything on a throw-away PostgreSQL and auth-service. The report
// holds what was measured before an error, too.
func Run(ctx context.Context, options Options) (report Report, err error) {
	report = Report{
		Version: options.Version, Date: time.Now().UTC().Format(time.RFC3339), Repeat: options.Repeat, RunsBefore: options.RunsBefore,
		Source: options.Source, P50: options.P50.Seconds(), P99: options.P99.Seconds(), Cases: []Case{},
		Machine: Machine{OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version(), Settings: serverSettings()},
	}
	options.Say("Starting a throw-away PostgreSQL …")
	server, err := startServer(ctx)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, server.stop(context.WithoutCancel(ctx))) }()
	if err := server.admin.QueryRow(ctx, "SHOW server_version").Scan(&report.Machine.PostgreSQL); err != nil {
		return report, err
	}
	b := &bench{server, options}
	for _, size := range options.Sizes {
		cases, err := b.size(ctx, size)
		report.Cases = append(report.Cases, cases...)
		if err != nil {
			return report, err
		}
	}
	return report, nil
}

// size fills one database, from which those of each share are cloned.
func (b *bench) size(ctx context.Context, size Size) (cases []Case, err error) {
	b.Say("Filling %d conversations, %d members of %d users …", size.Conversations, size.Members, size.Users)
	base, err := b.fill(ctx, size)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.drop(ctx, base)) }()
	for i, share := range b.Shares {
		c, err := b.share(ctx, base, size, share, i == len(b.Shares)-1)
		if err != nil {
			return cases, fmt.Errorf("%s, %g %% dead: %w", size.Name, 100*share, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// share measures one share of dead users, and what the application feels where that
// is wanted of this one.
func (b *bench) share(ctx context.Context, base string, size Size, share float64, withApplication bool) (c Case, err error) {
	b.Say("%s members, %g %% of users dead: making the dead due …", document.Thousands(size.Members), 100*share)
	d := &dataset{size: size, dead: size.dead(share)}
	if d.auth, err = b.startAuthService(ctx, base, d); err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, d.auth.Stop()) }()
	defer func() { err = errors.Join(err, b.drop(ctx, d.fresh, d.worn, d.users)) }()
	if b.Source == "sql" {
		if err := b.fillUsers(ctx, d); err != nil {
			return c, err
		}
	}
	if err := b.makeDue(ctx, base, d); err != nil {
		return c, err
	}
	c, err = b.measure(ctx, d)
	c.Share = share
	if err == nil && withApplication && b.Rate > 0 {
		c.Application, err = b.beside(ctx, d)
	}
	return c, err
}

// sample is what was measured of one program.
type sample struct {
	seconds, own []float64
}

func (s *sample) timing() Timing {
	return Timing{Seconds: median(s.seconds), Min: speed.Quantile(s.seconds, 0), Max: speed.Quantile(s.seconds, 1), All: s.seconds, Own: median(s.own)}
}

// measure has the programs take turns.
func (b *bench) measure(ctx context.Context, d *dataset) (c Case, err error) {
	c = Case{
		Size: d.size, DeadUsers: d.dead, Doomed: d.doomed, Flags: loosen(),
		CallsExpected: calls(d.size.Users) + calls(d.dead),
	}
	var run, floor, worn sample
	for repetition := range b.Repeat {
		b.Say("  repetition %d of %d", repetition+1, b.Repeat)
		e, n, err := b.once(ctx, d, d.fresh, b.run, d.doomed, &run)
		if err != nil {
			return c, fmt.Errorf("measuring a run: %w", err)
		}
		c.PeakMemory, c.Calls = max(c.PeakMemory, e.PeakMemory), n
		if _, _, err = b.once(ctx, d, d.fresh, b.floor, 0, &floor); err != nil {
			return c, fmt.Errorf("measuring the floor: %w", err)
		}
		if d.worn == "" {
			continue
		}
		if _, _, err = b.once(ctx, d, d.worn, b.run, d.doomed, &worn); err != nil {
			return c, fmt.Errorf("measuring a run after others: %w", err)
		}
	}
	c.Run, c.Floor = run.timing(), floor.timing()
	c.ToFloor = c.Run.Seconds / c.Floor.Seconds
	if d.worn != "" {
		timing := worn.timing()
		c.Worn, c.WornToFresh = &timing, timing.Seconds/c.Run.Seconds
	}
	return c, nil
}

// calls is how many calls so many users take.
func calls(users int) int { return (users + 99) / 100 }

// program does its work on a database and says how many members it deleted.
type program func(ctx context.Context, d *dataset, name string, s *sample) (process.Ended, int64, error)

// once has a program do its work on a clone of its own, and compares what it left
// with what it had to. It returns the calls that auth-service counted.
func (b *bench) once(ctx context.Context, d *dataset, template string, do program, evidence int64, s *sample) (e process.Ended, counted int, err error) {
	name, err := b.clone(ctx, template)
	if err != nil {
		return e, 0, err
	}
	defer func() { err = errors.Join(err, b.drop(ctx, name)) }()
	if _, err := d.auth.Calls(); err != nil { // from here on
		return e, 0, err
	}
	e, deleted, err := do(ctx, d, name, s)
	if err != nil {
		return e, 0, err
	}
	if counted, err = d.auth.Calls(); err != nil {
		return e, 0, err
	}
	return e, counted, b.same(ctx, d, name, deleted, evidence)
}
