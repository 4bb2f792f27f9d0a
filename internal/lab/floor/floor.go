// Package floor is the least that a run has to do, written apart from it: all
// distinct user ids in one query, calls by a plain client of gRPC or SQL while they come,
// and one DELETE. It audits nothing, checks nobody twice and would delete on one answer.
package floor

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
)

//go:embed users.sql
var usersSQL string

//go:embed living.sql
var livingSQL string

//go:embed delete.sql
var deleteSQL string

//go:embed mark.sql
var markSQL string

// Work is what a floor does, and to which table.
type Work struct {
	Table string // with its schema
	Mark  bool   // set deleted_at, and delete nothing
}

// of is a statement on that table.
func (w Work) of(statement string) string {
	return strings.Replace(statement, "public.conversation_members", w.Table, 1)
}

// The floor's calls are those of a run with its defaults.
const (
	batchSize   = 100
	concurrency = 8
)

// Run deletes the rows of all users that auth-service leaves out, and returns how
// many rows that were.
func Run(ctx context.Context, databaseURL, authURL string, work Work) (deleted int64, err error) {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	ask, hangUp, err := dial(ctx, authURL)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, hangUp()) }()
	missing, err := missing(ctx, conn, ask, work.of(usersSQL))
	if err != nil || len(missing) == 0 {
		return 0, err
	}
	statement := deleteSQL
	if work.Mark {
		statement = markSQL
	}
	tag, err := conn.Exec(ctx, work.of(statement), missing)
	if err != nil {
		return 0, fmt.Errorf("deleting: %w", err)
	}
	return tag.RowsAffected(), nil
}

func missing(ctx context.Context, conn *pgx.Conn, ask living, users string) (all []string, err error) {
	batches, found := make(chan []string), make(chan []string, concurrency)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(batches)
		return scan(ctx, conn, users, batches)
	})
	for range concurrency {
		group.Go(func() error {
			var mine []string
			for batch := range batches {
				gone, err := leftOut(ctx, ask, batch)
				if err != nil {
					return fmt.Errorf("calling auth-service: %w", err)
				}
				mine = append(mine, gone...)
			}
			found <- mine
			return nil
		})
	}
	err = group.Wait()
	close(found)
	for some := range found {
		all = append(all, some...)
	}
	return all, err
}

func scan(ctx context.Context, conn *pgx.Conn, users string, batches chan<- []string) error {
	rows, err := conn.Query(ctx, users)
	if err != nil {
		return fmt.Errorf("reading the user ids: %w", err)
	}
	defer rows.Close()
	var batch []string
	send := func() error {
		select {
		case batches <- batch:
			batch = make([]string, 0, batchSize)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var id uuid.UUID
	for rows.Next() {
		if err := rows.Scan((*[16]byte)(&id)); err != nil {
			return err
		}
		if batch = append(batch, id.String()); len(batch) < batchSize {
			continue
		}
		if err := send(); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil || len(batch) == 0 {
		return err
	}
	return send()
}

// living returns those of a batch who exist.
type living func(ctx context.Context, batch []string) ([]string, error)

func dial(ctx context.Context, authURL string) (ask living, hangUp func() error, err error) {
	address, isGRPC := strings.CutPrefix(authURL, "http://")
	if !isGRPC {
		config, err := pgxpool.ParseConfig(authURL)
		if err != nil {
			return nil, nil, err
		}
		config.MaxConns = concurrency
		pool, err := pgxpool.NewWithConfig(ctx, config)
		if err != nil {
			return nil, nil, err
		}
		ask = func(ctx context.Context, batch []string) ([]string, error) {
			rows, _ := pool.Query(ctx, livingSQL, batch) // its error is that of the rows
			return pgx.CollectRows(rows, pgx.RowTo[string])
		}
		return ask, func() error { pool.Close(); return nil }, nil
	}
	channel, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	client := authservicev1.NewAuthServiceClient(channel)
	ask = func(ctx context.Context, batch []string) (ids []string, err error) {
		response, err := client.GetUsersByIds(ctx, &authservicev1.GetUsersByIdsRequest{UserIds: batch})
		for _, user := range response.GetUsers() {
			ids = append(ids, user.GetId())
		}
		return ids, err
	}
	return ask, channel.Close, nil
}

func leftOut(ctx context.Context, ask living, batch []string) (gone []string, err error) {
	found, err := ask(ctx, batch)
	if err != nil {
		return nil, err
	}
	living := make(map[string]struct{}, len(found))
	for _, id := range found {
		living[id] = struct{}{}
	}
	for _, id := range batch {
		if _, alive := living[id]; !alive {
			gone = append(gone, id)
		}
	}
	return gone, nil
}
