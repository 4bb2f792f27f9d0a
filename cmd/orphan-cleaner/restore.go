package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/restore"
)

// RestoreCmd is `restore`.
type RestoreCmd struct {
	DatabaseFlags `group:"Database"`
	AuthFlags     `group:"auth-service (for --revert)"`
	LogFlags      `group:"Log"`
	Deleted       *int64   `name:"run" help:"What this run deleted." placeholder:"RUN"`
	User          []string `help:"Members of these users." placeholder:"UUID,..." sep:"none"`
	Conversation  []string `help:"Members of these conversations." placeholder:"UUID,..." sep:"none"`
	Since         *string  `help:"Deleted at this time or later: 2026-01-31, '2026-01-31 10:00' (UTC) or RFC 3339." placeholder:"TIME"`
	Until         *string  `help:"Deleted before this time." placeholder:"TIME"`
	Resurrected   bool     `help:"Members of the users whom runs found alive again (see status)."`
	Revert        int64    `help:"Take a restore back: the members it gave back, unchanged since, of users whom auth-service still leaves out." placeholder:"RUN"`
	Execute       bool     `help:"Do it. Without, only show what would be done."`
	Hold          Duration `help:"How long the users given back are kept from the next runs." env:"ORPHAN_CLEANER_RESTORE_HOLD" default:"30d"`
	Lease         Duration `help:"A restore silent for longer is taken over." env:"ORPHAN_CLEANER_LEASE" default:"1m"`
	JSON          bool     `name:"json" help:"End with one JSON object on stdout."`
}

const defaultRestoreHold = Duration(30 * day)

// selection reads what is to be given back from the flags.
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
	chosen := s.Run != 0 || len(s.Users) > 0 || len(s.Conversations) > 0 || !s.Since.IsZero() || !s.Until.IsZero() || cmd.Resurrected
	switch {
	case cmd.Deleted != nil && *cmd.Deleted < 1 || cmd.Revert < 0:
		return wrong("the number of a run is 1 or more; see: orphan-cleaner status")
	case cmd.Revert != 0 && chosen:
		return wrong("--revert takes a whole restore back: it goes with none of the flags that choose deletions")
	case cmd.Revert == 0 && !chosen:
		return wrong("say what to give back: --run, --user, --conversation, --since, --until or --resurrected; see: orphan-cleaner status")
	case cmd.Resurrected && len(cmd.User) > 0:
		return wrong("give either --user or --resurrected")
	case !s.Since.IsZero() && !s.Until.IsZero() && !s.Since.Before(s.Until):
		return wrong("--since must be before --until")
	case time.Duration(cmd.Lease) < time.Second:
		return wrong("LEASE is %s, it must be 1s or more", cmd.Lease)
	}
	return s, nil
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

// Run previews, restores or reverts.
func (cmd *RestoreCmd) Run(ctx context.Context, s *streams) error {
	chosen, err := cmd.selection()
	if err != nil {
		return err
	}
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	log := cmd.logger(s)
	cfg, err := cmd.config(chosen)
	if err != nil {
		return err
	}
	if cmd.Deleted != nil {
		if err := aRunThatDeleted(ctx, pool, *cmd.Deleted); err != nil {
			return err
		}
	}
	if cmd.Resurrected {
		if chosen.Users, err = resurrected(ctx, pool); err != nil {
			return err
		}
	}
	restorer := restore.New(pool, log, cfg)
	switch {
	case cmd.Revert != 0 && cmd.Execute:
		err = cmd.revert(ctx, s, log, restorer)
	case cmd.Revert != 0:
		err = cmd.previewRevert(ctx, s, restorer)
	case cmd.Execute:
		stop := cmd.watch(s, log, restorer)
		result, runErr := restorer.Restore(ctx, chosen)
		stop()
		err = cmd.show(s, log, result, runErr)
	default:
		err = cmd.preview(ctx, s, restorer, chosen)
	}
	// A function or a table that is not there: the schema is older than the program.
	if code := database.Code(err); code == "42883" || code == "42P01" || code == "42703" {
		err = fmt.Errorf("%w; bring the schema up to date: orphan-cleaner migrate up", err)
	}
	return err
}

func (cmd *RestoreCmd) config(chosen restore.Selection) (restore.Config, error) {
	cfg := restore.DefaultConfig()
	runner, err := finishConfig(cleaner.DefaultConfig())
	if err != nil {
		return cfg, err
	}
	cfg.Lease, cfg.Hold, cfg.Host, cfg.Version = time.Duration(cmd.Lease), time.Duration(cmd.Hold), runner.Host, runner.Version
	cfg.Settings, err = json.Marshal(map[string]any{
		"run": chosen.Run, "users": chosen.Users, "conversations": chosen.Conversations, "since": cmd.Since, "until": cmd.Until,
		"resurrected": cmd.Resurrected, "revert": cmd.Revert, "hold": cmd.Hold.String(),
	})
	return cfg, err
}

// aRunThatDeleted refuses numbers that name no run, or a restore that took nothing.
func aRunThatDeleted(ctx context.Context, pool *pgxpool.Pool, run int64) error {
	sum, err := db.New(pool).RestoreSummary(ctx, run)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w: there is no run %d; see: orphan-cleaner status", errUsage, run)
	case err != nil:
		return fmt.Errorf("reading run %d: %w", run, err)
	case sum.Kind == "restore" && sum.MembersDeleted == 0:
		return fmt.Errorf("%w: run %d is a restore; to take it back: orphan-cleaner restore --revert %d", errUsage, run, run)
	}
	return nil
}

func resurrected(ctx context.Context, pool *pgxpool.Pool) ([]uuid.UUID, error) {
	alive, err := db.New(pool).DepartedAlive(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading who is alive again: %w", err)
	}
	users := make([]uuid.UUID, 0, len(alive))
	for _, user := range alive {
		users = append(users, user.UserID)
	}
	return users, nil
}

func (cmd *RestoreCmd) watch(s *streams, log *slog.Logger, r *restore.Restorer) func() {
	return watchLine(s.err, func() string {
		p := r.Progress()
		if p.Of == 0 {
			return "reading the backups"
		}
		return fmt.Sprintf("%d of %d members", p.Done, p.Of)
	}, func() {
		p := r.Progress()
		log.Info("Restore under way", "members_done", p.Done, "members", p.Of)
	})
}

// same is the command line that the user gave, for the hint how to go on.
func (cmd *RestoreCmd) same() string {
	words := []string{"orphan-cleaner restore"}
	add := func(flag, value string) {
		if value != "" {
			if strings.ContainsAny(value, " {}") {
				value = "'" + value + "'"
			}
			words = append(words, flag+" "+value)
		}
	}
	if cmd.Deleted != nil {
		add("--run", fmt.Sprint(*cmd.Deleted))
	}
	add("--user", strings.Join(cmd.User, ","))
	add("--conversation", strings.Join(cmd.Conversation, ","))
	if cmd.Since != nil {
		add("--since", *cmd.Since)
	}
	if cmd.Until != nil {
		add("--until", *cmd.Until)
	}
	if cmd.Hold != defaultRestoreHold {
		add("--hold", cmd.Hold.String())
	}
	if cmd.Resurrected {
		words = append(words, "--resurrected")
	}
	if cmd.Revert != 0 {
		add("--revert", fmt.Sprint(cmd.Revert))
	}
	return strings.Join(words, " ") + " --execute"
}

// preview is the JSON of a restore that was not executed.
type preview struct {
	Executed         bool                   `json:"executed"`
	Restore          int64                  `json:"restore"`
	There            int64                  `json:"there"`
	ThereDiffers     int64                  `json:"there_differs"`
	ConversationGone int64                  `json:"conversation_gone"`
	LeftSince        int64                  `json:"left_since"`
	Parts            []db.RestorePreviewRow `json:"parts"`
}

func (cmd *RestoreCmd) preview(ctx context.Context, s *streams, r *restore.Restorer, chosen restore.Selection) error {
	stop := cmd.watch(s, cmd.logger(s), r)
	parts, err := r.Preview(ctx, chosen)
	stop()
	if err != nil {
		return err
	}
	p := preview{Parts: append([]db.RestorePreviewRow{}, parts...)}
	t := newTable("Restore: nothing was changed", "run", "day (UTC)", "give back", "there already", "there, differing", "conversation gone", "left since")
	for _, part := range parts {
		p.Restore += part.Restore
		p.There += part.There
		p.ThereDiffers += part.ThereDiffers
		p.ConversationGone += part.ConversationGone
		p.LeftSince += part.LeftSince
		t.AppendRow(table.Row{part.DeletedRun, part.Day, part.Restore, part.There, part.ThereDiffers, part.ConversationGone, part.LeftSince})
	}
	if cmd.JSON {
		return printJSON(s.out, p)
	}
	t.AppendFooter(table.Row{"all", "", p.Restore, p.There, p.ThereDiffers, p.ConversationGone, p.LeftSince})
	if err := printTable(s.out, t); err != nil {
		return err
	}
	if p.Restore == 0 {
		_, err = fmt.Fprintln(s.out, "There is nothing to give back.")
	} else {
		_, err = fmt.Fprintf(s.out, "Members that are there stay as they are; rows whose conversation is gone stay in the backup.\nGive %d members back, their users on hold for %s:  %s\n",
			p.Restore, cmd.Hold, cmd.same())
	}
	return err
}

func (cmd *RestoreCmd) previewRevert(ctx context.Context, s *streams, r *restore.Restorer) error {
	sum, err := r.PreviewRevert(ctx, cmd.Revert)
	if errors.Is(err, restore.ErrNoRestore) {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if err != nil {
		return err
	}
	if cmd.JSON {
		return printJSON(s.out, sum)
	}
	t := newTable(fmt.Sprintf("Revert of restore %d: nothing was changed", cmd.Revert), "", "")
	t.AppendRows([]table.Row{
		{"members it gave back", sum.Restored},
		{"  of users", sum.Users},
		{"taken again before", sum.Reverted},
	})
	if err := printTable(s.out, t); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "Taken again are those that did not change since, of users whom auth-service leaves out:  %s\n", cmd.same())
	return err
}

func (cmd *RestoreCmd) revert(ctx context.Context, s *streams, log *slog.Logger, r *restore.Restorer) error {
	client, err := cmd.dial(log)
	if err != nil {
		return err
	}
	defer closeClient(client, log)
	stop := cmd.watch(s, log, r)
	result, runErr := r.Revert(ctx, cmd.Revert, client)
	stop()
	if errors.Is(runErr, restore.ErrNoRestore) {
		return fmt.Errorf("%w: %w", errUsage, runErr)
	}
	return cmd.show(s, log, result, runErr)
}

// show tells how it ended, in the log and on stdout.
func (cmd *RestoreCmd) show(s *streams, log *slog.Logger, result restore.Result, runErr error) error {
	attrs := []any{
		"run_id", result.RunID, "state", result.State, "members_restored", result.MembersRestored, "members_reverted", result.MembersReverted,
		"users", result.Users, "conversations", result.Conversations, "there", result.There, "there_differs", result.ThereDiffers,
		"conversation_gone", result.ConversationGone, "left_since", result.LeftSince, "members_left", result.MembersLeft,
		"users_unknown", result.UsersUnknown, "seconds", fmt.Sprintf("%.1f", result.Seconds),
	}
	switch {
	case runErr != nil:
		log.Error("Restore did not succeed", append(attrs, "error", runErr)...)
	case cmd.Revert != 0:
		log.Info("Took a restore back", append(attrs, "reverted_run", cmd.Revert)...)
	case result.MembersRestored == 0:
		log.Info("There was nothing to give back", attrs...)
	default:
		log.Info("Gave members back", append(attrs, "revert", fmt.Sprintf("orphan-cleaner restore --revert %d", result.RunID))...)
	}
	if cmd.JSON {
		if err := json.NewEncoder(s.out).Encode(result); err != nil {
			return errors.Join(runErr, fmt.Errorf("writing the result: %w", err))
		}
	} else if err := cmd.table(s, result); err != nil {
		return errors.Join(runErr, err)
	}
	if runErr != nil {
		return shownError{runErr}
	}
	return nil
}

func (cmd *RestoreCmd) table(s *streams, r restore.Result) error {
	if r.RunID == 0 {
		return nil
	}
	t := newTable(fmt.Sprintf("Run %d, %s", r.RunID, r.State), "", "members")
	if cmd.Revert != 0 {
		t.AppendRows([]table.Row{
			{"taken again", r.MembersReverted},
			{"left: changed since, alive, on another hold, or gone", r.MembersLeft},
		})
	} else {
		t.AppendRows([]table.Row{
			{"given back", r.MembersRestored},
			{"there already, the same", r.There},
			{"there already and differing, left as they are", r.ThereDiffers},
			{"conversation gone, left in the backup", r.ConversationGone},
			{"given back before and gone since by other hands", r.LeftSince},
			{"left when their turn came: back or conversation gone by then", r.MembersLeft},
		})
	}
	return printTable(s.out, t)
}
