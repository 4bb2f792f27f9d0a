package faults

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// fullEnv set to full makes the long rows as long as they are meant to be.
const fullEnv = "ORPHAN_CLEANER_TEST_FAULTS"

// chunksPerRun is how many chunks a run gets done before it is killed, about.
const chunksPerRun = 6

// killedAtRandom kills runs over one set of members wherever they happen to be:
// 10 of them over 20,000 members, in full 200 over 100,000.
func killedAtRandom(w *world) {
	kills, members := 10, 20_000
	if os.Getenv(fullEnv) == "full" {
		kills, members = 200, 100_000
	}
	const seed = 1
	random := rand.New(rand.NewPCG(seed, 0))
	w.throng(members)
	w.auth.SetLatency(authfake.Latency{P50: 2 * time.Millisecond, P99: 8 * time.Millisecond})
	undisturbed := w.undisturbed(members)

	// A database that is slow to forget: the end of a run is to be hit too.
	w.exec(`CREATE FUNCTION witness.slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END'`)
	w.exec(`CREATE TRIGGER slowly AFTER DELETE ON orphan_cleaner.sightings FOR EACH STATEMENT EXECUTE FUNCTION witness.slowly()`)

	unlimited := append(unlimited(), "--batch-size=100", "--chunk-rows=2000")
	flags := func(killsLeft int) []string {
		// Chunks so small that the due members last for four fifths of the kills; the
		// last runs get to their end.
		rows := int64(2000)
		if killsLeft -= kills / 5; killsLeft > 0 {
			rows = 1 + (w.count(`witness.due`)-w.gone())/int64(killsLeft*chunksPerRun)
		}
		return append(slices.Clone(unlimited), fmt.Sprintf("--chunk-rows=%d", rows), "--concurrency=4", "--log-level=debug")
	}
	phases := map[string]int{}
	for killed := 0; killed < kills; {
		aims := moments()
		if kills-killed > kills/5 {
			aims = aims[:len(aims)-1] // the end is far
		}
		aim := aims[random.IntN(len(aims))]
		p := w.begin(flags(kills - killed)...)
		if aim.phase != "preflight" {
			p.says("phase=" + aim.phase)
		}
		timer := time.NewTimer(time.Duration(random.Float64() * float64(aim.within)))
		select {
		case <-timer.C:
		case <-p.exited: // it was quicker
			timer.Stop()
		}
		p.signal(syscall.SIGKILL)
		e := p.wait()
		w.sessionsEnd()
		w.sound()
		if w.t.Failed() {
			w.t.Fatalf("after kill %d of %d, seed %d: %s", killed, kills, seed, e)
		}
		w.leaseEnds()
		if e.signal == syscall.SIGKILL {
			killed++
			phases[phaseOf(e)]++
		}
	}
	w.lastRun(unlimited...)
	if end := one[string](w, left); end != undisturbed {
		w.t.Errorf("the end is %s, that of a run without a kill is %s", end, undisturbed)
	}
	w.converges(unlimited...)
	var at []string
	for _, phase := range []string{"preflight", "verify", "judge", "sweep", "finish"} {
		at = append(at, fmt.Sprintf("%s %d", phase, phases[phase]))
	}
	w.note.exit, w.note.state, w.note.shows = "killed", "abandoned", fmt.Sprintf("%d kills: %s", kills, strings.Join(at, ", "))
	w.t.Logf("%d kills over %d members, by phase: %s", kills, members, strings.Join(at, ", "))
}

// moments are what the kills aim at: a phase, chosen at random, and a random
// moment of the time that it takes, about. What they hit the killed run's log tells.
func moments() []struct {
	phase  string
	within time.Duration
} {
	return []struct {
		phase  string
		within time.Duration
	}{
		{"preflight", 60 * time.Millisecond},
		{"verify", 150 * time.Millisecond},
		{"judge", 50 * time.Millisecond},
		{"sweep", 400 * time.Millisecond},
		{"finish", 60 * time.Millisecond},
	}
}

// left is how a database ended, whenever and by whatever runs that came about.
const left = `SELECT
	(SELECT md5(string_agg(conversation_id::text || user_id::text || role, '' ORDER BY conversation_id, user_id)) FROM conversation_members)
	|| (SELECT md5(string_agg(conversation_id::text || user_id::text || role, '' ORDER BY conversation_id, user_id)) FROM conversation_members_audit)
	|| (SELECT md5(string_agg(conversation_id::text || user_id::text || role, '' ORDER BY conversation_id, user_id)) FROM conversation_members_backup)
	|| (SELECT md5(string_agg(user_id::text, '' ORDER BY user_id)) FROM orphan_cleaner.candidates)
	|| (SELECT sum(members_deleted) FROM orphan_cleaner.runs)`

var phasePattern = regexp.MustCompile(`Entering phase.* phase=(\w+)`)

// phaseOf is the phase that a killed run had entered last, as its log says.
func phaseOf(e ended) string {
	found := phasePattern.FindAllStringSubmatch(e.stderr, -1)
	if len(found) == 0 {
		return "preflight"
	}
	return found[len(found)-1][1]
}

// throng adds users with ten members each; every fifth of them went 40 days ago.
func (w *world) throng(members int) {
	w.t.Helper()
	w.exec(`INSERT INTO conversations (id) SELECT md5('place ' || n)::uuid FROM generate_series(0, 999) AS n`)
	w.exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT md5('place ' || (u * 10 + n) % 1000)::uuid, md5('throng ' || u)::uuid, now() - interval '60 days'
		FROM generate_series(1, $1::int) AS u, generate_series(0, 9) AS n`, members/10)
	w.exec(`INSERT INTO users (id, username, created_at, deleted_at)
		SELECT md5('throng ' || u)::uuid, 'throng ' || u, now() - interval '1 year', CASE WHEN u % 5 = 0 THEN now() - interval '40 days' - u * interval '1 s' END
		FROM generate_series(1, $1::int) AS u`, members/10)
	w.exec(`ANALYZE conversation_members`)
	w.exec(`ANALYZE users`)
	w.auth.Add(collect[uuid.UUID](w, `SELECT id FROM users WHERE deleted_at IS NULL`)...)
	w.witness()
	w.exec(`INSERT INTO witness.due SELECT m.conversation_id, m.user_id FROM conversation_members AS m
		JOIN users AS u ON u.id = m.user_id WHERE u.deleted_at IS NOT NULL`)
	w.exec(`ANALYZE witness.members`)
}

// unlimited switches off the breakers that a fifth of the users would trip.
func unlimited() []string {
	return []string{
		"--max-new-missing-share=1", "--max-new-missing-rate=1", "--max-candidate-share=1",
		"--max-delete-share=1", "--max-delete-share-7d=1", "--max-delete-share-30d=1", "--max-history=0",
	}
}

// undisturbed is what is left by one run over the same members that nobody kills.
func (w *world) undisturbed(members int) string {
	w.t.Helper()
	db := testdb.New(w.t)
	other := &world{
		t: w.t, program: w.program, url: db.URL, pool: db.Pool, auth: w.auth,
		env: []string{"DATABASE_URL=" + db.URL}, note: note{held: map[string]bool{}},
	}
	other.populate()
	other.throng(members)
	other.lastRun(append(unlimited(), "--batch-size=100", "--chunk-rows=2000")...)
	return one[string](other, left)
}
