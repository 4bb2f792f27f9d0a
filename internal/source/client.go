package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"golang.org/x/time/rate"
)

// MaxBatch is the largest number of users in one call. auth-service refuses more.
const MaxBatch = 100

// MethodLabel names the call in logs and metrics, whatever a source speaks.
const MethodLabel = "get_users_by_ids"

// Attempt asks once which of the ids exist. It fills in the answer, which was made
// for these ids, and returns nil only if that is complete and valid.
type Attempt func(ctx context.Context, ids []uuid.UUID, answer *Answer) *BatchError

// Client asks a source by its Attempt. It is safe for concurrent use.
type Client struct {
	cfg      Config
	attempt  Attempt
	limiter  *rate.Limiter
	logger   *slog.Logger // target auth_client
	slow     *slowLog
	throttle *throttle // bounds the attempts in flight; see Config.Concurrency
}

// New returns a Client. The Config is complete.
func New(cfg Config, attempt Attempt) *Client {
	c := &Client{
		cfg: cfg, attempt: attempt, limiter: rate.NewLimiter(rate.Inf, 1), logger: cfg.ClientLog(),
		slow: newSlowLog(cfg.Logger.With("target", "orphan_cleaner")),
	}
	c.throttle = newThrottle(cfg.Concurrency, cfg.TargetP99, cfg.Observer.ConcurrencyLimit, c.logger)
	if cfg.MaxQPS > 0 {
		c.limiter.SetLimit(rate.Limit(cfg.MaxQPS))
	}
	return c
}

// Missing returns the ids, in the order asked and each once, that a complete and
// valid answer left out; see the package documentation for what that means. It takes
// 1 to MaxBatch ids. Every error is a *BatchError and comes without ids.
func (c *Client) Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	if len(ids) == 0 || len(ids) > MaxBatch {
		return nil, &BatchError{
			Reason: InvalidBatch, Users: len(ids),
			Err: fmt.Errorf("one call takes 1 to %d users", MaxBatch),
		}
	}
	var missing []uuid.UUID
	err := c.Retry(ctx, len(ids), func() (failed *BatchError) {
		missing, failed = c.check(ctx, ids)
		return failed
	})
	if err != nil {
		return nil, err
	}
	return missing, nil
}

// check is one attempt of Missing.
func (c *Client) check(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, *BatchError) {
	if err := c.throttle.acquire(ctx); err != nil {
		return nil, Failed(Cancelled, len(ids), err)
	}
	begun := time.Now()
	answer, failed := c.Once(ctx, ids)
	took := time.Since(begun)
	c.throttle.done(begun, took, failed)

	if took > c.cfg.SlowAfter {
		c.slow.log(took, len(ids))
	}
	if failed != nil {
		c.cfg.Observer.CallDone(MethodLabel, len(ids), took, failed)
		c.logger.Debug("No valid response", "method", MethodLabel, "users", len(ids), "duration", took, "reason", failed.Reason, "error", failed.Err)
		return nil, failed
	}
	c.cfg.Observer.CallDone(MethodLabel, len(ids), took, nil)
	missing := answer.Missing()
	c.logger.Debug("Batch checked", "method", MethodLabel, "users", len(ids), "missing", len(missing), "duration", took,
		"uppercase", answer.Uppercase, "duplicates", answer.Duplicates)
	return missing, nil
}

// Once is one attempt about any number of ids, without retry, limit or record: for
// tests of a source. A run calls Missing.
func (c *Client) Once(ctx context.Context, ids []uuid.UUID) (*Answer, *BatchError) {
	answer := NewAnswer(ids)
	return answer, c.attempt(ctx, ids, answer)
}

// Retry repeats attempt while its failure may pass, and returns the last one. It is
// for calls about so many users, which may be 0.
func (c *Client) Retry(ctx context.Context, users int, attempt func() *BatchError) *BatchError {
	pause := &backoff.ExponentialBackOff{
		InitialInterval:     c.cfg.BackoffInitial,
		MaxInterval:         c.cfg.BackoffMax,
		Multiplier:          2,
		RandomizationFactor: 0.5,
	}
	attempts := 0
	var last *BatchError
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		if err := c.limiter.Wait(ctx); err != nil {
			return struct{}{}, backoff.Permanent(err)
		}
		if c.cfg.Limiter != nil {
			if err := c.cfg.Limiter.Wait(ctx); err != nil {
				return struct{}{}, backoff.Permanent(err)
			}
		}
		attempts++
		last = attempt()
		switch {
		case last == nil:
			return struct{}{}, nil
		case !last.transient():
			return struct{}{}, backoff.Permanent(last)
		}
		return struct{}{}, last
	}, backoff.WithBackOff(pause), backoff.WithMaxTries(uint(c.cfg.MaxAttempts)), backoff.WithMaxElapsedTime(0))
	if err == nil {
		return nil
	}
	var failed *BatchError
	if !errors.As(err, &failed) {
		// The caller's context ended, or would end before MaxQPS allows another
		// call. What went wrong before that is the better cause.
		failed = Failed(Cancelled, users, err)
		if last != nil {
			failed.Err = fmt.Errorf("%w, after: %w", err, last.Err)
		}
	}
	failed.Attempts = attempts
	return failed
}
