package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/bench"
)

// BenchCmd is `bench`.
type BenchCmd struct {
	Size       []string `help:"150, 1500, 15000 (the runbook's, by members), 1m, 10m, or CONVERSATIONS/MEMBERS/USERS." default:"150,1500,15000,1m"`
	Latency    []string `help:"How long auth-service takes for an answer: 0, or P50/P99." default:"0,45ms/80ms"`
	Share      []string `help:"Percent of users that are dead, or own: as the runbook has it, and 10 of larger sizes." default:"own"`
	Methods    []string `help:"Those to compare, of: ours, row-at-a-time, row-at-a-time-no-pause, fdw, fdw-audited, floor. Without it all." placeholder:"NAME,..."`
	Repeat     int      `help:"Repetitions; the median counts." default:"3"`
	CallRepeat int      `help:"How often the runbook's table 5.1 is measured; 0: not at all." default:"100"`
	Neighbours int      `help:"Also play an application with so many transactions a second beside each method." placeholder:"RATE"`
	Durable    bool     `help:"Let PostgreSQL wait for the disk, as it does in production." default:"true" negatable:""`

	ComputeOver Duration `help:"Waits for answers and pauses that are longer are computed where they are one after the other." default:"1m"`
	NoMemory    bool     `help:"Do not measure the memory of a run in a process of its own."`

	JSONFile string `name:"json" help:"Write all figures to a file." placeholder:"FILE"`
	SVG      string `name:"svg" help:"Draw them to a file." placeholder:"FILE"`
	Markdown string `help:"Write the tables between the marks of a document." placeholder:"FILE"`

	ReadOnly      bool `help:"Measure the scan and the calls of your own database and auth-service; changes nothing."`
	DatabaseFlags `group:"Read-only: database"`
	AuthFlags     `group:"Read-only: auth-service"`
	CleanerFlags  `group:"Read-only: run"`
	LogFlags      `group:"Log"`
}

// neighbourQuiet is how long the application is measured alone.
const neighbourQuiet = 10 * time.Second

// Run measures on throw-away servers, or read-only on somebody's own.
func (cmd *BenchCmd) Run(ctx context.Context, s *streams) error {
	if cmd.Repeat < 1 || cmd.Repeat > 1000 || cmd.CallRepeat < 0 || cmd.CallRepeat > 100_000 || cmd.Neighbours < 0 || cmd.Neighbours > 100_000 {
		return fmt.Errorf("%w: --repeat must be 1 to 1000, --call-repeat and --neighbours 0 to 100000", errUsage)
	}
	if cmd.ReadOnly {
		return cmd.readOnly(ctx, s)
	}
	// The environment may well be set for the other commands.
	if slices.ContainsFunc(os.Args[1:], func(arg string) bool {
		return strings.HasPrefix(arg, "--database-url") || strings.HasPrefix(arg, "--auth-service-url")
	}) {
		return fmt.Errorf("%w: a bench makes databases of its own and deletes in them; for yours there is --read-only", errUsage)
	}
	options, err := cmd.options(s)
	if err != nil {
		return err
	}
	report, err := bench.Run(ctx, options)
	if err != nil && len(report.Cases) == 0 {
		return err
	}
	if err := printBench(s.out, report.Setup(), report.Tables()); err != nil {
		return err
	}
	if err != nil {
		// What was measured in hours is kept, but in no document.
		cmd.SVG, cmd.Markdown = "", ""
	}
	return errors.Join(err, cmd.write(report))
}

func (cmd *BenchCmd) options(s *streams) (options bench.Options, err error) {
	options = bench.Options{
		Repeat: cmd.Repeat, CallRepeat: cmd.CallRepeat, ComputeOver: time.Duration(cmd.ComputeOver), Durable: cmd.Durable,
		NeighbourRate: cmd.Neighbours, NeighbourQuiet: neighbourQuiet, Version: version,
		Say: func(format string, args ...any) { fmt.Fprintf(s.err, format+"\n", args...) },
	}
	var wrong []error
	options.Sizes = parsed(cmd.Size, bench.ParseSize, &wrong)
	options.Latencies = parsed[authfake.Latency](cmd.Latency, bench.ParseLatency, &wrong)
	options.Shares = parsed(cmd.Share, bench.ParseShare, &wrong)
	options.Methods = bench.Methods()
	if len(cmd.Methods) > 0 {
		options.Methods = parsed(cmd.Methods, bench.ParseMethod, &wrong)
	}
	if len(wrong) > 0 {
		return options, fmt.Errorf("%w: %w", errUsage, errors.Join(wrong...))
	}
	if cmd.NoMemory {
		return options, nil
	}
	if options.Program, err = os.Executable(); err != nil {
		return options, fmt.Errorf("looking for this program: %w", err)
	}
	options.ProgramEnv, err = withoutSettings(os.Environ())
	return options, err
}

func parsed[T any](texts []string, parse func(string) (T, error), wrong *[]error) []T {
	values := make([]T, 0, len(texts))
	for _, text := range texts {
		value, err := parse(strings.TrimSpace(text))
		if err != nil {
			*wrong = append(*wrong, err)
		}
		values = append(values, value)
	}
	return values
}

// withoutSettings leaves out of an environment what a run reads: the process that
// is measured goes by the defaults, as the others do.
func withoutSettings(env []string) ([]string, error) {
	parser, err := kong.New(&CLI{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, leaf := range parser.Model.Leaves(false) {
		for _, flag := range leaf.Flags {
			names = append(names, flag.Envs...)
		}
	}
	return slices.DeleteFunc(slices.Clone(env), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(names, name) || strings.HasPrefix(name, "PG")
	}), nil
}

func (cmd *BenchCmd) write(report bench.Report) error {
	if cmd.JSONFile != "" {
		if err := toFile(cmd.JSONFile, func(w io.Writer) error { return printJSON(w, report) }); err != nil {
			return err
		}
	}
	if cmd.SVG != "" {
		if err := toFile(cmd.SVG, report.WriteSVG); err != nil {
			return err
		}
	}
	if cmd.Markdown != "" {
		return report.WriteMarkdown(cmd.Markdown, cmd.SVG)
	}
	return nil
}

func toFile(path string, write func(w io.Writer) error) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return write(file)
}

// readOnly looks at the speed of somebody's own servers.
func (cmd *BenchCmd) readOnly(ctx context.Context, s *streams) error {
	cfg, err := cmd.config()
	if err != nil {
		return err
	}
	if _, err := cmd.url(); err != nil {
		return err
	}
	log := cmd.logger(s)
	client, err := cmd.dial(log)
	if err != nil {
		return err
	}
	defer closeClient(client, log)
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	report, err := bench.ReadOnly(ctx, pool, client, log, cfg, cmd.CallRepeat, authProbe(client, cmd.AuthServiceURL))
	if err != nil {
		return err
	}
	setup := fmt.Sprintf("Read-only: nothing was changed. %d users, %d members; verified in %.2f s: %.0f users a second, %d calls.",
		report.DryRun.UsersChecked, report.DryRun.MembersTotal, report.Phases["verify"], report.UsersPerSecond, report.DryRun.BatchCalls)
	if err := printBench(s.out, setup, report.Tables()); err != nil {
		return err
	}
	if cmd.JSONFile == "" {
		return nil
	}
	return toFile(cmd.JSONFile, func(w io.Writer) error { return printJSON(w, report) })
}

func figuresToTheRight(header []string) []table.ColumnConfig {
	configs := make([]table.ColumnConfig, 0, len(header))
	for i, name := range header {
		if name != "method" {
			configs = append(configs, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
		}
	}
	return configs
}

func printBench(w io.Writer, setup string, tables []bench.Table) error {
	if _, err := fmt.Fprintln(w, setup); err != nil {
		return err
	}
	for _, t := range tables {
		fmt.Fprintln(w)
		out := newTable(t.Title)
		t.Fill(out)
		out.SetColumnConfigs(figuresToTheRight(t.Header))
		if err := printTable(w, out); err != nil {
			return err
		}
		for _, note := range t.Notes {
			if _, err := fmt.Fprintln(w, " "+note); err != nil {
				return err
			}
		}
	}
	return nil
}
