package run_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// Between chunks the sweep sleeps NiceRatio seconds for each second of deleting, and says so.
func TestNiceRatio(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	w.cfg.ChunkRows, w.cfg.SweepConnections, w.cfg.BatchSize = 100, 1, 10
	users := w.people(300, 10)
	w.missingFor(40, users[:100]...)
	const took, ratio = 50 * time.Millisecond, 2 // a chunk, at least
	w.db.Exec(`CREATE FUNCTION public.linger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END'`)
	w.db.Exec(`CREATE TRIGGER linger BEFORE DELETE ON conversation_members FOR EACH STATEMENT EXECUTE FUNCTION public.linger()`)
	var slept atomic.Int64
	var chunks, pauses atomic.Int64
	w.observer = &watcher{
		chunkDone: func() { chunks.Add(1) },
		throttled: func(reason string, pause time.Duration) {
			if reason != "nice-ratio" {
				t.Errorf("it sleeps because of %q", reason)
			}
			if pause < ratio*took {
				t.Errorf("it sleeps for %s", pause)
			}
			slept.Add(int64(pause))
			pauses.Add(1)
		},
	}
	w.cfg.NiceRatio = ratio
	nice := w.must(w.run())
	sum := time.Duration(slept.Load()).Seconds()
	if nice.MembersDeleted != 1000 || pauses.Load() != chunks.Load()-1 || chunks.Load() < 10 {
		t.Errorf("%d pauses between %d chunks: %+v", pauses.Load(), chunks.Load(), nice)
	}
	if nice.Seconds < sum {
		t.Errorf("it slept for %.3f of %.3f s", sum, nice.Seconds)
	}

	w.missingFor(40, users[100:200]...)
	w.cfg.NiceRatio = 0
	pauses.Store(0)
	if r := w.must(w.run()); r.MembersDeleted != 1000 || pauses.Load() != 0 {
		t.Errorf("%d pauses without a ratio: %+v", pauses.Load(), r)
	}
	w.invariant(2000)
}

// The sweep waits while a standby lags by more than MaxLag; without a standby the
// lag is 0.
func TestMaxLag(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.missingFor(40, users[:3]...)
	var waited atomic.Int64
	w.cfg.MaxLag = time.Millisecond
	w.observer = &watcher{throttled: func(reason string, _ time.Duration) {
		if reason != "replication lag" {
			t.Errorf("it sleeps because of %q", reason)
		}
		waited.Add(1)
		// The standby catches up.
		w.db.Exec(`UPDATE lags SET lag = lag - interval '2 seconds' WHERE standby = 'far'`)
	}}
	w.must(w.run())
	if n := waited.Load(); n != 0 {
		t.Errorf("it waited %d times for no standby", n)
	}
	w.invariant(6)

	// Two standbys, as the server would show them.
	w.db.Exec(`CREATE TABLE lags (standby text, lag interval)`)
	w.db.Exec(`INSERT INTO lags VALUES ('near', '0'), ('far', '5 seconds'), ('of pg_receivewal', NULL)`)
	columns := testdb.One[string](w.db, `SELECT string_agg(CASE attname WHEN 'replay_lag' THEN 'l.lag' ELSE format('NULL::%s', format_type(atttypid, atttypmod)) END || ' AS ' || attname, ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = 'pg_catalog.pg_stat_replication'::regclass`)
	tx := w.inTheWay(`SET LOCAL allow_system_table_mods = on`)
	w.exec(tx, `CREATE OR REPLACE VIEW pg_catalog.pg_stat_replication AS SELECT `+columns+` FROM public.lags AS l`)
	w.commit(tx)
	w.isBusy = false
	w.cfg.MaxLag = 2 * time.Second
	w.missingFor(40, users[3:6]...)
	r := w.must(w.run())
	// 5 s and 3 s are too much, 1 s is not.
	if n := waited.Load(); n != 2 || r.Seconds < 2 || r.MembersDeleted != 6 {
		t.Errorf("it waited %d times: %+v", n, r)
	}
	w.invariant(12)
}
