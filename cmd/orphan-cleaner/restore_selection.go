package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/restore"
	"github.com/nova-social/orphan-cleaner/internal/safetext"
)

// selection reads from the flags what is to be restored.
func (cmd *RestoreCmd) selection() (s restore.Selection, err error) {
	wrong := func(format string, args ...any) (restore.Selection, error) {
		return s, fmt.Errorf("%w: %w", errUsage, fmt.Errorf(format, args...))
	}
	if cmd.Deleted != nil {
		s.Run = *cmd.Deleted
	}
	for _, list := range []struct {
		flag string
		from []string
		to   *[]uuid.UUID
	}{{"--user", cmd.User, &s.Users}, {"--conversation", cmd.Conversation, &s.Conversations}} {
		// An empty value is refused, too: a variable that is not set must not choose everybody.
		for _, value := range list.from {
			for text := range strings.SplitSeq(value, ",") {
				id, err := uuid.Parse(strings.TrimSpace(text))
				if err != nil {
					return wrong("%s: %q is not a UUID", list.flag, text)
				}
				*list.to = append(*list.to, id)
			}
		}
	}
	if s.Since, err = parseTime("--since", cmd.Since); err != nil {
		return s, err
	}
	if s.Until, err = parseTime("--until", cmd.Until); err != nil {
		return s, err
	}
	s.Targets = cmd.Target
	chosen := s.Run != 0 || len(s.Users) > 0 || len(s.Conversations) > 0 || !s.Since.IsZero() || !s.Until.IsZero() || cmd.Resurrected
	switch {
	case cmd.Deleted != nil && *cmd.Deleted < 1 || cmd.Revert < 0:
		return wrong("the number of a run is 1 or more; see: orphan-cleaner status")
	case cmd.Revert != 0 && (chosen || len(s.Targets) > 0):
		return wrong("--revert undoes a whole restore: it cannot be combined with flags that choose deletions")
	case cmd.Revert == 0 && !chosen:
		return wrong("say what to restore: --run, --user, --conversation, --since, --until or --resurrected; see: orphan-cleaner status")
	case cmd.Resurrected && len(cmd.User) > 0:
		return wrong("give either --user or --resurrected")
	case !s.Since.IsZero() && !s.Until.IsZero() && !s.Since.Before(s.Until):
		return wrong("--since must be before --until")
	case time.Duration(cmd.Lease) < time.Second:
		return wrong(settingPrefix+"LEASE is %s, it must be 1s or more", cmd.Lease)
	}
	return s, nil
}

// areTargets refuses names that the registry does not have.
func areTargets(ctx context.Context, pool *pgxpool.Pool, names []string) error {
	if len(names) == 0 {
		return nil
	}
	targets, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) ([]string, error) { return q.UserTargets(ctx) })
	if err != nil {
		return fmt.Errorf("reading the targets: %w", err)
	}
	for _, name := range names {
		if !slices.Contains(targets, name) {
			return fmt.Errorf("%w: --target: there is no target %q, only %s", errUsage, safetext.Line(name, 100), strings.Join(targets, ", "))
		}
	}
	return nil
}

// parseTime reads a moment; what names no zone is UTC.
func parseTime(flag string, given *string) (time.Time, error) {
	if given == nil {
		return time.Time{}, nil
	}
	text := *given
	for _, layout := range []string{time.DateOnly, "2006-01-02 15:04", time.DateTime, time.RFC3339} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: %s %q is no time: write 2026-01-31, '2026-01-31 10:00' (UTC) or 2026-01-31T10:00:00+01:00", errUsage, flag, text)
}
