package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/database"
)

// sampleEvery is how exact Held is: what is shorter may be missed.
const sampleEvery = 4 * time.Millisecond

// Held is what a sweep kept others from, sampled every 4 ms: a lower bound.
type Held struct {
	LongestTransaction float64 `json:"longest_transaction_seconds"`
	LongestWait        float64 `json:"longest_lock_wait_seconds"` // of somebody else, for a lock that it held
	Samples            int     `json:"samples"`
}

// watched has something done, and watches it.
func watched(ctx context.Context, admin *pgxpool.Pool, name string, do func() error) (Held, error) {
	stop := watch(ctx, admin, name)
	err := do()
	held, watchErr := stop()
	return held, errors.Join(err, watchErr)
}

// watch samples the activity of orphan-cleaner's connections to a database until
// stop is called.
func watch(ctx context.Context, admin *pgxpool.Pool, name string) (stop func() (Held, error)) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var held Held
	var failed error
	go func() {
		defer close(done)
		ticker := time.NewTicker(sampleEvery)
		defer ticker.Stop()
		for {
			var transaction, wait float64
			err := admin.QueryRow(ctx, watchSQL, name, database.ApplicationName).Scan(&transaction, &wait)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				failed = fmt.Errorf("watching the locks: %w", err)
				return
			}
			held.LongestTransaction = max(held.LongestTransaction, transaction)
			held.LongestWait = max(held.LongestWait, wait)
			held.Samples++
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() (Held, error) {
		cancel()
		<-done
		return held, failed
	}
}
