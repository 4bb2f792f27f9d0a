package runbook_test

import (
	"log/slog"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/restore"
)

// A generated column, of the kind that 18 makes unless asked for another, is neither backed up nor compared: members
// are deleted and come back as they were, with the column that they have by then.
func TestVirtualGeneratedColumn(t *testing.T) {
	p := newPlace(t)
	if p.Cluster().Version() < 18 {
		t.Skip("virtual generated columns came with PostgreSQL 18")
	}
	p.Exec("ALTER TABLE conversation_members ADD COLUMN loud text GENERATED ALWAYS AS (upper(role)) VIRTUAL")
	// As `migrate drift --print` has it.
	p.Exec("ALTER TABLE conversation_members_backup ADD COLUMN loud text GENERATED ALWAYS AS (upper(role)) STORED")
	p.Exec("ALTER TABLE conversation_members_backup ALTER COLUMN loud DROP EXPRESSION")
	before := p.Snapshot("conversation_members")
	ran := p.run(false)
	if ran.MembersDeleted != 28 {
		t.Fatalf("%d members deleted", ran.MembersDeleted)
	}
	cfg := restore.DefaultConfig()
	cfg.Host, cfg.Version, cfg.Settings = "test:1", "test", settingsOfARun(t)
	restored, err := restore.New(p.Pool, slog.New(slog.DiscardHandler), cfg).Restore(t.Context(), restore.Selection{Run: ran.RunID})
	if err != nil || restored.MembersRestored != ran.MembersDeleted {
		t.Fatalf("%+v: %v", restored, err)
	}
	if diff := before.Diff(p.Snapshot("conversation_members")); diff != "" {
		t.Error(diff)
	}
}
