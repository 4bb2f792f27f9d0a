package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/lab/process"
)

// Exit statuses of the product.
const (
	exitUsage   = 2
	exitRefused = 3
)

// result is what the lab reads of the object that `run --json` ends with.
type result struct {
	RunID          int64   `json:"run_id"`
	State          string  `json:"state"`
	Breaker        string  `json:"breaker"`
	Error          string  `json:"error"`
	MembersDeleted int64   `json:"members_deleted"`
	Seconds        float64 `json:"seconds"`
}

func (b *bench) env(d *dataset, name string) []string {
	auth := d.auth.URL
	if d.users != "" {
		auth = b.cluster.URL(d.users)
	}
	return []string{"DATABASE_URL=" + b.cluster.URL(name), "AUTH_SERVICE_URL=" + auth}
}

// product makes a run, dry or not.
func (b *bench) product(ctx context.Context, d *dataset, name string, more ...string) (r result, e process.Ended, err error) {
	args := slices.Concat([]string{"run", "--json", "--log-level=error"}, loosen(), more)
	if e, err = process.Run(process.Command(ctx, b.env(d, name), b.Product, args...)); err != nil || e.Status == exitUsage {
		return r, e, err
	}
	if err := json.Unmarshal(e.Stdout, &r); err != nil {
		return r, e, fmt.Errorf("orphan-cleaner %s: exit status %d, %w\n%s", strings.Join(args, " "), e.Status, err, e.Stderr)
	}
	return r, e, nil
}

// loosen are the flags by which no breaker refuses a run: one that is refused has no
// speed.
func loosen() []string {
	return []string{
		"--max-new-missing-share=1", "--max-new-missing-rate=1", "--max-candidate-share=1", "--max-delete-share=1", "--max-delete-share-7d=1",
		"--max-delete-share-30d=1", "--max-delete-rows=1000000000", "--max-history=0", "--max-recently-active=1000000000",
	}
}

// runs makes so many runs that delete nobody.
func (b *bench) runs(ctx context.Context, d *dataset, name string, times int) error {
	for range times {
		r, e, err := b.product(ctx, d, name)
		if err != nil {
			return err
		}
		if r.State != "succeeded" || r.MembersDeleted != 0 {
			return fmt.Errorf("%w: a run before the measurement ended %s, with %d members deleted: %s", ErrNotTheSame, r.State, r.MembersDeleted, e.Stderr)
		}
	}
	return nil
}

// run is a [program].
func (b *bench) run(ctx context.Context, d *dataset, name string, s *sample) (process.Ended, int64, error) {
	r, e, err := b.product(ctx, d, name)
	if err == nil && r.State != "succeeded" {
		err = fmt.Errorf("the run ended %s: %s", r.State, e.Stderr)
	}
	s.seconds, s.own = append(s.seconds, e.Seconds), append(s.own, r.Seconds)
	return e, r.MembersDeleted, err
}

// floor is a [program].
func (b *bench) floor(ctx context.Context, d *dataset, name string, s *sample) (e process.Ended, deleted int64, err error) {
	if err := b.script(ctx, name, "switching the triggers off", triggersOffSQL, nil); err != nil {
		return e, 0, err
	}
	if e, err = b.done(process.Command(ctx, b.env(d, name), b.Lab, "floor")); err != nil {
		return e, 0, err
	}
	s.seconds = append(s.seconds, e.Seconds)
	deleted, err = strconv.ParseInt(strings.TrimSpace(string(e.Stdout)), 10, 64)
	return e, deleted, err
}
