package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/wait"
)

// neighbourClients are the application's connections.
const neighbourClients = 4

// felt is what the application's transactions took, in milliseconds.
type felt struct{ quiet, swept []float64 }

// beside has pgbench play the application at a fixed rate, first alone and then
// beside a sweep, as often as everything else is repeated; and once more before, which
// is watched and not measured: watching is felt, too. The 99th percentiles
// are those of all transactions: one repetition has some dozen that are slower.
func (b *bench) beside(ctx context.Context, d *dataset, m Method, r *MethodResult) error {
	n := &Neighbours{Rate: b.NeighbourRate}
	var all felt
	for i := range 1 + b.Repeat {
		isWatched := i == 0
		name, err := b.clone(ctx, d)
		if err != nil {
			return err
		}
		err = scratch(func(dir string) error {
			if isWatched {
				n.Held, err = watched(ctx, b.admin, name, func() error {
					_, err := b.play(ctx, d, m, name, dir, r.Seconds)
					return err
				})
				return err
			}
			once, err := b.play(ctx, d, m, name, dir, r.Seconds)
			all.quiet, all.swept = append(all.quiet, once.quiet...), append(all.swept, once.swept...)
			return err
		})
		if err := errors.Join(err, b.drop(context.WithoutCancel(ctx), name)); err != nil {
			return err
		}
	}
	n.Quiet, n.Swept = latencyOf(all.quiet), latencyOf(all.swept)
	r.Neighbours = n
	return nil
}

// play expects the sweep to take about so many seconds.
func (b *bench) play(ctx context.Context, d *dataset, m Method, name, dir string, expected float64) (once felt, err error) {
	// As if it took three times as long: beside others it takes longer. What they feel
	// of a sweep that takes longer still, this has heard by then.
	seconds := int(math.Ceil(b.NeighbourQuiet.Seconds()+3*expected)) + 2
	args := []string{
		"--no-vacuum", "--protocol=prepared", "--client=" + strconv.Itoa(neighbourClients),
		"--rate=" + strconv.Itoa(b.NeighbourRate), "--time=" + strconv.Itoa(seconds), "--log", "--log-prefix=" + filepath.Join(dir, "log"),
	}
	for name, value := range d.settings() {
		args = append(args, "--define="+strings.TrimPrefix(name, "bench.")+"="+value)
	}
	for _, file := range []struct{ name, text, weight string }{
		{"join.sql", neighbourJoinSQL, "1"}, {"leave.sql", neighbourLeaveSQL, "1"}, {"list.sql", neighbourListSQL, "8"},
	} {
		path := filepath.Join(dir, file.name)
		if err := os.WriteFile(path, []byte(file.text), 0o600); err != nil {
			return once, err
		}
		args = append(args, "--file="+path+"@"+file.weight)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(b.cluster.BinDir(), "pgbench"),
		append(args, "--host="+b.cluster.SocketDir(), "--port="+strconv.Itoa(b.cluster.Port()), "--username=postgres", name)...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return once, fmt.Errorf("starting pgbench (is postgresql-contrib installed?): %w", err)
	}
	began := time.Now()
	sweep, err := b.sweepBeside(ctx, d, m, name)
	if err != nil {
		err = errors.Join(err, cmd.Cancel())
	}
	if waitErr := cmd.Wait(); err == nil && waitErr != nil {
		err = fmt.Errorf("playing the application: %w\n%s", waitErr, bytes.TrimSpace(output.Bytes()))
	}
	if err != nil {
		return once, err
	}
	logs, err := filepath.Glob(filepath.Join(dir, "log.*"))
	if err != nil {
		return once, err
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			return once, err
		}
		for line := range strings.Lines(string(text)) {
			t, err := parseTransaction(line)
			if err != nil {
				return once, err
			}
			switch {
			// The first second is for connecting and warming up.
			case t.due.After(began.Add(time.Second)) && t.done.Before(sweep.from):
				once.quiet = append(once.quiet, t.milliseconds)
			case t.done.After(sweep.from) && t.due.Before(sweep.to):
				once.swept = append(once.swept, t.milliseconds)
			}
		}
	}
	return once, nil
}

// span is when a sweep was under way.
type span struct{ from, to time.Time }

func (b *bench) sweepBeside(ctx context.Context, d *dataset, m Method, name string) (during span, err error) {
	if err := wait.For(ctx, b.NeighbourQuiet); err != nil {
		return during, err
	}
	_, _, took, err := b.once(ctx, d, m, name, m.Pause)
	during.to = time.Now()
	during.from = during.to.Add(-took)
	return during, err
}

// transaction is a line of pgbench's log. Its time counts from when it was due.
type transaction struct {
	due, done    time.Time
	milliseconds float64
}

// parseTransaction reads client, number, time in us, script, epoch, us, lag in us.
func parseTransaction(line string) (transaction, error) {
	fields := strings.Fields(line)
	var n [6]int64
	var err error
	if len(fields) < len(n) {
		err = errors.New("too few fields")
	}
	for i := range n {
		if err == nil {
			n[i], err = strconv.ParseInt(fields[i], 10, 64)
		}
	}
	if err != nil {
		return transaction{}, fmt.Errorf("reading pgbench's log: %w in %q", err, line)
	}
	done := time.UnixMicro(n[4]*1_000_000 + n[5])
	return transaction{done.Add(-time.Duration(n[2]) * time.Microsecond), done, float64(n[2]) / 1000}, nil
}

func latencyOf(milliseconds []float64) Latency {
	return Latency{
		Transactions: len(milliseconds), P50: quantile(milliseconds, 0.50), P99: quantile(milliseconds, 0.99), Max: quantile(milliseconds, 1),
	}
}
