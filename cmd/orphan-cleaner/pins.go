package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/suggest"
)

// LimitsCmd is `limits`.
type LimitsCmd struct {
	List  LimitsListCmd  `cmd:"" default:"withargs" help:"List each limit: the setting, its pin, what is in force, and who pinned it."`
	Pin   LimitsPinCmd   `cmd:"" help:"Pin limits in the database: a run's own can then only be stricter."`
	Unpin LimitsUnpinCmd `cmd:"" help:"Unpin limits: a run's own count again."`
}

// LimitsListCmd is `limits list`, and `limits` alone.
type LimitsListCmd struct {
	DatabaseFlags `group:"Database"`
	Retention     Duration `help:"How long a user must have been missing without interruption." env:"ORPHAN_CLEANER_RETENTION" default:"30d"`
	MaxGap        Duration `help:"A longer gap between sightings restarts a user's clock." env:"ORPHAN_CLEANER_MAX_GAP" default:"7d"`
	LimitFlags    `group:"Run"`
	JSON          bool `name:"json" help:"Print a JSON array."`
}

// limitLine is one limit; times are seconds.
type limitLine struct {
	Name      string     `json:"name"`
	Value     float64    `json:"value"` // of the flag, the environment or the default
	Pin       *float64   `json:"pin"`
	Effective float64    `json:"effective"`
	SetBy     *string    `json:"set_by"`
	SetAt     *time.Time `json:"set_at"`
}

// Run lists the limits as a run with the same settings would have them.
func (cmd *LimitsListCmd) Run(ctx context.Context, s *streams) error {
	lines, err := readLimits(ctx, &cmd.DatabaseFlags, &cmd.LimitFlags, cmd.Retention, cmd.MaxGap)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return printJSON(s.out, lines)
	}
	t := newTable("Limits: a pin makes a run's own stricter, never looser", "limit", "setting", "pin", "in force", "pinned by", "at (UTC)")
	for _, l := range lines {
		row := table.Row{l.Name, settings.BoundText(l.Name, l.Value), "", settings.BoundText(l.Name, l.Effective), "", ""}
		if l.Pin != nil {
			row[2], row[4], row[5] = settings.BoundText(l.Name, *l.Pin), *l.SetBy, l.SetAt.UTC().Format(time.DateTime)
		}
		t.AppendRow(row)
	}
	return printTable(s.out, t)
}

// readLimits are the limits of these flags beside what is pinned in the database.
func readLimits(ctx context.Context, to *DatabaseFlags, flags *LimitFlags, retention, maxGap Duration) ([]limitLine, error) {
	own := settings.Run{Retention: time.Duration(retention), MaxGap: time.Duration(maxGap)}
	var err error
	if own.Limits, err = flags.limits(); err != nil {
		return nil, err
	}
	pool, err := to.open(ctx)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	return pinned(ctx, pool, own)
}

// pinned are the limits of a run and their pins.
func pinned(ctx context.Context, pool *pgxpool.Pool, own settings.Run) ([]limitLine, error) {
	pins, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) ([]db.OrphanCleanerLimit, error) { return q.LimitList(ctx) })
	if err != nil {
		return nil, fmt.Errorf("reading the limits: %w", err)
	}
	return limitLines(own.Bounds(), pins), nil
}

func limitLines(bounds map[string]float64, pins []db.OrphanCleanerLimit) []limitLine {
	lines := make([]limitLine, 0, len(bounds))
	for _, name := range settings.BoundNames() {
		line := limitLine{Name: name, Value: bounds[name], Effective: bounds[name]}
		for _, pin := range pins {
			if pin.Name == name {
				line.Pin, line.SetBy, line.SetAt = &pin.Value, &pin.SetBy, &pin.SetAt
				line.Effective = settings.Stricter(name, line.Value, pin.Value)
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// LimitsPinCmd is `limits pin`.
type LimitsPinCmd struct {
	DatabaseFlags `group:"Database"`
	Pins          []string `arg:"" optional:"" name:"name=value" values:"limits=" help:"Such as retention=30d or delete-share=0.05."`
	Defaults      bool     `help:"Pin all limits at their defaults, but for those that are given."`
	JSONFlag
}

// Run pins all of them or none.
func (cmd *LimitsPinCmd) Run(ctx context.Context, s *streams) error {
	pins := map[string]float64{}
	if cmd.Defaults {
		pins = settings.DefaultRun().Bounds()
	}
	for i, pin := range cmd.Pins {
		name, value, err := parsePin(pin)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(cmd.Pins[:i], func(other string) bool { return strings.HasPrefix(other, name+"=") }) {
			return fmt.Errorf("%w: %s is given twice, and can have one pin: give it once", errUsage, name)
		}
		pins[name] = value
	}
	if len(pins) == 0 {
		return fmt.Errorf("%w: say what to pin: orphan-cleaner limits pin --defaults, or NAME=VALUE such as delete-share=0.05", errUsage)
	}
	err := cmd.change(ctx, func(ctx context.Context, q *db.Queries) error {
		for _, name := range settings.BoundNames() {
			value, is := pins[name]
			if !is {
				continue
			}
			if err := q.LimitPin(ctx, db.LimitPinParams{Name: name, Value: value}); err != nil {
				return fmt.Errorf("pinning %s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var lines []string
	for _, name := range settings.BoundNames() {
		if value, is := pins[name]; is {
			lines = append(lines, fmt.Sprintf("%s is pinned at %s", name, settings.BoundText(name, value)))
		}
	}
	return cmd.say(s, map[string]any{"pinned": pins}, "%s", strings.Join(lines, "\n"))
}

// parsePin reads NAME=VALUE.
func parsePin(text string) (name string, value float64, err error) {
	name, given, is := strings.Cut(text, "=")
	if !is {
		return "", 0, fmt.Errorf("%w: %q is not NAME=VALUE, such as delete-share=0.05", errUsage, text)
	}
	if err := knownLimit(name); err != nil {
		return "", 0, err
	}
	if settings.IsTime(name) {
		var lasting Duration
		if err := lasting.UnmarshalText([]byte(given)); err != nil {
			return "", 0, fmt.Errorf("%w: %s: %w", errUsage, name, err)
		}
		if name == "retention" && time.Duration(lasting) < day {
			return "", 0, fmt.Errorf("%w: retention is %s, under one day, which a pin does not allow: orphan-cleaner limits pin retention=1d, or unpin it", errUsage, given)
		}
		return name, time.Duration(lasting).Seconds(), nil
	}
	value, err = strconv.ParseFloat(given, 64)
	switch isShare := settings.IsShare(name); {
	case err != nil || math.IsInf(value, 0):
		return "", 0, fmt.Errorf("%w: %s: %q is not a number such as 0.05", errUsage, name, given)
	case isShare && !(value >= 0 && value <= 1):
		return "", 0, fmt.Errorf("%w: %s is %s, it must be a share: 0 to 1", errUsage, name, given)
	case name == "history" && value == 0:
		return "", 0, fmt.Errorf("%w: history 0 switches the breaker off, which cannot be pinned: orphan-cleaner limits unpin history", errUsage)
	case !(value >= 0):
		return "", 0, fmt.Errorf("%w: %s is %s, it must be 0 or more", errUsage, name, given)
	}
	return name, value, nil
}

// knownLimit refuses a name that is no limit, and names the one that was meant.
func knownLimit(name string) error {
	names := settings.BoundNames()
	if slices.Contains(names, name) {
		return nil
	}
	near := suggest.Nearest(strings.TrimPrefix(strings.ToLower(name), "max-"), names)
	if near == "" {
		return fmt.Errorf("%w: there is no limit %q; there are: %s", errUsage, name, strings.Join(names, ", "))
	}
	return fmt.Errorf("%w: there is no limit %q, did you mean %s? See: orphan-cleaner limits", errUsage, name, near)
}

// LimitsUnpinCmd is `limits unpin`.
type LimitsUnpinCmd struct {
	DatabaseFlags `group:"Database"`
	Names         []string `arg:"" name:"name" values:"limits" help:"Limits, from limits."`
	JSONFlag
}

// Run unpins all of them or none.
func (cmd *LimitsUnpinCmd) Run(ctx context.Context, s *streams) error {
	for _, name := range cmd.Names {
		if err := knownLimit(name); err != nil {
			return err
		}
	}
	err := cmd.change(ctx, func(ctx context.Context, q *db.Queries) error {
		for _, name := range cmd.Names {
			unpinned, err := q.LimitUnpin(ctx, name)
			if err != nil {
				return fmt.Errorf("unpinning %s: %w", name, err)
			}
			if unpinned == 0 {
				return fmt.Errorf("%w: %s is not pinned; see: orphan-cleaner limits", errUsage, name)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return cmd.say(s, map[string]any{"unpinned": cmd.Names}, "%s", strings.Join(cmd.Names, " is not pinned any more\n")+" is not pinned any more")
}

// change is one transaction.
func (f *DatabaseFlags) change(ctx context.Context, do func(ctx context.Context, q *db.Queries) error) error {
	pool, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	_, err = database.Once(ctx, pool, pgx.ReadWrite, func(ctx context.Context, q *db.Queries) (struct{}, error) { return struct{}{}, do(ctx, q) })
	return err
}
