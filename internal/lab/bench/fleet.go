package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/internal/lab/process"
)

// FleetCase is a fleet of equal databases, cleaned by so many processes that share its run.
type FleetCase struct {
	Shards, Workers int
	Seconds, CPU    []float64 // of each repetition, seen from outside; the CPU of the processes, not the server's
}

// fleets are measured against the first one with as many workers.
func fleets() []struct{ shards, workers int } {
	return []struct{ shards, workers int }{{1, 1}, {4, 1}, {12, 1}, {1, 3}, {4, 3}, {12, 3}}
}

// Fleet measures fleets of the first size and the last share, on a throw-away server.
func Fleet(ctx context.Context, options Options) (text string, err error) {
	options.RunsBefore = 0
	options.Say("Starting a throw-away PostgreSQL …")
	server, err := startServer(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, server.stop(context.WithoutCancel(ctx))) }()
	b := &bench{server, options}
	size := options.Sizes[0]
	options.Say("Filling %d members of %d users …", size.Members, size.Users)
	base, err := b.fill(ctx, size)
	if err != nil {
		return "", err
	}
	d := &dataset{size: size, dead: size.dead(options.Shares[len(options.Shares)-1])}
	if d.auth, err = b.startAuthService(ctx, base, d); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.auth.Stop()) }()
	if err := b.makeDue(ctx, base, d); err != nil {
		return "", err
	}
	cases := make([]FleetCase, len(fleets()))
	for repetition := range options.Repeat {
		for i, of := range fleets() {
			options.Say("  repetition %d of %d: %d shards, %d workers", repetition+1, options.Repeat, of.shards, of.workers)
			cases[i].Shards, cases[i].Workers = of.shards, of.workers
			if err := b.fleet(ctx, d, &cases[i]); err != nil {
				return "", fmt.Errorf("%d shards, %d workers: %w", of.shards, of.workers, err)
			}
		}
	}
	return fleetText(size, d, cases)
}

// fleet has the processes clean clones, all in the first wave, and looks at what each lost.
func (b *bench) fleet(ctx context.Context, d *dataset, c *FleetCase) (err error) {
	dir, err := os.MkdirTemp("", "fleet")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	control, err := b.create(ctx, "")
	if err != nil {
		return err
	}
	names := []string{control}
	defer func() { err = errors.Join(err, b.drop(ctx, names...)) }()
	file := fmt.Sprintf("control_url_file: control\nshards: {directory: shards}\nwaves: [%d]\nworkers: 1\n"+
		"limits: {new-missing-share: 1, new-missing-rate: 1, candidate-share: 1, delete-share: 1, delete-share-7d: 1, delete-share-30d: 1, delete-rows: 1e9, history: 0, recently-active: 1e9}\n", c.Shards)
	path := filepath.Join(dir, "fleet.yaml")
	err = errors.Join(os.Mkdir(filepath.Join(dir, "shards"), 0o700), os.WriteFile(path, []byte(file), 0o600), os.WriteFile(filepath.Join(dir, "control"), []byte(b.cluster.URL(control)), 0o600))
	for i := 0; err == nil && i < c.Shards; i++ {
		var name string
		if name, err = b.clone(ctx, d.fresh); err == nil {
			names = append(names, name)
			err = os.WriteFile(filepath.Join(dir, "shards", name), []byte(b.cluster.URL(name)), 0o600)
		}
	}
	if err != nil {
		return err
	}
	run := func(args ...string) (process.Ended, error) {
		return b.done(process.Command(ctx, []string{"AUTH_SERVICE_URL=" + d.auth.URL, "ORPHAN_CLEANER_FLEET=" + path}, b.Product, args...))
	}
	if _, err := run("fleet", "migrate"); err != nil {
		return err
	}
	ended := make([]process.Ended, c.Workers)
	var workers errgroup.Group
	for i := range ended {
		workers.Go(func() (err error) {
			ended[i], err = run(append([]string{"fleet", "run", "--json", "--log-level=error"}, loosen()...)...)
			return err
		})
	}
	if err := workers.Wait(); err != nil {
		return err
	}
	var seconds, cpu float64
	for _, e := range ended {
		seconds, cpu = max(seconds, e.Seconds), cpu+e.CPU
	}
	c.Seconds, c.CPU = append(c.Seconds, seconds), append(c.CPU, cpu)
	for _, name := range names[1:] {
		if err := b.same(ctx, d, name, d.doomed, d.doomed); err != nil {
			return err
		}
	}
	return nil
}

func fleetText(size Size, d *dataset, cases []FleetCase) (string, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "%d members in each database, %d of them due; medians; to one shard: time a row against that of one shard with as many workers\n\n", size.Members, d.doomed)
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "shards\tworkers\tseconds\tµs a row\tto one shard\tCPU s\tCPU µs a row\tto one shard\t")
	for _, c := range cases {
		row := func(seconds []float64, of FleetCase) float64 {
			return 1e6 * median(seconds) / float64(of.Shards*size.Members)
		}
		one := cases[0]
		if c.Workers != one.Workers {
			one = cases[len(cases)/2]
		}
		fmt.Fprintf(t, "%d\t%d\t%.1f\t%.1f\t%.2f\t%.1f\t%.1f\t%.2f\t\n", c.Shards, c.Workers, median(c.Seconds), row(c.Seconds, c), row(c.Seconds, c)/row(one.Seconds, one),
			median(c.CPU), row(c.CPU, c), row(c.CPU, c)/row(one.CPU, one))
	}
	err := t.Flush()
	return text.String(), err
}
