package database_test

import (
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func open(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := database.Open(t.Context(), testdb.NewEmpty(t).URL, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// What PostgreSQL reads of an array is what was written, and comes back.
func TestArrays(t *testing.T) {
	t.Parallel()
	pool := open(t)
	ids := []uuid.UUID{uuid.New(), uuid.Nil, uuid.Max, uuid.New()}
	places := []pgtype.TID{{BlockNumber: 0, OffsetNumber: 1, Valid: true}, {BlockNumber: 1<<32 - 2, OffsetNumber: 291, Valid: true}}
	var (
		gotIDs    []uuid.UUID
		gotPlaces []pgtype.TID
		asText    string
	)
	err := pool.QueryRow(t.Context(), `SELECT $1::uuid [], $2::tid [], $1::uuid []::text || $2::tid []::text`, ids, places).Scan(&gotIDs, &gotPlaces, &asText)
	if err != nil {
		t.Fatal(err)
	}
	want := "{" + ids[0].String() + "," + ids[1].String() + "," + ids[2].String() + "," + ids[3].String() + `}{"(0,1)","(4294967294,291)"}`
	if !slices.Equal(gotIDs, ids) || !slices.Equal(gotPlaces, places) || asText != want {
		t.Errorf("%v, %v; as text: %s", gotIDs, gotPlaces, asText)
	}
}

// An empty array is none, and null is neither.
func TestArraysOfNothing(t *testing.T) {
	t.Parallel()
	pool := open(t)
	var (
		empty, none []uuid.UUID
		isNull      bool
		length      int
	)
	err := pool.QueryRow(t.Context(), `SELECT $1::uuid [], NULL::uuid [], $2::uuid [] IS NULL, cardinality($1::uuid [])`, []uuid.UUID{}, []uuid.UUID(nil)).
		Scan(&empty, &none, &isNull, &length)
	if err != nil {
		t.Fatal(err)
	}
	if empty == nil || len(empty) > 0 || none != nil || !isNull || length != 0 {
		t.Errorf("%v, %v, null: %t, length %d", empty, none, isNull, length)
	}
}

// What is no list of ids is an error, and not some of them.
func TestArraysOfOtherShapes(t *testing.T) {
	t.Parallel()
	pool := open(t)
	for _, array := range []string{
		`ARRAY[gen_random_uuid(), NULL]`, `ARRAY[NULL]::uuid []`, `ARRAY[ARRAY[gen_random_uuid()], ARRAY[gen_random_uuid()]]`,
	} {
		var ids []uuid.UUID
		if err := pool.QueryRow(t.Context(), `SELECT `+array).Scan(&ids); err == nil {
			t.Errorf("%s: %v", array, ids)
		}
	}
	// Other ways to hold an array go by the codec of pgx.
	var pointers []*uuid.UUID
	if err := pool.QueryRow(t.Context(), `SELECT ARRAY[NULL, gen_random_uuid()]`).Scan(&pointers); err != nil {
		t.Fatal(err)
	}
	if len(pointers) != 2 || pointers[0] != nil || pointers[1] == nil {
		t.Errorf("%v", pointers)
	}
}
