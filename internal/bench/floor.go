package bench

import (
	"context"
	"fmt"
	"sync"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
)

// floor scans and asks at the same time, keeps whoever is missing in memory, and
// deletes all of their members at once.
func floor(ctx context.Context, s Subject) (Outcome, error) {
	missing, err := askAll(ctx, s)
	if err != nil {
		return Outcome{}, err
	}
	tag, err := s.Pool.Exec(ctx, floorDeleteSQL, missing)
	if err != nil {
		return Outcome{}, fmt.Errorf("deleting all at once: %w", err)
	}
	return Outcome{Deleted: tag.RowsAffected()}, nil
}

func askAll(ctx context.Context, s Subject) (missing []uuid.UUID, err error) {
	var mu sync.Mutex
	batches := make(chan []uuid.UUID)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(batches)
		return scanUsers(ctx, s, batches)
	})
	for range s.Config.Concurrency {
		group.Go(func() error {
			for batch := range batches {
				gone, err := s.Client.Missing(ctx, batch)
				if err != nil {
					return fmt.Errorf("asking auth-service: %w", err)
				}
				mu.Lock()
				missing = append(missing, gone...)
				mu.Unlock()
			}
			return nil
		})
	}
	err = group.Wait()
	return missing, err
}

func scanUsers(ctx context.Context, s Subject, batches chan<- []uuid.UUID) error {
	rows, err := s.Pool.Query(ctx, floorUsersSQL)
	if err != nil {
		return fmt.Errorf("reading all users: %w", err)
	}
	defer rows.Close()
	batch := make([]uuid.UUID, 0, s.Config.BatchSize)
	send := func() error {
		select {
		case batches <- batch:
			batch = make([]uuid.UUID, 0, s.Config.BatchSize)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var user uuid.UUID
	for rows.Next() {
		if err := rows.Scan(&user); err != nil {
			return err
		}
		if batch = append(batch, user); len(batch) == s.Config.BatchSize {
			if err := send(); err != nil {
				return err
			}
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading all users: %w", err)
	}
	if len(batch) == 0 {
		return nil
	}
	return send()
}
