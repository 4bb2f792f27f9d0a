package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/speed"
	"github.com/nova-social/orphan-cleaner/internal/wait"
)

// applicationClients are the application's connections.
const applicationClients = 4

// felt is what the application's transactions took, in milliseconds.
type felt struct{ alone, beside []float64 }

// beside has pgbench play the application at a fixed rate, first alone and then beside
// a run, as often as everything else is repeated. The 99th percentiles are those of
// all transactions: one repetition has some dozen that are slower.
func (b *bench) beside(ctx context.Context, d *dataset) (*Application, error) {
	var all felt
	var run sample
	for repetition := range b.Repeat {
		b.Say("  the application beside a run: repetition %d of %d", repetition+1, b.Repeat)
		if err := b.play(ctx, d, &all, &run); err != nil {
			return nil, fmt.Errorf("measuring the application beside a run: %w", err)
		}
	}
	a := &Application{Rate: b.Rate, Alone: latencyOf(all.alone), Beside: latencyOf(all.beside), Run: median(run.seconds)}
	a.P99Ratio = a.Beside.P99 / a.Alone.P99
	return a, nil
}

// play is one repetition, on a clone of its own.
func (b *bench) play(ctx context.Context, d *dataset, all *felt, run *sample) (err error) {
	name, err := b.clone(ctx, d.fresh)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.drop(ctx, name)) }()
	dir, err := os.MkdirTemp("", "orphan-cleaner-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	pgbench, output, err := b.pgbench(ctx, d, name, dir)
	if err != nil {
		return err
	}
	began := time.Now()
	err = wait.For(ctx, b.Quiet)
	from := time.Now()
	if err == nil {
		_, _, err = b.run(ctx, d, name, run)
	}
	to := time.Now()
	// By this signal of its own clock pgbench ends its time, and writes its log to the end.
	err = errors.Join(err, pgbench.Process.Signal(syscall.SIGALRM))
	if waitErr := pgbench.Wait(); err == nil && waitErr != nil {
		err = fmt.Errorf("playing the application: %w\n%s", waitErr, bytes.TrimSpace(output.Bytes()))
	}
	if err != nil {
		return err
	}
	// The first second is for connecting and warming up.
	return readLogs(dir, func(t transaction) {
		switch {
		case t.due.After(began.Add(time.Second)) && t.done.Before(from):
			all.alone = append(all.alone, t.milliseconds)
		case t.done.After(from) && t.due.Before(to):
			all.beside = append(all.beside, t.milliseconds)
		}
	})
}

// pgbench starts the application: eight reads of a member list to one join and one leave.
func (b *bench) pgbench(ctx context.Context, d *dataset, name, dir string) (*exec.Cmd, *bytes.Buffer, error) {
	args := []string{
		"--no-vacuum", "--protocol=prepared", "--client=" + strconv.Itoa(applicationClients), "--rate=" + strconv.Itoa(b.Rate),
		"--time=86400", "--log", "--log-prefix=" + filepath.Join(dir, "log"), "--define=dead=" + strconv.Itoa(d.dead),
	}
	for setting, value := range d.size.settings() {
		args = append(args, "--define="+strings.TrimPrefix(setting, "bench.")+"="+value)
	}
	for _, file := range []struct{ name, text, weight string }{
		{"join.sql", applicationJoinSQL, "1"}, {"leave.sql", applicationLeaveSQL, "1"}, {"list.sql", applicationListSQL, "8"},
	} {
		path := filepath.Join(dir, file.name)
		if err := os.WriteFile(path, []byte(file.text), 0o600); err != nil {
			return nil, nil, err
		}
		args = append(args, "--file="+path+"@"+file.weight)
	}
	args = append(args, "--host="+b.cluster.SocketDir(), "--port="+strconv.Itoa(b.cluster.Port()), "--username=postgres", name)
	cmd := exec.CommandContext(ctx, filepath.Join(b.cluster.BinDir(), "pgbench"), args...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting pgbench (is postgresql-contrib installed?): %w", err)
	}
	return cmd, &output, nil
}

// transaction is a line of pgbench's log. Its time counts from when it was due.
type transaction struct {
	due, done    time.Time
	milliseconds float64
}

func readLogs(dir string, each func(transaction)) error {
	logs, err := filepath.Glob(filepath.Join(dir, "log.*"))
	if err != nil {
		return err
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			t, err := parseTransaction(line)
			if err != nil {
				return err
			}
			each(t)
		}
	}
	return nil
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
		Transactions: len(milliseconds), P50: speed.Quantile(milliseconds, 0.50), P99: speed.Quantile(milliseconds, 0.99), Max: speed.Quantile(milliseconds, 1),
	}
}
