package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/fleet/queue"
	"github.com/nova-social/orphan-cleaner/internal/telemetry"
)

// FleetRunCmd is `fleet run`.
type FleetRunCmd struct {
	FleetRunFlags
	PublishFlags `group:"Report"`
	JSON         bool `name:"json" help:"End with one JSON object on stdout."`
}

// Run makes one run of the fleet.
func (cmd *FleetRunCmd) Run(ctx context.Context, s *streams) error {
	limitMemory()
	outlets, err := cmd.outlets()
	if err != nil {
		return err
	}
	of, c, closed, err := cmd.fleet(ctx, s)
	if err != nil {
		return err
	}
	defer closed()
	makeRun := of.Run
	if c != nil {
		worker, err := queue.NewWorker(of, c, queue.Options{})
		if err != nil {
			return err
		}
		makeRun = worker.Run
	}
	registry, began := prometheus.NewRegistry(), time.Now()
	reporter := telemetry.NewReporter(outlets, registry, instance(), of.Log)
	reporter.Began(ctx)
	ended, err := makeRun(ctx)
	if database.Code(err) == queue.AnotherFleet {
		err = fmt.Errorf("%w: %w", errUsage, err)
	}
	err = cmd.show(s, of.Log, ended, err)
	if told := errors.Join(registry.Register(queue.OneRun(began, time.Duration(cmd.Interval), ended)), registry.Register(telemetry.BuildInfo(version))); told != nil {
		return errors.Join(err, fmt.Errorf("registering the metrics: %w", told))
	}
	reporter.Ended(ctx, exitStatus(err), fleetLine(ended))
	return err
}

// show tells how the run ended, in the log and on stdout.
func (cmd *FleetRunCmd) show(s *streams, log *slog.Logger, ended fleet.Result, err error) error {
	logFleet(log, ended, err)
	tell := func() error { return printFleet(s.out, ended) }
	if ended.Sums.Targets == nil { // no shard came to its end
		ended.Sums.Targets = map[string]fleet.Rows{}
	}
	if cmd.JSON {
		tell = func() error { return printJSONLine(s.out, ended) }
	}
	if printErr := tell(); printErr != nil {
		return errors.Join(err, fmt.Errorf("writing the result: %w", printErr))
	}
	if err != nil {
		return shownError{err}
	}
	return nil
}

// fleetLine is a run in one line, for a human elsewhere.
func fleetLine(r fleet.Result) string {
	return oneLineOf(fmt.Sprintf("run %d of the fleet %s: %d shards, %d users checked, %.1f s", r.FleetRun, r.State, len(r.Shards), r.Sums.UsersChecked, r.Seconds), r.Error)
}

func logFleet(log *slog.Logger, r fleet.Result, err error) {
	log = log.With("fleet_run", r.FleetRun, "state", r.State, "shards", len(r.Shards), "waves", r.Waves,
		"users_checked", r.Sums.UsersChecked, "users_new", r.Sums.UsersNew, "rows_due", r.Sums.Rows().Due, "seconds", fmt.Sprintf("%.1f", r.Seconds))
	if err != nil {
		log.Error("The run of the fleet did not succeed", "error", err)
		return
	}
	log.Info("The run of the fleet succeeded")
}

// printFleet is a line per shard.
func printFleet(w io.Writer, r fleet.Result) error {
	t := newTable("", "shard", "wave", "first pass", "sweep", "checked", "new", "due", "deleted")
	for _, p := range r.Shards {
		line := table.Row{p.Name, p.Wave, "", "", "", "", "", ""}
		if v := p.Verified; v != nil {
			line[2], line[4], line[5], line[6] = v.Verdict, v.Run.UsersChecked, v.Run.UsersNew, v.Run.MembersDue
		}
		if w := p.Swept; w != nil {
			line[3], line[7] = w.Verdict, w.Run.MembersDeleted
		}
		t.AppendRow(line)
	}
	s := &sheet{to: w}
	s.table(t)
	for _, p := range r.Shards {
		for _, report := range []*fleet.Report{p.Verified, p.Swept} {
			if report != nil && report.Run.Error != "" {
				s.line("%s: %s", p.Name, shown(report.Run.Error))
			}
		}
	}
	return s.print()
}
