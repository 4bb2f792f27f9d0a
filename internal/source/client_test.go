package source

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
)

// What may pass is tried again: a quiet standby, say, is behind for as long as it replays
// a record that it has just received. What cannot pass is not.
func TestTriesAgain(t *testing.T) {
	for reason, calls := range map[string]int{
		Lagging: 2, Deadline: 2, Transport: 2, "status_unavailable": 2,
		ForeignID: 1, TooManyUsers: 1, "status_permission_denied": 1,
	} {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg, _, err := Config{URL: "postgresql://asker@db/auth"}.Complete()
				if err != nil {
					t.Fatal(err)
				}
				asked := 0
				client := New(cfg, func(_ context.Context, ids []uuid.UUID, answer *Answer) *BatchError {
					asked++
					if asked == 1 {
						return Failed(reason, len(ids), nil)
					}
					answer.AddID(ids[0])
					return nil
				})
				missing, err := client.Missing(t.Context(), []uuid.UUID{uuid.New(), uuid.New()})
				if asked != calls || (err == nil) != (calls == 2) || calls == 2 && len(missing) != 1 {
					t.Errorf("%d calls, %d missing, error %v", asked, len(missing), err)
				}
			})
		})
	}
}
