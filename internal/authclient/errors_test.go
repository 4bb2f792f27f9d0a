package authclient

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

func TestSnake(t *testing.T) {
	for code, want := range map[codes.Code]string{
		codes.NotFound: "not_found", codes.OK: "ok", codes.Canceled: "canceled",
		codes.FailedPrecondition: "failed_precondition", codes.DataLoss: "data_loss",
	} {
		if got := snake(code.String()); got != want {
			t.Errorf("snake(%v) = %q, want %q", code, got, want)
		}
	}
}

// What a server sends must stay on one line and within bounds.
func TestOneLine(t *testing.T) {
	if got := oneLine("a \"b\"\nERROR forged: line\x1b[2J"); got != `a "b"\nERROR forged: line\x1b[2J` {
		t.Errorf("got %s", got)
	}
	if got := oneLine(strings.Repeat("x", 10_000)); len(got) > maxQuoted+10 || !strings.HasSuffix(got, "…") {
		t.Errorf("%d bytes, ends %q", len(got), got[len(got)-5:])
	}
}

func TestSlowMessage(t *testing.T) {
	if got := slowMessage(2300*time.Millisecond, 100); got != "Batch API slow: took 2.3s for 100 users" {
		t.Errorf("got %q", got)
	}
}
