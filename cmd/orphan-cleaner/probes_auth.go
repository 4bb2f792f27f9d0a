package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/source/sqlsource"
)

// What `check` looks at of auth-service.

// dialProbed connects to auth-service, and returns what there is to check of it.
func dialProbed(ctx context.Context, auth AuthFlags, canaries CanaryFlags, log *slog.Logger) (users, []check.Probe, error) {
	alive, dead, err := canaries.canaries()
	if err != nil {
		return nil, nil, err
	}
	client, err := auth.dialAs(ctx, source.Config{Logger: log, Known: alive})
	if err != nil {
		return nil, nil, err
	}
	probes := []check.Probe{authProbe(client, auth.AuthServiceURL), plaintextProbe(auth.AuthServiceURL), canaryProbe(client, alive, dead)}
	if bySQL, isSQL := client.(*sqlsource.Source); isSQL {
		probes[1] = encryptionProbe("auth-service-tls", "AUTH_SERVICE_URL", bySQL.Pool())
		probes = append(probes, queryProbe(bySQL))
	}
	return client, probes, nil
}

// authProbe is the preflight's check of auth-service.
func authProbe(client users, address string) check.Probe {
	hint := "check AUTH_SERVICE_URL and auth-service: grpcurl -plaintext HOST:9080 grpc.health.v1.Health/Check"
	if end, err := source.ParseURL(address); err == nil && end.Kind != source.GRPC {
		hint = "check AUTH_SERVICE_URL: orphan-cleaner check --source"
	}
	return func(ctx context.Context) check.Finding {
		health, err := client.Health(ctx)
		switch {
		case err != nil:
			return failure("auth-service", err.Error(), hint)
		case health == source.HealthUnimplemented:
			return probeCall(ctx, client)
		default:
			return fine("auth-service", "SERVING at "+withoutSecrets(address))
		}
	}
}

// probeCall stands in for the health service where there is none: one call about
// a user that nobody is.
func probeCall(ctx context.Context, client users) check.Finding {
	if _, err := client.Missing(ctx, []uuid.UUID{uuid.Nil}); err != nil {
		return failure("auth-service", err.Error(), "auth-service has no grpc.health.v1 and answers GetUsersByIds wrongly: check AUTH_SERVICE_URL and AUTH_SERVICE_METHOD")
	}
	return warning("auth-service", "has no grpc.health.v1.Health; a probe call was answered", "register the health service in auth-service")
}

// plaintextProbe tells whether somebody between could answer for auth-service.
func plaintextProbe(raw string) check.Probe {
	const name = "auth-service-tls"
	return func(context.Context) check.Finding {
		end, err := source.ParseURL(raw)
		host, _, splitErr := net.SplitHostPort(end.Address)
		switch {
		case err != nil || splitErr != nil:
			return failure(name, "AUTH_SERVICE_URL cannot be read", "export AUTH_SERVICE_URL=http://auth-service:9080")
		case end.TLS:
			return fine(name, "encrypted: no call without a verified certificate")
		case local(host):
			return fine(name, "not needed: auth-service is on this machine")
		default:
			return warning(name, "plaintext to "+end.Address+": anybody between can answer in its name", end.Scheme+"s:// in AUTH_SERVICE_URL; where a service mesh encrypts, all is well")
		}
	}
}

// queryProbe looks at the query of a source that is a database.
func queryProbe(users *sqlsource.Source) check.Probe {
	const name = "auth-service-query"
	return func(ctx context.Context) check.Finding {
		switch scanned, err := users.CheckQuery(ctx); {
		case err != nil:
			return failure(name, oneLine(err), "correct AUTH_SERVICE_QUERY, or the grants and indexes of its tables")
		case scanned != "":
			return warning(name, "each batch reads "+scanned+" from end to end", sqlsource.IndexHint)
		default:
			return fine(name, "reads only, uuid in and out, no large table from end to end")
		}
	}
}

// sameDatabaseProbe warns where the users are asked for in the database of the members:
// there is at best a copy of them.
func sameDatabaseProbe(members, users *pgxpool.Pool) check.Probe {
	const name = "auth-service-database"
	return func(ctx context.Context) check.Finding {
		ctx, cancel := context.WithTimeout(ctx, probeLimit)
		defer cancel()
		here, err := database.Queries(members).SourceIdentity(ctx)
		there, thereErr := database.Queries(users).SourceIdentity(ctx)
		switch {
		case err != nil || thereErr != nil:
			return warning(name, "whether it is another database than the members' is not known: "+oneLine(errors.Join(err, thereErr)), "GRANT EXECUTE ON FUNCTION pg_control_system TO both logins")
		case here == there:
			return warning(name, "AUTH_SERVICE_URL is the members' own database: a shadow table of users may be out of date, or not kept at all", "point AUTH_SERVICE_URL at the database in which users are created and deleted")
		default:
			return fine(name, "is another than the members'")
		}
	}
}

// canaryProbe checks users of whom it is known whether they exist: an auth-service that does
// not know it is another environment's.
func canaryProbe(client users, alive, dead []uuid.UUID) check.Probe {
	const name = "canaries"
	const hint = "is this the auth-service of this database? check AUTH_SERVICE_URL, ORPHAN_CLEANER_CANARY_ALIVE and ORPHAN_CLEANER_CANARY_DEAD"
	return func(ctx context.Context) check.Finding {
		if len(alive)+len(dead) == 0 {
			return warning(name, "none is configured: nothing tells another environment's auth-service from the right one", "export ORPHAN_CLEANER_CANARY_ALIVE=UUID, a user who must never be missing")
		}
		var wrong []string
		for batch := range slices.Chunk(slices.Concat(alive, dead), source.MaxBatch) {
			missing, err := client.Missing(ctx, batch)
			if failed, is := errors.AsType[*source.BatchError](err); is && failed.Unreachable() {
				return failure(name, "not checked: there is no connection to auth-service", "see auth-service")
			}
			if err != nil {
				return failure(name, oneLine(err), hint)
			}
			for _, id := range batch {
				switch gone := slices.Contains(missing, id); {
				case gone && slices.Contains(alive, id):
					wrong = append(wrong, id.String()+" of ORPHAN_CLEANER_CANARY_ALIVE is missing")
				case !gone && slices.Contains(dead, id):
					wrong = append(wrong, id.String()+" of ORPHAN_CLEANER_CANARY_DEAD is present")
				}
			}
		}
		if len(wrong) > 0 {
			return failure(name, strings.Join(wrong, ", "), hint)
		}
		return fine(name, fmt.Sprintf("%d living and %d deleted users are as they should be", len(alive), len(dead)))
	}
}
