package authclient

import (
	"math"
	"testing"

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

// A label for each code that gRPC defines, one for all other numbers.
func TestStatusReasonsAreFinite(t *testing.T) {
	seen := map[string]bool{}
	for code := range codes.Code(10_000) {
		seen[statusReason(code)] = true
	}
	if len(seen) != int(codes.Unauthenticated)+1 || statusReason(4711) != "status_unknown" || statusReason(math.MaxUint32) != "status_unknown" {
		t.Errorf("%d reasons, 4711 is %s", len(seen), statusReason(4711))
	}
}
