package queue

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// While time stands still in the database, each bundle of sixteen workers begins when the
// one before ends: no two of them share a moment, and none is left out.
func TestBundles(t *testing.T) {
	t.Parallel()
	db := testdb.NewEmpty(t)
	log := slog.New(slog.DiscardHandler)
	if err := Migrate(t.Context(), db.URL, log); err != nil {
		t.Fatal(err)
	}
	frozen := testdb.One[string](db, "SELECT clock_timestamp()::text")
	db.Exec("CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS $$ SELECT '" + frozen + "'::timestamptz $$")
	const workers, bundles, perBundle, perSecond = 16, 5, 10, 40.0
	var mu sync.Mutex
	var starts []float64
	var all sync.WaitGroup
	for range workers {
		c, err := Open(t.Context(), db.URL, log)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		all.Go(func() {
			for range bundles {
				in, err := c.takeCalls(t.Context(), perBundle, perSecond)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				starts = append(starts, in.Seconds())
				mu.Unlock()
			}
		})
	}
	all.Wait()
	slices.Sort(starts)
	for i, start := range starts {
		if want := float64(i) * perBundle / perSecond; math.Abs(start-want) > 1e-4 {
			t.Fatalf("bundle %d begins after %v s, want %v", i, start, want)
		}
	}
	if n := testdb.One[int64](db, "SELECT calls FROM orphan_cleaner_fleet.budget"); len(starts) != workers*bundles || n != workers*bundles*perBundle {
		t.Errorf("%d bundles, %d calls", len(starts), n)
	}
}

// In ten seconds of a clock that only the test moves, any number of workers makes as many
// calls as are allowed, within a tenth; that some of them are idle takes nothing from the others.
func TestCallsASecond(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 8, 16} {
		for _, perSecond := range []float64{3, 40, 400} {
			t.Run(fmt.Sprintf("%d workers, %v", workers, perSecond), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { callsASecond(t, workers, perSecond) })
			})
		}
	}
}

func callsASecond(t *testing.T, workers int, perSecond float64) {
	t.Helper()
	const seconds = 10
	var mu sync.Mutex
	free := time.Now() // what take_calls does with the row
	take := func(_ context.Context, calls int) (time.Duration, error) {
		mu.Lock()
		defer mu.Unlock()
		if free.Before(time.Now()) {
			free = time.Now()
		}
		in := time.Until(free)
		free = free.Add(time.Duration(float64(calls) / perSecond * float64(time.Second)))
		return in, nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
	defer cancel()
	began := time.Now()
	calls := make([]int, seconds+1) // in each second
	var all sync.WaitGroup
	for i := range workers {
		b := &Budget{perSecond: perSecond, take: take}
		for range 4 { // callers
			all.Go(func() {
				for n := 0; b.Wait(ctx) == nil; n++ {
					mu.Lock()
					calls[int(time.Since(began).Seconds())]++
					mu.Unlock()
					if i%2 == 1 && n%7 == 6 {
						time.Sleep(300 * time.Millisecond) //nolint:forbidigo // the bubble's clock
					}
				}
			})
		}
	}
	all.Wait()
	total := 0
	for second, n := range calls[:seconds] {
		total += n
		if float64(n) > 1.1*perSecond+1 {
			t.Errorf("%d calls in second %d, limit %v", n, second, perSecond)
		}
	}
	if float64(total) < 0.9*seconds*perSecond {
		t.Errorf("%d calls in %d seconds, limit %v a second", total, seconds, perSecond)
	}
}
