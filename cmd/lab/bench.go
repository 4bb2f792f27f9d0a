package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/lab/bench"
	"github.com/nova-social/orphan-cleaner/internal/lab/process"
)

// BenchCmd is `bench`.
type BenchCmd struct {
	Size       []string      `help:"Members: 150, 1500, 15000 (the runbook's), 1m or 10m." default:"15000,1m"`
	Share      []string      `help:"Percent of users that are dead. The application is measured with the last of them." default:"0,0.1,1,10"`
	Source     string        `help:"How auth-service is asked, by the floor, too: grpc or sql." enum:"grpc,sql" default:"grpc"`
	P50        time.Duration `name:"p50" help:"Median of the time that auth-service takes for an answer; 0: at once."`
	P99        time.Duration `name:"p99" help:"Its 99th percentile."`
	Repeat     int           `help:"Repetitions; the median counts." default:"5"`
	RunsBefore int           `help:"Runs that a database has made before one is measured beside a fresh one; 0: not measured." default:"50"`
	Rate       int           `help:"Transactions a second of the application beside a run; 0: not measured." default:"200"`
	Targets    string        `help:"Instead, a run over the tables of this page beside floors, one for each table: docs/targets.md." placeholder:"PAGE"`
	Users      int           `help:"Users, with --targets; 3 in 100 are dead." default:"100000"`
	JSONFile   string        `name:"json" help:"Write all figures to a file." placeholder:"FILE"`
	SVG        string        `help:"Draw them to a file." placeholder:"FILE"`
	Markdown   string        `help:"Write the tables between the marks of a document." placeholder:"FILE"`
	Fleet      bool          `help:"Measure fleets of 1, 4 and 12 databases of the first size and the last share instead, with 1 and 3 workers."`
	Program    string        `help:"The built orphan-cleaner. Without it the one beside this program." placeholder:"FILE"`
}

// applicationAlone is how long the application is measured without a run.
const applicationAlone = 10 * time.Second

// contentDead is the share of dead users of --targets.
const contentDead = 0.03

// Run measures and shows.
func (cmd *BenchCmd) Run(ctx context.Context, s *streams) error {
	options, err := cmd.options(s)
	if err != nil {
		return err
	}
	if cmd.Fleet {
		text, err := bench.Fleet(ctx, options)
		if err == nil {
			_, err = io.WriteString(s.out, text)
		}
		return err
	}
	if cmd.Targets != "" {
		c, err := bench.RunContent(ctx, options, cmd.Targets, cmd.Users, contentDead)
		if err != nil {
			return err
		}
		_, err = io.WriteString(s.out, c.Text())
		return err
	}
	report, err := bench.Run(ctx, options)
	if len(report.Cases) == 0 {
		return err
	}
	if err != nil {
		// What was measured in hours is kept, but in no document.
		cmd.SVG, cmd.Markdown = "", ""
	}
	if _, writeErr := io.WriteString(s.out, report.Text()); writeErr != nil {
		return errors.Join(err, writeErr)
	}
	return errors.Join(err, cmd.write(report))
}

func (cmd *BenchCmd) options(s *streams) (o bench.Options, err error) {
	if cmd.Repeat < 1 || cmd.RunsBefore < 0 || cmd.Rate < 0 || cmd.P50 < 0 || cmd.P99 < 0 {
		return o, errors.New("--repeat must be 1 or more, --runs-before, --rate, --p50 and --p99 0 or more")
	}
	o = bench.Options{
		Source: cmd.Source, P50: cmd.P50, P99: cmd.P99, Repeat: cmd.Repeat, RunsBefore: cmd.RunsBefore, Rate: cmd.Rate, Quiet: applicationAlone, Version: version,
		Say: func(format string, args ...any) { fmt.Fprintf(s.err, format+"\n", args...) },
	}
	for _, text := range cmd.Size {
		size, err := bench.ParseSize(strings.TrimSpace(text))
		if err != nil {
			return o, err
		}
		o.Sizes = append(o.Sizes, size)
	}
	for _, text := range cmd.Share {
		share, err := bench.ParseShare(strings.TrimSpace(text))
		if err != nil {
			return o, err
		}
		o.Shares = append(o.Shares, share)
	}
	if o.Product, err = process.Product(cmd.Program); err != nil {
		return o, err
	}
	o.Lab, err = os.Executable()
	return o, err
}

func (cmd *BenchCmd) write(report bench.Report) error {
	if cmd.JSONFile != "" {
		text, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(cmd.JSONFile, append(text, '\n'), 0o644); err != nil { //nolint:gosec // figures, for everybody
			return err
		}
	}
	if cmd.SVG != "" {
		file, err := os.Create(cmd.SVG)
		if err != nil {
			return err
		}
		if err := errors.Join(report.WriteSVG(file), file.Close()); err != nil {
			return err
		}
	}
	if cmd.Markdown == "" {
		return nil
	}
	return report.WriteMarkdown(cmd.Markdown, cmd.SVG)
}
