package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// EffectsCmd is `effects`.
type EffectsCmd struct {
	List EffectsListCmd `cmd:"" default:"withargs" help:"List what was chosen for counts and owners, and by whom."`
	Set  EffectsSetCmd  `cmd:"" help:"Choose what deletes and restores do with counts and owners."`
}

// effect is what can be chosen, and the choices.
type effect struct {
	name    string
	choices []string
}

func effects() []effect {
	return []effect{{"counter", []string{"on", "trigger", "unread"}}, {"owners", []string{"report", "keep", "promote"}}}
}

// EffectsListCmd is `effects list`, and `effects` alone.
type EffectsListCmd struct {
	DatabaseFlags `group:"Database"`
	JSON          bool `name:"json" help:"Print a JSON array."`
}

// effectLine is one effect; nulls where nobody has chosen.
type effectLine struct {
	Name   string     `json:"name"`
	Choice *string    `json:"choice"`
	SetBy  *string    `json:"set_by"`
	SetAt  *time.Time `json:"set_at"`
}

// Run lists them.
func (cmd *EffectsListCmd) Run(ctx context.Context, s *streams) error {
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	chosen, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) ([]db.OrphanCleanerEffect, error) { return q.EffectList(ctx) })
	if err != nil {
		return fmt.Errorf("reading what was chosen: %w", err)
	}
	lines := make([]effectLine, len(effects()))
	for i, e := range effects() {
		lines[i].Name = e.name
		for _, c := range chosen {
			if c.Name == e.name {
				lines[i].Choice, lines[i].SetBy, lines[i].SetAt = &c.Choice, &c.SetBy, &c.SetAt
			}
		}
	}
	if cmd.JSON {
		return printJSON(s.out, lines)
	}
	t := newTable("Effects of a delete and a restore", "effect", "choice", "of", "chosen by", "at (UTC)")
	for i, l := range lines {
		row := table.Row{l.Name, "not chosen", strings.Join(effects()[i].choices, ", "), "", ""}
		if l.Choice != nil {
			row[1], row[3], row[4] = *l.Choice, *l.SetBy, l.SetAt.UTC().Format(time.DateTime)
		}
		t.AppendRow(row)
	}
	return printTable(s.out, t)
}

// EffectsSetCmd is `effects set`.
type EffectsSetCmd struct {
	DatabaseFlags `group:"Database"`
	Choices       []string `arg:"" name:"name=choice" values:"effects" help:"counter=on, trigger or unread; owners=report, keep or promote."`
	JSONFlag
}

// Run sets all of them or none.
func (cmd *EffectsSetCmd) Run(ctx context.Context, s *streams) error {
	set := map[string]string{}
	for _, text := range cmd.Choices {
		name, choice, _ := strings.Cut(text, "=")
		if !slices.ContainsFunc(effects(), func(e effect) bool { return e.name == name && slices.Contains(e.choices, choice) }) {
			return fmt.Errorf("%w: %q is no choice: counter=on, trigger or unread; owners=report, keep or promote", errUsage, text)
		}
		set[name] = choice
	}
	var lines []string
	for _, e := range effects() {
		if choice, is := set[e.name]; is {
			lines = append(lines, e.name+" is "+choice)
		}
	}
	err := cmd.change(ctx, func(ctx context.Context, q *db.Queries) error {
		for name, choice := range set {
			if err := q.EffectSet(ctx, db.EffectSetParams{Name: name, Choice: choice}); err != nil {
				return fmt.Errorf("setting %s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return cmd.say(s, map[string]any{"set": set}, "%s; runs and restores go by it from their next chunk on; next, as a superuser: psql -f sql/roles.sql; then: orphan-cleaner check", strings.Join(lines, "\n"))
}

// ownersText says what became of conversations, in words; empty: nothing did.
func ownersText(lost, kept, emptied int64) string {
	var parts []string
	for _, part := range []struct {
		text          string
		conversations int64
	}{{"lost their last owner", lost}, {"kept their last owner, who is due", kept}, {"lost their last member", emptied}} {
		if part.conversations > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", part.text, part.conversations))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "conversations that " + strings.Join(parts, "; ")
}
