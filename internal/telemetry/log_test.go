package telemetry_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

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

// Neither a message nor an attribute makes a line of its own, moves the cursor, sets
// a title or turns the text around, whatever a server wrote.
func TestHostileText(t *testing.T) {
	const hostile = "a\x1b]0;owned\a\rb\u202ec\u009b\x7f\xff\nERROR orphan_cleaner: forged"
	for _, format := range []string{"text", "json"} {
		var out strings.Builder
		log := telemetry.NewLogger(&out, format, slog.LevelInfo)
		log.With("own", hostile).Error(hostile, "text", hostile, "error", errors.New(hostile), slog.Group("g", "k", hostile),
			"url", "postgres://u:hunter2@db/x", "long", strings.Repeat("\u202e", 1<<20), "n", 7)
		line, rest, _ := strings.Cut(out.String(), "\n")
		if at := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsGraphic(r) }); at >= 0 || rest != "" || !utf8.ValidString(line) {
			t.Errorf("%s: at %d of %q, %q", format, at, line, rest)
		}
		if strings.Count(line, "owned") != 5 || strings.Contains(line, "hunter2") || len(line) > 10_000 {
			t.Errorf("%s: %d bytes: %s", format, len(line), line)
		}
		if format == "json" && !strings.HasSuffix(line, `"n":7,"target":"orphan_cleaner"}`) {
			t.Errorf("numbers are no numbers: %s", line)
		}
	}
}

// What the server says of an error is attributes of the line, in both formats.
func TestDatabaseErrorsAreAttributes(t *testing.T) {
	said := &pgconn.PgError{
		Severity: "ERROR", Code: "23503", Message: "no", Detail: "Key (a)=(1)\nis referenced", Hint: "look", SchemaName: "public", TableName: "pins", ConstraintName: "pins_fkey",
	}
	for format, want := range map[string]string{
		"text": `WARN orphan_cleaner: m error="deleting: ERROR: no (SQLSTATE 23503)" sqlstate=23503 detail="Key (a)\=(1)\\nis referenced" constraint=pins_fkey table=public.pins hint=look n=7`,
		"json": `"error":"deleting: ERROR: no (SQLSTATE 23503)","sqlstate":"23503","detail":"Key (a)=(1)\\nis referenced","constraint":"pins_fkey","table":"public.pins","hint":"look","n":7,`,
	} {
		var out strings.Builder
		telemetry.NewLogger(&out, format, slog.LevelInfo).Warn("m", "error", fmt.Errorf("deleting: %w", said), "n", 7)
		if want = strings.ReplaceAll(want, `\=`, `=`); !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s, not\n%s", format, out.String(), want)
		}
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
