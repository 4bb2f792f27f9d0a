package result

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// A refusal says how to go on, word for word: what can be approved, how, and by which
// name its limit is set, where it has one.
func TestRefusalSaysHowToGoOn(t *testing.T) {
	t.Parallel()
	const approve, pin = "orphan-cleaner approve 17, once", "orphan-cleaner limits pin "
	for _, breaker := range settings.BreakerNames() {
		said := (&Refusal{Breaker: breaker, Message: "m", Approve: "orphan-cleaner approve 17"}).Error()
		_, limited := settings.DefaultLimits()[breaker]
		approvable := settings.Approvable(breaker)
		if strings.Contains(said, approve) != approvable || strings.Contains(said, pin+breaker+"=N") != (limited && approvable) ||
			strings.Contains(said, "--max-"+breaker+",") != (limited && approvable) {
			t.Error(said)
		}
		if settles := strings.Contains(said, "; after the server's clock was ahead: orphan-cleaner migrate settle-clock"); settles != (breaker == "clock") {
			t.Error(said)
		}
		if revert := (&Refusal{Breaker: breaker, Message: "m"}).Error(); strings.Contains(revert, "orphan-cleaner approve") || strings.Contains(revert, ": ;") {
			t.Error(revert)
		}
	}
}

// A message has the name of its setting as one would export it.
func TestBreakersNameTheirSettings(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../migrations/00009_create_judge_functions.sql")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, name := range regexp.MustCompile(`\((\w*(?:MAX|CANARY)_\w+)\)'`).FindAllStringSubmatch(string(text), -1) {
		named++
		if !strings.HasPrefix(name[1], "ORPHAN_CLEANER_") {
			t.Errorf("a message names %s", name[1])
		}
	}
	if want := len(settings.DefaultLimits()) + len([]string{"canary-alive", "canary-dead"}); named != want {
		t.Errorf("%d messages name a setting, want %d", named, want)
	}
}
