package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
)

// Options say what is measured.
type Options struct {
	Sizes     []Size
	Shares    []float64 // of dead users, or OwnShare
	Latencies []authfake.Latency
	Methods   []Method
	Repeat    int
	// CallRepeat is how often table 5.1 is measured; 0: not at all.
	CallRepeat int
	// ComputeOver is how long the waits of one repetition of a serial method, for
	// answers and pauses, may be before they are computed.
	ComputeOver time.Duration
	// Cluster is what all is measured on; nil: one of its own, which writes as in
	// production where Durable is set.
	Cluster *pgtemp.Cluster
	Durable bool
	// NeighbourRate is how many transactions a second the application makes beside
	// a sweep; 0: none. NeighbourQuiet is how long before it.
	NeighbourRate  int
	NeighbourQuiet time.Duration
	// Program is orphan-cleaner, to be run by itself for its peak memory, with this
	// environment; empty: not measured.
	Program    string
	ProgramEnv []string
	Version    string
	// Say is told what is under way.
	Say func(format string, args ...any)
}

// ErrNotTheSame is returned when a method leaves other members than it should, or
// deletes without the evidence that it claims. Nothing is timed then.
var ErrNotTheSame = errors.New("the methods do not do the same work")

// bench is one under way.
type bench struct {
	*lab
	Options
	cfg cleaner.Config
}

// Run measures everything on a throw-away PostgreSQL and auth-service.
func Run(ctx context.Context, options Options) (report Report, err error) {
	cfg := cleaner.DefaultConfig()
	if cfg.SchemaVersion, err = migrate.Latest(); err != nil {
		return report, err
	}
	cfg.Host, cfg.Version, cfg.Settings = "bench", options.Version, []byte("{}")
	options.Say("Starting a throw-away PostgreSQL and auth-service …")
	lab, err := openLab(ctx, options.Cluster, options.Durable)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, lab.close()) }()
	b := &bench{lab, options, cfg}
	if report, err = b.introduce(ctx); err != nil {
		return report, err
	}
	if options.CallRepeat > 0 {
		options.Say("Asking about 10 to 1000 users, %d times each …", options.CallRepeat)
		if report.Calls, err = b.callTable(ctx); err != nil {
			return report, err
		}
	}
	for _, size := range options.Sizes {
		for _, share := range size.shares(options.Shares) {
			cases, err := b.data(ctx, size, share)
			report.Cases = append(report.Cases, cases...)
			if err != nil {
				return report, err
			}
		}
	}
	return report, nil
}

func (b *bench) introduce(ctx context.Context) (Report, error) {
	report := Report{
		Version: b.Version, Date: time.Now().UTC().Format(time.RFC3339), Repeat: b.Repeat,
		BatchSize: b.cfg.BatchSize, Concurrent: b.cfg.Concurrency,
		Machine: Machine{
			OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version(),
			Durable: b.Durable, Settings: serverSettings(),
		},
	}
	err := b.admin.QueryRow(ctx, "SHOW server_version").Scan(&report.Machine.PostgreSQL)
	return report, err
}

// data measures one size and share, by every latency.
func (b *bench) data(ctx context.Context, size Size, share float64) (cases []CaseResult, err error) {
	b.Say("Filling %d conversations, %d members of %d users, %.1f %% of them dead …", size.Conversations, size.Members, size.Users, 100*share)
	d, err := b.fill(ctx, size, share)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.forget(context.WithoutCancel(ctx), d)) }()
	b.auth.SetLatency(authfake.Latency{})
	if err := b.loosen(ctx, d); err != nil {
		return nil, fmt.Errorf("making a dry run: %w", err)
	}
	checked, err := b.check(ctx, d)
	if err != nil {
		return nil, err
	}
	for _, latency := range b.Latencies {
		c, err := b.measure(ctx, d, latency, checked)
		if err != nil {
			return cases, err
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// first is what the untimed run of a method found out.
type first struct {
	outcome Outcome
	calls   int
	held    Held
}

// check has each method do its work once, unmeasured, and compares what it left
// with what it should have. It is the warm-up too, and the one that is watched.
func (b *bench) check(ctx context.Context, d *dataset) (map[string]first, error) {
	checked := map[string]first{}
	for _, m := range b.Methods {
		if _, measured := find(b.Methods, m.Base); measured {
			continue // without its pause, it is the same
		}
		b.Say("  checking what %s leaves", m.Name)
		var f first
		name, err := b.clone(ctx, d)
		if err == nil {
			f.held, err = watched(ctx, b.admin, name, func() (err error) {
				f.outcome, f.calls, _, err = b.once(ctx, d, m, name, 0)
				return err
			})
		}
		if err == nil {
			err = b.same(ctx, d, m, name, f.outcome)
		}
		if err = errors.Join(err, b.drop(context.WithoutCancel(ctx), name)); err != nil {
			return nil, fmt.Errorf("checking %s: %w", m.Name, err)
		}
		checked[m.Name] = f
	}
	for _, m := range b.Methods {
		if base, measured := find(b.Methods, m.Base); measured {
			checked[m.Name] = checked[base.Name]
		}
	}
	return checked, nil
}

// same is an [ErrNotTheSame] unless a method left what it should, with the
// evidence that it should.
func (b *bench) same(ctx context.Context, d *dataset, m Method, name string, outcome Outcome) error {
	return b.on(ctx, name, func(conn *pgx.Conn) error {
		var left survivors
		if err := conn.QueryRow(ctx, survivorsSQL).Scan(&left.Members, &left.Fingerprint); err != nil {
			return fmt.Errorf("looking who is left: %w", err)
		}
		if left != d.expected {
			return fmt.Errorf("%w: %s left %d members (sum %s), not the %d (sum %s) of living users",
				ErrNotTheSame, m.Name, left.Members, left.Fingerprint, d.expected.Members, d.expected.Fingerprint)
		}
		if outcome.Deleted != d.doomed {
			return fmt.Errorf("%w: %s says it deleted %d members, not %d", ErrNotTheSame, m.Name, outcome.Deleted, d.doomed)
		}
		var audited, backedUp, want int64
		if m.Audited {
			want = d.doomed
		}
		if err := conn.QueryRow(ctx, evidenceSQL).Scan(&audited, &backedUp); err != nil {
			return fmt.Errorf("looking for evidence: %w", err)
		}
		if audited != want || backedUp != want {
			return fmt.Errorf("%w: %s audited %d and backed up %d members, not %d", ErrNotTheSame, m.Name, audited, backedUp, want)
		}
		return nil
	})
}

// once has a method do its work on a clone, and times it.
func (b *bench) once(ctx context.Context, d *dataset, m Method, name string, pause time.Duration) (Outcome, int, time.Duration, error) {
	if err := b.on(ctx, name, func(conn *pgx.Conn) error { return b.prepare(ctx, d, m, conn) }); err != nil {
		return Outcome{}, 0, 0, err
	}
	pool, err := database.Open(ctx, b.cluster.URL(name), 0, 8)
	if err != nil {
		return Outcome{}, 0, 0, err
	}
	defer pool.Close()
	cfg := b.cfg
	cfg.Limits = d.limits
	runtime.GC() // what the one before left is not for this one to clear away
	b.auth.ResetCalls()
	start := time.Now()
	outcome, err := m.Do(ctx, Subject{Pool: pool, Client: b.client, Config: cfg, Pause: pause})
	return outcome, b.auth.Calls(), time.Since(start), err
}

// prepare warms a clone up: who connects first writes PostgreSQL's own caches, and
// who reads first fills its memory.
func (b *bench) prepare(ctx context.Context, d *dataset, m Method, conn *pgx.Conn) error {
	var members int64
	if err := conn.QueryRow(ctx, countMembersSQL).Scan(&members); err != nil {
		return fmt.Errorf("warming up: %w", err)
	}
	if m.Prepare == nil {
		return nil
	}
	return m.Prepare(ctx, conn, map[string]string{
		"bench.port": strconv.Itoa(b.cluster.Port()), "bench.socket": b.cluster.SocketDir(), "bench.auth": d.auth,
	})
}

// timing collects the repetitions of one method in one case.
type timing struct {
	seconds  []float64
	computed float64
	calls    int
	deleted  int64
	phases   map[string][]float64
}

func (b *bench) measure(ctx context.Context, d *dataset, latency authfake.Latency, checked map[string]first) (CaseResult, error) {
	c := CaseResult{
		Size: d.size, Share: d.share, DeadUsers: d.dead, Doomed: d.doomed, Loosened: d.loosened,
		P50: latency.P50.Seconds(), P99: latency.P99.Seconds(),
	}
	timings := map[string]*timing{}
	for _, m := range b.Methods {
		timings[m.Name] = &timing{phases: map[string][]float64{}}
	}
	for repetition := range b.Repeat {
		b.Say("  answers after %s: repetition %d of %d", latency.P50, repetition+1, b.Repeat)
		// Each begins once, so that coming first or last is nobody's lot.
		turn := repetition % len(b.Methods)
		for _, m := range slices.Concat(b.Methods[turn:], b.Methods[:turn]) {
			if timings[m.Base] != nil && b.computed(m, latency, checked[m.Name]) > 0 {
				continue
			}
			if err := b.repeat(ctx, d, m, latency, checked[m.Name], timings[m.Name]); err != nil {
				return c, fmt.Errorf("measuring %s: %w", m.Name, err)
			}
		}
	}
	for _, m := range b.Methods {
		if waits := b.computed(m, latency, checked[m.Name]); timings[m.Base] != nil && waits > 0 {
			timings[m.Name] = timings[m.Base].with(waits)
		}
		held := checked[m.Name].held
		c.Methods = append(c.Methods, timings[m.Name].result(m, &held))
	}
	if base, ok := c.of(floorName); ok {
		for i := range c.Methods {
			c.Methods[i].ToFloor = c.Methods[i].Seconds / base.Seconds
		}
	}
	err := b.extras(ctx, d, latency, &c)
	return c, err
}

// computed is how long a method waits for answers and pauses, where that is too
// long to be waited out, else 0.
func (b *bench) computed(m Method, latency authfake.Latency, f first) time.Duration {
	if !m.Serial {
		return 0
	}
	waits := time.Duration(f.calls)*latency.P50 + time.Duration(f.outcome.Pauses)*m.Pause
	if waits <= b.ComputeOver {
		return 0
	}
	return waits
}

// repeat is one repetition of one method, on a clone of its own.
func (b *bench) repeat(ctx context.Context, d *dataset, m Method, latency authfake.Latency, f first, t *timing) (err error) {
	pause := m.Pause
	if waits := b.computed(m, latency, f); waits > 0 {
		latency, pause = authfake.Latency{}, 0
		t.computed = waits.Seconds()
	}
	name, err := b.clone(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.drop(context.WithoutCancel(ctx), name)) }()
	b.auth.SetLatency(latency)
	outcome, calls, took, err := b.once(ctx, d, m, name, pause)
	if err != nil {
		return err
	}
	if outcome.Deleted != d.doomed {
		return fmt.Errorf("%w: %d members deleted, not %d", ErrNotTheSame, outcome.Deleted, d.doomed)
	}
	t.seconds = append(t.seconds, took.Seconds()+t.computed)
	t.calls, t.deleted = calls, outcome.Deleted
	for phase, took := range outcome.Phases {
		t.phases[phase] = append(t.phases[phase], took.Seconds())
	}
	return nil
}

// with is the same with other waits.
func (t *timing) with(waits time.Duration) *timing {
	other := *t
	other.computed, other.seconds = waits.Seconds(), nil
	for _, seconds := range t.seconds {
		other.seconds = append(other.seconds, seconds-t.computed+other.computed)
	}
	return &other
}

func (t *timing) result(m Method, held *Held) MethodResult {
	r := MethodResult{
		Method: m.Name, Audited: m.Audited, Seconds: median(t.seconds), Min: slices.Min(t.seconds), Max: slices.Max(t.seconds),
		All: t.seconds, Computed: t.computed, Calls: t.calls, Deleted: t.deleted, Held: held,
	}
	if len(t.phases) > 0 {
		r.Phases = map[string]float64{}
		for phase := range maps.Keys(t.phases) {
			r.Phases[phase] = median(t.phases[phase])
		}
	}
	return r
}

// extras are measured once per case, apart from the clock: what a process of our
// own takes of memory, and what the application feels.
func (b *bench) extras(ctx context.Context, d *dataset, latency authfake.Latency, c *CaseResult) error {
	b.auth.SetLatency(latency)
	for i, m := range b.Methods {
		r := &c.Methods[i]
		if m.Name == "ours" && b.Program != "" {
			b.Say("  a run as a process of its own, for its memory")
			if err := b.apart(ctx, d, r); err != nil {
				return fmt.Errorf("measuring the memory of a run: %w", err)
			}
		}
		if b.NeighbourRate > 0 && r.Computed == 0 {
			b.Say("  %s beside the application", m.Name)
			if err := b.beside(ctx, d, m, r); err != nil {
				return fmt.Errorf("measuring %s beside the application: %w", m.Name, err)
			}
		}
	}
	return nil
}

// scratch is a directory that is gone afterwards.
func scratch(use func(dir string) error) (err error) {
	dir, err := os.MkdirTemp("", "orphan-cleaner-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return use(dir)
}
