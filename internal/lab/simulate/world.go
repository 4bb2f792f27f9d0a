package simulate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// world is messaging-service's table and who of its users lives. Hours count from
// the beginning.
type world struct {
	pool   *pgxpool.Pool
	random *rand.Rand

	rows          int // at the beginning
	conversations int
	readers       bool // users read messages; else last_read_at is never written
	hour          int

	users []uuid.UUID         // living, in no order
	reads map[uuid.UUID]int32 // hours between readings; 0: never
	alive map[uuid.UUID]int   // place in users
	lost  map[uuid.UUID]bool
	seen  map[uuid.UUID]bool // were lost, now or earlier

	canaries []uuid.UUID // live on
}

// in is the same world in a copy of its database.
func (w *world) in(pool *pgxpool.Pool) *world {
	other := *w
	other.pool, other.users, other.reads, other.alive = pool, slices.Clone(w.users), maps.Clone(w.reads), maps.Clone(w.alive)
	other.random, other.lost, other.seen = newRandom(2), map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	return &other
}

// newRandom draws the same each time.
func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 15)) }

func newWorld(pool *pgxpool.Pool, rows int, readers bool) *world {
	return &world{
		pool: pool, random: newRandom(1),
		rows: rows, conversations: max(rows/8, 30), readers: readers,
		reads: map[uuid.UUID]int32{}, alive: map[uuid.UUID]int{}, lost: map[uuid.UUID]bool{}, seen: map[uuid.UUID]bool{},
	}
}

// Missing is what auth-service says; it is [run.Checker].
func (w *world) Missing(_ context.Context, ids []uuid.UUID) (missing []uuid.UUID, _ error) {
	for _, id := range ids {
		if _, alive := w.alive[id]; !alive || w.lost[id] {
			missing = append(missing, id)
		}
	}
	return missing, nil
}

// settle fills the table.
func (w *world) settle(ctx context.Context) error {
	if _, err := w.pool.Exec(ctx, prepareSQL); err != nil {
		return fmt.Errorf("preparing the world: %w", err)
	}
	if _, err := w.pool.Exec(ctx, conversationsSQL, w.conversations); err != nil {
		return fmt.Errorf("making conversations: %w", err)
	}
	const lot = 100_000
	for left := w.rows; left > 0; left -= lot {
		if err := w.join(ctx, int(math.Ceil(float64(min(left, lot))/rowsPerUser)), 300); err != nil {
			return err
		}
	}
	return w.vacuum(ctx)
}

// vacuum does by hand what autovacuum would do at moments that differ.
func (w *world) vacuum(ctx context.Context) error {
	if _, err := w.pool.Exec(ctx, unwatchSQL); err != nil {
		return err
	}
	_, err := w.pool.Exec(ctx, vacuumSQL)
	return err
}

// rowsPerUser is the mean of what rowsOf draws.
const rowsPerUser = 3.7

// rowsOf is the number of conversations of a user: most are in one or two.
func (w *world) rowsOf() int {
	switch p := w.random.Float64(); {
	case p < 0.35:
		return 1
	case p < 0.60:
		return 2
	case p < 0.90:
		return 3 + w.random.IntN(4)
	default:
		return 7 + w.random.IntN(16)
	}
}

// join lets new users join, who read daily, weekly, monthly or never.
func (w *world) join(ctx context.Context, users, daysAgo int) error {
	ids := make([]uuid.UUID, users)
	every, shift, rows := make([]int32, users), make([]int32, users), make([]int32, users)
	for i := range ids {
		ids[i] = w.newID()
		if w.readers {
			every[i] = []int32{24, 24, 168, 168, 168, 168, 168, 720, 720, 720, 720, 720, 0, 0, 0, 0, 0, 0, 0, 0}[w.random.IntN(20)]
		}
		shift[i], rows[i] = w.random.Int32N(10_000), int32(min(w.rowsOf(), w.conversations)) //nolint:gosec // small
		w.reads[ids[i]] = every[i]
		w.alive[ids[i]] = len(w.users)
		w.users = append(w.users, ids[i])
	}
	if _, err := w.pool.Exec(ctx, joinSQL, ids, every, shift, rows, w.conversations, daysAgo, w.hour); err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	return nil
}

func (w *world) newID() (id uuid.UUID) {
	for i := range id {
		id[i] = byte(w.random.UintN(256)) //nolint:gosec // it fits
	}
	return id
}

// die takes users from the living; hours is how long the step was in which they did.
func (w *world) die(ctx context.Context, users []uuid.UUID, hours int) error {
	for _, id := range users {
		place, last := w.alive[id], w.users[len(w.users)-1]
		w.users[place], w.alive[last] = last, place
		w.users = w.users[:len(w.users)-1]
		delete(w.alive, id)
	}
	if _, err := w.pool.Exec(ctx, dieSQL, users, hours); err != nil {
		return fmt.Errorf("dying: %w", err)
	}
	return nil
}

// some are n of the living of whom it is true, or as many as there are.
func (w *world) some(n int, is func(uuid.UUID) bool) (chosen []uuid.UUID) {
	for _, place := range w.random.Perm(len(w.users)) {
		if len(chosen) >= n {
			break
		}
		if is(w.users[place]) {
			chosen = append(chosen, w.users[place])
		}
	}
	return chosen
}

func anybody(uuid.UUID) bool { return true }

func (w *world) notCanary(id uuid.UUID) bool { return !slices.Contains(w.canaries, id) }

func (w *world) notLost(id uuid.UUID) bool { return !w.lost[id] }

// lose makes auth-service leave out n more living users.
func (w *world) lose(n int, is func(uuid.UUID) bool) {
	for _, id := range w.some(n, func(id uuid.UUID) bool { return !w.lost[id] && is(id) }) {
		w.lost[id] = true
	}
}

// week is so many hours.
const week = 7 * 24

// moveMembers moves the timestamps of whoever a run may look at: those who were ever
// missing, and once a week everybody, of whom it may choose canaries.
func (w *world) moveMembers(ctx context.Context, tx pgx.Tx, hours int, everybody bool) error {
	var lost []uuid.UUID
	for id := range w.lost {
		if !w.seen[id] {
			w.seen[id], lost = true, append(lost, id)
		}
	}
	if len(lost) > 0 {
		if _, err := tx.Exec(ctx, watchSQL, lost); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, shiftMembersSQL, hours, w.hour); err != nil {
		return err
	}
	if everybody {
		if _, err := tx.Exec(ctx, refreshMembersSQL, w.hour); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, movedSQL, w.hour, everybody)
	return err
}

// pass lets hours pass: the living read, some die, some join, all recorded moments
// lie further back.
func (w *world) pass(ctx context.Context, hours int, deaths, joins float64) error {
	isWeek := (w.hour+hours)/week > w.hour/week
	w.hour += hours
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		if err := w.moveMembers(ctx, tx, hours, isWeek); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT set_config('shift.by', $1, true)", fmt.Sprintf("%d hours", hours)); err != nil {
			return err
		}
		_, err := tx.Conn().PgConn().Exec(ctx, shiftLedgerSQL).ReadAll()
		return err
	})
	if err != nil {
		return fmt.Errorf("moving time: %w", err)
	}
	share := float64(hours) / 24 * float64(len(w.users))
	if n := w.poisson(share * deaths); n > 0 {
		if err := w.die(ctx, w.some(n, w.notCanary), hours); err != nil {
			return err
		}
	}
	if n := w.poisson(share * joins); n > 0 {
		return w.join(ctx, n, 0)
	}
	return nil
}

// poisson draws how often something happens that is expected so many times.
func (w *world) poisson(expected float64) (n int) {
	if expected > 50 {
		return max(0, int(math.Round(expected+math.Sqrt(expected)*w.random.NormFloat64())))
	}
	for p := w.random.Float64(); p > math.Exp(-expected); p *= w.random.Float64() {
		n++
	}
	return n
}

// livingDeleted is how many rows of living users the last run deleted. What it
// left as evidence is forgotten.
func (w *world) livingDeleted(ctx context.Context) (rows int64, err error) {
	err = w.pool.QueryRow(ctx, livingDeletedSQL).Scan(&rows)
	_, err2 := w.pool.Exec(ctx, forgetEvidenceSQL)
	return rows, errors.Join(err, err2)
}

// inOrder are the living in the order of their ids.
func (w *world) inOrder() []uuid.UUID {
	return slices.SortedFunc(slices.Values(w.users), func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
}
