package migrations_test

import (
	"context"
	"fmt"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp/dbsetup"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// A subscriber to all tables stops at the first row of a partition that it has not
// got. It goes on when it has, without that row until it is refreshed. With
// publish_via_partition_root and plain tables it needs none of this. Where a subscription fills the members the surroundings say so.
// What docs/surroundings.md says of publications.
func TestSubscriber(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cluster, err := pgtemp.Start(ctx, pgtemp.Options{Settings: map[string]string{
		"wal_level": "logical", "wal_retrieve_retry_interval": "100ms",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	for name, viaRoot := range map[string]bool{"leaves": false, "root": true} {
		t.Run(name, func(t *testing.T) {
			sessions := map[string]*session{}
			for _, role := range []string{"publisher", "subscriber"} {
				database := role + "_" + name
				if err := dbsetup.CreateDatabase(ctx, cluster.URL("postgres"), database, ""); err != nil {
					t.Fatal(err)
				}
				if err := dbsetup.Schema(ctx, cluster.URL(database)); err != nil {
					t.Fatal(err)
				}
				if err := dbsetup.Migrate(ctx, cluster.URL(database)); err != nil {
					t.Fatal(err)
				}
				sessions[role] = connect(t, cluster.URL(database), "test")
			}
			publisher, subscriber := sessions["publisher"], sessions["subscriber"]
			u, err := url.Parse(cluster.URL("publisher_" + name))
			if err != nil {
				t.Fatal(err)
			}
			publisher.exec(t, fmt.Sprintf("CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = %t)", viaRoot))
			publisher.exec(t, "SELECT pg_create_logical_replication_slot('"+name+"', 'pgoutput')")
			if viaRoot {
				for _, table := range []string{"conversation_members_audit", "conversation_members_backup"} {
					subscriber.exec(t, "CREATE TABLE plain (LIKE "+table+")")
					subscriber.exec(t, "DROP TABLE "+table+" CASCADE")
					subscriber.exec(t, "ALTER TABLE plain RENAME TO "+table)
				}
			}
			subscriber.exec(t, fmt.Sprintf(
				"CREATE SUBSCRIPTION %s CONNECTION 'host=%s port=%s dbname=%s user=postgres' PUBLICATION everything WITH (create_slot = false, copy_data = false)",
				name, u.Hostname(), u.Port(), "publisher_"+name))
			// It ends with the cluster. DROP SUBSCRIPTION would wait for ever for a worker that makes its
			// slot, which waits for all transactions of the cluster: that of the DROP among them.
			arrives := func(what, query string) {
				t.Helper()
				testdb.Eventually(t, waitLimit, what, func() bool { return is(t, subscriber, query) })
			}

			// What arrives fires no statement trigger, an ALWAYS one neither: the publisher's audit row is the only one.
			publisher.exec(t, "INSERT INTO conversations (id) VALUES ('11111111-1111-1111-1111-111111111111')")
			publisher.exec(t, "INSERT INTO conversation_members (conversation_id, user_id) SELECT id, id FROM conversations")
			arrives("a member", "SELECT EXISTS (SELECT FROM conversation_members)")
			publisher.exec(t, "DELETE FROM conversation_members")
			arrives("its delete", "SELECT NOT EXISTS (SELECT FROM conversation_members) AND EXISTS (SELECT FROM conversation_members_audit)")
			if !is(t, subscriber, "SELECT count(*) = 1 FROM conversation_members_audit") {
				t.Error("the delete is audited twice")
			}

			// In the partition of in three weeks, which the publisher alone has.
			publisher.exec(t, "SELECT orphan_cleaner.partitions_ensure(31)")
			publisher.exec(t, "INSERT INTO conversation_members_backup (user_id, backed_up_at, run_id) VALUES (gen_random_uuid(), now() + interval '21 days', 1)")
			publisher.exec(t, "INSERT INTO conversations (kind, name) VALUES ('group', 'after it')")
			const after = "SELECT EXISTS (SELECT FROM conversations WHERE name = 'after it')"
			if !viaRoot {
				arrives("the subscriber stops", "SELECT apply_error_count > 0 FROM pg_stat_subscription_stats WHERE subname = '"+name+"'")
				if is(t, subscriber, after) {
					t.Error("it went on all the same")
				}
				subscriber.exec(t, "SELECT orphan_cleaner.partitions_ensure(31)")
			}
			arrives("what came after the row", after)
			const row = "SELECT EXISTS (SELECT FROM conversation_members_backup WHERE run_id = 1)"
			if there := is(t, subscriber, row); there != viaRoot {
				t.Errorf("the row itself is there: %t", there)
			}
			if !viaRoot {
				subscriber.exec(t, "ALTER SUBSCRIPTION "+name+" REFRESH PUBLICATION")
			}
			arrives("the row itself", row)
			if !viaRoot && !is(t, subscriber, `SELECT EXISTS (SELECT FROM orphan_cleaner.surroundings() WHERE check_name = 'subscribers' AND status = 'warn'
				AND message LIKE '%subscriptions fill public.conversation_members by leaves: what a run deletes here stays where it comes from%')`) {
				t.Error("the surroundings do not say that a subscription fills the table")
			}
		})
	}
}

// is asks a session a question.
func is(t *testing.T, s *session, query string) bool {
	t.Helper()
	rows, err := s.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	yes, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
	if err != nil {
		t.Fatal(err)
	}
	return yes
}
