package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/internal/fence"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

// Progress is how far a run of the fleet is with one shard.
type Progress struct {
	Name     string  `json:"shard"`
	Wave     int     `json:"wave"` // from 1; 0: in none so far
	Verified *Report `json:"verified"`
	Swept    *Report `json:"swept"`
}

// Result is what a run of the fleet did. Its JSON form is a contract.
type Result struct {
	FleetRun int64      `json:"fleet_run"` // 0: without a control database
	State    string     `json:"state"`
	Breaker  *string    `json:"breaker"`
	Error    string     `json:"error,omitempty"`
	Sums     Facts      `json:"sums"`
	Waves    int        `json:"waves"` // that were begun
	Seconds  float64    `json:"seconds"`
	Shards   []Progress `json:"shards"`
}

// maxLostShare of the shards may stay without a valid first pass: more, and the sums say
// too little. One may always.
const maxLostShare = 0.10

// Run makes both passes in this process, over Workers shards at once.
func (f *Fleet) Run(ctx context.Context) (Result, error) {
	began := time.Now()
	shards := make([]Progress, len(f.Shards))
	for i, shard := range f.Shards {
		shards[i].Name = shard.Name
	}
	var answers *Answers
	var err error
	if f.Once {
		answers, err = f.askAll(ctx)
	}
	if err == nil {
		err = f.each(ctx, shards, nil, func(ctx context.Context, shard Shard, p *Progress) {
			report := f.Verify(ctx, shard, answers)
			p.Verified = &report
		})
	}
	var sums Facts
	for err == nil {
		var wave []string
		if wave, sums, err = f.Next(ctx, shards, Approved{}); err != nil || len(wave) == 0 {
			break
		}
		err = f.each(ctx, shards, wave, func(ctx context.Context, shard Shard, p *Progress) {
			report := f.Sweep(ctx, shard, answers, p.Verified)
			p.Swept = &report
		})
	}
	return Ended(shards, sums, err, time.Since(began)), err
}

// each does one thing with the shards that are named, or with all.
func (f *Fleet) each(ctx context.Context, shards []Progress, names []string, do func(ctx context.Context, shard Shard, p *Progress)) error {
	Each(f.Shards, f.Workers, func(i int, shard Shard) error {
		if ctx.Err() == nil && (names == nil || slices.Contains(names, shard.Name)) {
			do(ctx, shard, &shards[i])
		}
		return nil
	})
	if ctx.Err() != nil {
		return run.ErrInterrupted
	}
	return nil
}

// Each does one thing with every shard, with at most so many at once, and returns what
// came of it in their order.
func Each[T any](shards []Shard, atOnce int, do func(i int, shard Shard) T) []T {
	results := make([]T, len(shards))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, shard := range shards {
		group.Go(func() error {
			results[i] = do(i, shard)
			return nil
		})
	}
	_ = group.Wait() // nothing here returns an error
	return results
}

// Next judges what is known so far and gives the shards of the next wave their number.
// Without an error and without names the run has come to its end.
func (f *Fleet) Next(ctx context.Context, shards []Progress, approved Approved) (names []string, sums Facts, err error) {
	var verified []*Progress
	for i := range shards {
		p := &shards[i]
		if p.Verified == nil {
			return nil, sums, fmt.Errorf("shard %s is not verified yet", p.Name)
		}
		if p.Verified.Verdict == Doubted {
			return nil, sums, &result.Refusal{Breaker: *p.Verified.Run.Breaker, Message: fmt.Sprintf("shard %s: %s", p.Name, p.Verified.Run.Error), OfFleet: true}
		}
		if p.Verified.Facts == nil {
			continue
		}
		if i := slices.IndexFunc(verified, func(other *Progress) bool { return IsSame(other.Verified.Identity, p.Verified.Identity) }); i >= 0 {
			return nil, sums, fmt.Errorf("%w: shards %s and %s are the same database, which would be counted twice: nothing is swept; hint: remove one of them from %s",
				run.ErrIncomplete, verified[i].Name, p.Name, f.Path)
		}
		verified = append(verified, p)
	}
	lost := len(shards) - len(verified)
	if len(verified) == 0 || lost > 1 && float64(lost) > maxLostShare*float64(len(shards)) {
		return nil, sums, fmt.Errorf("%w: %d of %d shards could not be verified, nothing is swept: %s; hint: orphan-cleaner fleet check",
			run.ErrIncomplete, lost, len(shards), firstError(shards))
	}
	if sums, err = f.judge(ctx, verified, approved); err != nil {
		return nil, sums, err
	}
	// The shards that refuse themselves come last: nobody waits for their health.
	slices.SortStableFunc(verified, func(a, b *Progress) int { return rank(a) - rank(b) })
	wave := 0
	for _, p := range verified {
		wave = max(wave, p.Wave)
	}
	if sick := unhealthy(verified, wave); sick != nil && slices.ContainsFunc(verified, func(p *Progress) bool { return p.Wave == 0 }) {
		return nil, sums, fmt.Errorf("%w: shard %s of wave %d is %s, the next wave is not begun: %s; hint: orphan-cleaner fleet status",
			run.ErrIncomplete, sick.Name, wave, sick.Swept.Verdict, sick.Swept.Run.Error)
	}
	most := len(verified)
	if wave < len(f.Waves) {
		most = f.Waves[wave]
	}
	for _, p := range verified {
		if p.Wave == 0 && len(names) < most {
			p.Wave = wave + 1
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		err = leftOver(shards)
	}
	return names, sums, err
}

func rank(p *Progress) int {
	if p.Verified.Verdict == Refused {
		return 1
	}
	return 0
}

// unhealthy is a shard of the wave whose sweep is no reason to go on, or nil. That a shard
// refuses what it refused in the first pass is no news, and a pause is somebody's wish.
func unhealthy(verified []*Progress, wave int) *Progress {
	for _, p := range verified {
		if p.Wave != wave || wave == 0 || p.Swept == nil {
			continue
		}
		switch p.Swept.Verdict {
		case Done, Incomplete, Paused:
		case Refused:
			if p.Verified.Verdict != Refused {
				return p
			}
		default:
			return p
		}
	}
	return nil
}

// leftOver is an error where a shard refused, or is left for the next run.
func leftOver(shards []Progress) error {
	var refused, left []string
	for _, p := range shards {
		switch last := p.last(); last.Verdict {
		case Done, Paused:
		case Refused, Doubted:
			refused = append(refused, p.Name)
		default:
			left = append(left, p.Name)
		}
	}
	switch {
	case len(refused) > 0:
		return fmt.Errorf("%w of their own: shards %s; hint: orphan-cleaner status with the URL of that shard", result.ErrRefused, strings.Join(refused, ", "))
	case len(left) > 0:
		return fmt.Errorf("%w: shards %s are left for the next run: %s; hint: orphan-cleaner fleet check", run.ErrIncomplete, strings.Join(left, ", "), firstError(shards))
	}
	return nil
}

// last is the report of the pass that was made last.
func (p *Progress) last() *Report {
	if p.Swept != nil {
		return p.Swept
	}
	return p.Verified
}

func firstError(shards []Progress) string {
	for i := range shards {
		if last := shards[i].last(); last != nil && last.Verdict != Done && last.Run.Error != "" {
			return shards[i].Name + ": " + last.Run.Error
		}
	}
	return "no error was told"
}

// Ended is the result of a run that came to an end, with an error or without.
func Ended(shards []Progress, sums Facts, err error, took time.Duration) Result {
	r := Result{State: fence.State(err, run.ErrIncomplete, run.ErrInterrupted), Sums: sums, Seconds: took.Seconds(), Shards: append([]Progress{}, shards...)}
	if refusal, is := errors.AsType[*result.Refusal](err); is {
		r.Breaker = &refusal.Breaker
	}
	if err != nil {
		r.Error = err.Error()
	}
	for _, p := range shards {
		r.Waves = max(r.Waves, p.Wave)
	}
	return r
}
