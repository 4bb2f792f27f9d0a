package telemetry_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/telemetry"
)

func TestTextLinesAreTheRunbooks(t *testing.T) {
	var out strings.Builder
	log := telemetry.NewLogger(&out, "text", slog.LevelInfo)
	log.Debug("not shown")
	log.Info("Cleaned 15 orphaned members from 3 conversations", "run_id", 7)
	log.With("target", "auth_client").Error("Failed to connect: transport error", "cause", errors.New(`say "no"`))
	log.With("run_id", 7).WithGroup("call").Warn("two\nlines", "method", "get_users_by_ids", "note", "a b", slog.Group("g", "k", ""))
	want := `INFO orphan_cleaner: Cleaned 15 orphaned members from 3 conversations run_id=7
ERROR auth_client: Failed to connect: transport error cause="say \"no\""
WARN orphan_cleaner: two lines run_id=7 call.method=get_users_by_ids call.note="a b" call.g.k=""
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestJSONLinesCarryTheTargetOnce(t *testing.T) {
	var out strings.Builder
	log := telemetry.NewLogger(&out, "json", slog.LevelInfo)
	log.Info("a")
	log.With("target", "auth_client").With("x", 1).Info("b")
	log.Info("c", "target", "auth_client")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, want := range []string{"orphan_cleaner", "auth_client", "auth_client"} {
		var line map[string]any
		if err := json.Unmarshal([]byte(lines[i]), &line); err != nil {
			t.Fatal(err)
		}
		if line["target"] != want || strings.Count(lines[i], `"target"`) != 1 {
			t.Errorf("line %d: %s", i, lines[i])
		}
	}
}
