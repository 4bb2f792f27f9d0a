// Package wait lets time pass, unless somebody gives up before.
package wait

import (
	"context"
	"time"
)

// For waits for d, or returns the error of a context that ends before. It does
// not wait where d is not positive.
func For(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
