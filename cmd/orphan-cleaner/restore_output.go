package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/restore"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

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
	add("--target", strings.Join(cmd.Target, ","))
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
	p := preview{Parts: parts}
	several := slices.ContainsFunc(parts, func(part db.RestorePreviewRow) bool { return part.Target != parts[0].Target })
	what := func(target string, cells ...any) table.Row {
		if several {
			return append(table.Row{target}, cells...)
		}
		return cells
	}
	t := newTable("Restore: nothing was changed", what("target", "run", "day (UTC)", "restore", "there already", "there, differing", "conversation gone", "left since")...)
	for _, part := range parts {
		p.Restore += part.Restore
		p.There += part.There
		p.ThereDiffers += part.ThereDiffers
		p.ConversationGone += part.ConversationGone
		p.LeftSince += part.LeftSince
		t.AppendRow(what(part.Target, part.DeletedRun, part.Day, part.Restore, part.There, part.ThereDiffers, part.ConversationGone, part.LeftSince))
	}
	if cmd.JSON {
		return printJSON(s.out, p)
	}
	t.AppendFooter(what("", "all", "", p.Restore, p.There, p.ThereDiffers, p.ConversationGone, p.LeftSince))
	text := &sheet{to: s.out}
	text.table(t)
	if p.Restore == 0 {
		text.line("There is nothing to restore.")
	} else {
		text.line("Rows that are there stay as they are; those whose conversation is gone stay in the backup.\nRestore %d rows and hold their users for %s:  %s",
			p.Restore, cmd.Hold, cmd.same())
	}
	return text.print()
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
		{"rows it restored", sum.Restored},
		{"  of users", sum.Users},
		{"deleted again before", sum.Reverted},
	})
	text := &sheet{to: s.out}
	text.table(t)
	judged := "No breaker would refuse that now; the first check with auth-service is judged before any row is deleted, by the canaries, too."
	if sum.Breaker != "" {
		judged = "Breaker " + sum.Breaker + " would refuse it if auth-service returns none of these users: " + shown(sum.Message) + "; nobody can approve a revert."
	}
	text.line("Rows that did not change since, of users that auth-service does not return, are deleted again:  %s\n%s", cmd.same(), judged)
	return text.print()
}

// show tells how it ended, in the log and on stdout.
func (cmd *RestoreCmd) show(s *streams, log *slog.Logger, result restore.Result, runErr error) error {
	attrs := []any{
		"run_id", result.RunID, "state", result.State, "members_restored", result.MembersRestored, "members_reverted", result.MembersReverted,
		"rows_restored", result.RowsRestored, "rows_reverted", result.RowsReverted,
		"users", result.Users, "conversations", result.Conversations, "there", result.There, "there_differs", result.ThereDiffers,
		"conversation_gone", result.ConversationGone, "left_since", result.LeftSince, "members_left", result.MembersLeft,
		"users_unknown", result.UsersUnknown, "seconds", math.Round(10*result.Seconds) / 10,
	}
	switch {
	case runErr != nil:
		log.Error("Restore did not succeed", append(attrs, "error", runErr)...)
	case cmd.Revert != 0:
		log.Info("Reverted a restore", append(attrs, "reverted_run", cmd.Revert)...)
	case result.RowsRestored == 0:
		log.Info("There was nothing to restore", attrs...)
	default:
		log.Info("Restored rows", append(attrs, "revert", fmt.Sprintf("orphan-cleaner restore --revert %d", result.RunID))...)
	}
	if cmd.JSON {
		if err := printJSONLine(s.out, result); err != nil {
			return errors.Join(runErr, fmt.Errorf("writing the result: %w", err))
		}
	} else if err := cmd.table(s, result); err != nil {
		return errors.Join(runErr, err)
	}
	if errors.Is(runErr, run.ErrPaused) { // nothing was done: unlike a run of cron, somebody wants it now
		return shownError{errors.New(runErr.Error())}
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
	t := newTable(fmt.Sprintf("Run %d, %s", r.RunID, r.State), "", "rows")
	if cmd.Revert != 0 {
		t.AppendRows([]table.Row{
			{"deleted again", r.RowsReverted},
			{"left: changed since, alive, on another hold, or gone", r.MembersLeft},
		})
	} else {
		t.AppendRows([]table.Row{
			{"restored", r.RowsRestored},
			{"there already, the same", r.There},
			{"there already and differing, left as they are", r.ThereDiffers},
			{"conversation gone, left in the backup", r.ConversationGone},
			{"restored before and deleted since by others", r.LeftSince},
			{"left: row returned or conversation deleted meanwhile", r.MembersLeft},
		})
	}
	text := &sheet{to: s.out}
	text.table(t)
	if r.Error != "" {
		text.line("%s: %s", r.State, shown(r.Error))
	}
	return text.print()
}
