package conform_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/conform"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

type away struct{}

func (away) Once(context.Context, []uuid.UUID) (*source.Answer, *source.BatchError) {
	return nil, &source.BatchError{Reason: source.Transport, Err: errors.New("connection refused")}
}

// Where nobody answers, the users are not what is wrong.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	for _, f := range (conform.Test{Source: away{}, UpperCase: away{}, Alive: []uuid.UUID{uuid.New()}}).Run(t.Context()) {
		if strings.Contains(f.Message, "refused") && f.Name != "upper case" && !strings.Contains(f.Hint, "AUTH_SERVICE_URL") {
			t.Errorf("%+v", f)
		}
	}
}
