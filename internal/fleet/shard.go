package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/blocked"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fence"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// Fleet is a file and what its shards are cleaned with.
type Fleet struct {
	File
	Settings settings.Run // of each shard's runs
	Users    run.Checker  // auth-service, one client for all
	Log      *slog.Logger
	// RangeCalls are made at most about a range of ids whose users are checked once. Default: 1000.
	RangeCalls int
	// Open connects to a shard, and Preflight is what a run of it checks first.
	Open      func(ctx context.Context, shard Shard) (*pgxpool.Pool, error)
	Preflight func(pool *pgxpool.Pool, log *slog.Logger, isDry bool) func(ctx context.Context) error
}

// Facts are what the breakers judge, of one shard or summed over all.
type Facts struct {
	UsersChecked int64 `json:"users_checked"`
	UsersAll     int64 `json:"users_all"` // with those whom this run did not check
	UsersNew     int64 `json:"users_new"`
	UsersActive  int64 `json:"users_active"`
	Candidates   int64 `json:"candidates"`

	Targets map[string]Rows `json:"targets"`
}

// Rows are those of a target, or of all.
type Rows struct {
	Due   int64 `json:"rows_due"`
	Total int64 `json:"rows_total"`
}

// Rows are the sums over all targets.
func (f Facts) Rows() (sum Rows) {
	for _, rows := range f.Targets {
		sum.Due, sum.Total = sum.Due+rows.Due, sum.Total+rows.Total
	}
	return sum
}

// Report is what became of one pass over one shard. Its JSON is kept with a fleet's run.
type Report struct {
	Shard string           `json:"shard"`
	Run   result.Run       `json:"run"`
	Facts *Facts           `json:"facts"` // of a first pass that came to its end, or nil
	Days  []db.HourDaysRow `json:"days"`
	// Verdict is what the error was, for who has only the JSON: one of those below.
	Verdict string `json:"verdict"`
	// Identity is of the database; nil: its login may not read it.
	Identity *db.ShardIdentityRow `json:"identity"`
}

// IsOther is whether two reports are certainly of two databases.
func (r *Report) IsOther(other *Report) bool {
	return r.Identity != nil && other.Identity != nil && r.Identity.Database != other.Identity.Database
}

// IsSame is whether two shards are certainly one database.
func IsSame(a, b *db.ShardIdentityRow) bool {
	return a != nil && b != nil && a.Database == b.Database && a.ServerSince.Equal(b.ServerSince)
}

// Identity is which database it is; nil: the login may not read that.
func Identity(ctx context.Context, pool *pgxpool.Pool, patience database.Patience) (*db.ShardIdentityRow, error) {
	identity, err := database.Do(ctx, pool, patience, pgx.ReadOnly, database.ReadLimit, "asking which database it is", func(ctx context.Context, q *db.Queries) (db.ShardIdentityRow, error) {
		return q.ShardIdentity(ctx)
	})
	switch {
	case database.Code(err) == database.NoPrivilege:
		return nil, nil //nolint:nilnil // as said above
	case err != nil:
		return nil, err
	}
	return &identity, nil
}

// What became of a pass. An approvable refusal is the shard's own business; one that
// doubts auth-service or the clock is everybody's.
const (
	Done       = "done"
	Incomplete = "incomplete"  // single users or rows are left for the next run
	Refused    = "refused"     // by the shard's own breaker
	Doubted    = "doubted"     // by one that nobody can approve
	Paused     = "paused"      // the shard is
	AnotherRun = "another-run" // is open: who cleans that shard is not this fleet
	Failed     = "failed"
)

func verdict(err error, ended result.Run) string {
	refusal, refused := errors.AsType[*result.Refusal](err)
	switch {
	case err == nil:
		return Done
	case refused && !settings.Approvable(refusal.Breaker):
		return Doubted
	case refused:
		return Refused
	case errors.Is(err, run.ErrPaused):
		return Paused
	case errors.Is(err, run.ErrAnotherRun):
		return AnotherRun
	case errors.Is(err, run.ErrIncomplete) && ended.UsersChecked > 0 && 10*ended.UsersUnknown <= ended.UsersChecked:
		return Incomplete
	default:
		return Failed
	}
}

// Verify is the first pass over a shard: a dry run, which changes nothing, and the facts
// that the sums are made of. It goes by the answers that there are; nil: by auth-service.
func (f *Fleet) Verify(ctx context.Context, shard Shard, answers *Answers) Report {
	return f.pass(ctx, shard, answers, nil, f.Settings)
}

// Sweep is the second pass: a run like any other, whose own breakers judge it, and whose
// limits are no wider than what the fleet has judged. It changes no database but that
// which was verified.
func (f *Fleet) Sweep(ctx context.Context, shard Shard, answers *Answers, verified *Report) Report {
	cfg := f.Settings
	cfg.Limits = bounded(cfg.Limits, verified.Facts)
	return f.pass(ctx, shard, answers, verified, cfg)
}

// bounded allows what happens between the passes: a user's rows more, a few users more.
func bounded(limits settings.Limits, judged *Facts) settings.Limits {
	stricter := maps.Clone(limits)
	if judged != nil {
		stricter["delete-rows"] = min(stricter["delete-rows"], float64(2*judged.Rows().Due+1000))
		stricter["new-missing-share"] = min(stricter["new-missing-share"], float64(2*judged.UsersNew+5)/math.Max(1, float64(judged.UsersChecked)))
	}
	return stricter
}

// pass makes one, and tells what became of it; verified is the report of the first one, or nil.
func (f *Fleet) pass(ctx context.Context, shard Shard, answers *Answers, verified *Report, cfg settings.Run) Report {
	log := f.Log.With("shard", shard.Name)
	report := f.made(ctx, shard, answers, verified, cfg, log)
	level, said := slog.LevelInfo, "Shard swept"
	if verified == nil {
		said = "Shard verified"
	}
	if report.Verdict != Done && report.Verdict != Paused {
		level = slog.LevelWarn
	}
	log.Log(ctx, level, said, "verdict", report.Verdict, "run_id", report.Run.RunID, //nolint:sloglint // one of two
		"users_checked", report.Run.UsersChecked, "users_new", report.Run.UsersNew, "members_due", report.Run.MembersDue, "members_deleted", report.Run.MembersDeleted, "error", report.Run.Error)
	return report
}

// made is the report of a pass.
func (f *Fleet) made(ctx context.Context, shard Shard, answers *Answers, verified *Report, cfg settings.Run, log *slog.Logger) Report {
	isDry := verified == nil
	cfg.DryRun = isDry
	report := Report{Shard: shard.Name, Days: []db.HourDaysRow{}}
	failed := func(err error) Report {
		report.Verdict = Failed
		report.Run = result.Run{DryRun: isDry, Blocked: []blocked.User{}}.Ended("failed", err, 0)
		return report
	}
	pool, err := f.Open(ctx, shard)
	if err != nil {
		return failed(err)
	}
	defer pool.Close()
	if report.Identity, err = Identity(ctx, pool, f.patience()); err != nil {
		return failed(err)
	}
	if !isDry && report.IsOther(verified) {
		return failed(fmt.Errorf("%s is another database here than the one that was verified: two fleets, or two versions of fleet.yaml, share the control database; hint: give all workers the same fleet.yaml, and each fleet a control database of its own", shard.Name))
	}
	seen := &collector{next: f.Users, canaries: slices.Concat(cfg.CanaryAlive, cfg.CanaryDead)}
	runner := run.New(pool, seen, log, cfg, f.Preflight(pool, log, isDry))
	if answers != nil {
		by := &told{answers: answers, next: f.Users}
		seen.next = by
		runner.Observe(by)
	}
	ended, err := runner.Run(ctx)
	report.Run, report.Verdict = ended, verdict(err, ended)
	if isDry && slices.Contains([]string{Done, Incomplete, Refused}, report.Verdict) {
		if err := f.facts(ctx, pool, cfg, seen.missing, &report); err != nil {
			report.Verdict = Failed
			report.Run = ended.Ended(fence.State(err), err, 0)
		}
	}
	return report
}

func (f *Fleet) patience() database.Patience {
	return database.Patience{Log: f.Log, Attempts: f.Settings.Attempts, LockTimeout: f.Settings.LockTimeout}
}

// facts adds to a report what its shard has to say to the breakers.
func (f *Fleet) facts(ctx context.Context, pool *pgxpool.Pool, cfg settings.Run, missing []uuid.UUID, report *Report) error {
	_, err := database.Do(ctx, pool, f.patience(), pgx.ReadOnly, database.ReadLimit, "summing up the shard", func(ctx context.Context, q *db.Queries) (none struct{}, err error) {
		sum, err := run.Assess(ctx, q, cfg, missing)
		if err != nil {
			return none, err
		}
		facts := Facts{
			UsersChecked: report.Run.UsersChecked, UsersAll: report.Run.UsersChecked, UsersNew: sum.UsersNewJudged, UsersActive: sum.UsersActive,
			Candidates: sum.CandidatesJudged, Targets: map[string]Rows{},
		}
		for i, target := range report.Run.Targets {
			facts.Targets[target.Name] = Rows{Due: sum.RowsDueJudged[i], Total: target.RowsTotal}
		}
		switch state, err := q.CoverageState(ctx); {
		case err == nil:
			facts.UsersAll = max(facts.UsersAll, state.Users)
		case !errors.Is(err, pgx.ErrNoRows):
			return none, err
		}
		days, err := q.HourDays(ctx)
		for _, day := range days { // where a part was checked, the rows of the others
			if rows, is := facts.Targets[day.Target]; is && day.DaysAgo == days[0].DaysAgo {
				facts.Targets[day.Target] = Rows{Due: rows.Due, Total: max(rows.Total, day.RowsTotal)}
			}
		}
		report.Facts, report.Days = &facts, append([]db.HourDaysRow{}, days...)
		return none, err
	})
	return err
}

// collector notes who is missing, without canaries, which are no users of a shard.
type collector struct {
	next     run.Checker
	canaries []uuid.UUID

	mu      sync.Mutex
	missing []uuid.UUID
}

func (c *collector) Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	missing, err := c.next.Missing(ctx, ids)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range missing {
		if !slices.Contains(c.canaries, id) {
			c.missing = append(c.missing, id)
		}
	}
	return missing, err
}
