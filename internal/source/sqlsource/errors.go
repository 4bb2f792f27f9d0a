package sqlsource

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/safetext"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

// ErrQuery is returned for a query that must not be used. It names what is wrong with it.
var ErrQuery = errors.New("AUTH_SERVICE_QUERY")

// IndexHint is for a query that reads a large table from end to end.
const IndexHint = "CREATE UNIQUE INDEX CONCURRENTLY on the column of the ids, as of the type uuid, then ANALYZE"

// maxQuoted bounds what the server can put into a message of ours, in bytes.
const maxQuoted = 300

// CheckQuery checks what the query is, by description, plan, one execution for a user
// who does not exist, and one for the Known. It returns the large tables that are read from end to end for each
// batch; an [ErrQuery]; a BatchError about a standby; or the error of the database.
func (s *Source) CheckQuery(ctx context.Context) (scanned string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	err = s.read(ctx, func(tx pgx.Tx, behind time.Duration) error {
		is, err := tx.Conn().PgConn().Prepare(ctx, "", s.cfg.Query, nil)
		switch {
		case err != nil:
			return err
		case len(is.ParamOIDs) != 1 || is.ParamOIDs[0] != pgtype.UUIDArrayOID:
			return wrong("it must have one parameter, $1, an array of uuid: write $1::uuid[], and cast the column if its type is another")
		case len(is.Fields) != 1 || is.Fields[0].DataTypeOID != pgtype.UUIDOID:
			return wrong("it must return one column of type uuid, the ids of those users who exist")
		}
		ids := make([]uuid.UUID, source.MaxBatch)
		for i := range ids {
			ids[i] = uuid.New()
		}
		if err := database.Queries(tx).SourcePrefersIndex(ctx); err != nil {
			return err
		}
		var plan []byte
		if err := tx.QueryRow(ctx, "EXPLAIN (VERBOSE, FORMAT JSON) "+s.cfg.Query, ids).Scan(&plan); err != nil {
			return err
		}
		found, err := database.Queries(tx).SourcePlan(ctx, plan)
		switch {
		case err != nil:
			return err
		case found.Writes:
			return wrong("it writes, or locks rows: it must only read")
		case found.Cuts:
			return wrong("it leaves users out, by LIMIT, OFFSET or TABLESAMPLE: it must return all of $1 who exist")
		case found.VolatileFunctions != "":
			return wrong("it calls " + found.VolatileFunctions + ", which is volatile: its answer may change from row to row, and it may write; use functions that are stable or immutable")
		}
		scanned = found.Scanned
		// What only shows when it runs: functions that write, rights, policies.
		rows, err := tx.Query(ctx, s.cfg.Query, ids[:1])
		if err != nil {
			return err
		}
		defer rows.Close()
		if rows.Next() {
			return wrong("it returns a row for a user who does not exist: it must return those of $1 who exist, and nobody else")
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if err := s.checkKnown(ctx, tx, cancel); err != nil {
			return err
		}
		if behind > s.cfg.MaxLag {
			return s.lagging(behind, 0)
		}
		return nil
	})
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && ofQuery(refused.Code) {
		return "", wrong("the database refuses it: " + quoted(err))
	}
	return scanned, err
}

// checkKnown checks what the query returns for users who exist, as far as any are known.
// Whether it finds them is no question of the query: that is what canaries are for.
func (s *Source) checkKnown(ctx context.Context, tx pgx.Tx, cancel func()) error {
	known := s.cfg.Known[:min(len(s.cfg.Known), source.MaxBatch)]
	if len(known) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, s.cfg.Query, known)
	if err != nil {
		return err
	}
	defer rows.Close()
	err = take(rows, known, source.NewAnswer(known), cancel)
	if invalid, ok := errors.AsType[*source.BatchError](err); ok {
		return wrong(invalid.Err.Error())
	}
	return err
}

func wrong(what string) error { return fmt.Errorf("%w: %s", ErrQuery, what) }

// ofQuery says that an SQLSTATE is about what the query is. A right that is missing may be
// granted while the program waits.
func ofQuery(code string) bool {
	return strings.HasPrefix(code, "42") && code != database.NoPrivilege || strings.HasPrefix(code, "22") || strings.HasPrefix(code, "0A") || code == database.ReadOnly
}

// failed turns the error of one attempt into a reason; nil stays nil.
func (s *Source) failed(ctx, call context.Context, users int, err error) *source.BatchError {
	if err == nil {
		return nil
	}
	if invalid, ok := errors.AsType[*source.BatchError](err); ok {
		return invalid
	}
	if reason, cause := source.Ended(ctx, call, s.cfg.Timeout); reason != "" {
		return source.Failed(reason, users, cause)
	}
	return source.Failed(reasonOf(err), users, errors.New(quoted(err)))
}

// reasonOf names an error by the gRPC status that means the same.
func reasonOf(err error) string {
	switch code := database.Code(err); {
	case errors.Is(err, ErrQuery), strings.HasPrefix(code, "42") && code != database.NoPrivilege:
		return "status_failed_precondition"
	case code == database.NoPrivilege, code == database.ReadOnly:
		return "status_permission_denied"
	case strings.HasPrefix(code, "28"):
		return "status_unauthenticated"
	case code == database.StatementTimeout:
		return source.Deadline
	case strings.HasPrefix(code, "53"):
		return "status_resource_exhausted"
	case strings.HasPrefix(code, "40"), code == database.LockNotAvailable:
		return "status_aborted"
	case code == "", strings.HasPrefix(code, "08"), strings.HasPrefix(code, "57P"):
		return source.Transport
	}
	return "status_internal"
}

// quoted is an error in one line that is fit to be shown.
func quoted(err error) string {
	return safetext.Line(strings.Join(strings.Fields(err.Error()), " "), maxQuoted)
}
