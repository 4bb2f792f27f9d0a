package printer_test

import (
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// Whoever applies it owns the tables and is a migrator: what is printed is then owned, and
// its functions run, as all of ours; and goes down again.
func TestAppliedAsMigrator(t *testing.T) {
	t.Parallel()
	d, dir := testdb.New(t), t.TempDir()
	d.Exec(content)
	d.Roles("../../sql/roles.sql")
	login := d.Login("orphan_cleaner_migrator")
	name := testdb.One[string](d, `SELECT r.rolname FROM pg_roles AS r WHERE r.rolcanlogin AND pg_has_role(r.rolname, 'orphan_cleaner_migrator', 'MEMBER') AND NOT r.rolsuper ORDER BY r.oid DESC LIMIT 1`)
	for _, grant := range []string{
		`ALTER SCHEMA content OWNER TO ` + name, `ALTER TABLE content.posts OWNER TO ` + name, `ALTER TABLE content."Likes" OWNER TO ` + name, `ALTER TABLE content.notes OWNER TO ` + name,
		`GRANT CREATE ON SCHEMA public TO ` + name,
	} {
		d.Exec(grant)
	}
	defer d.Exec(`REASSIGN OWNED BY ` + name + ` TO postgres`) // a login with tables cannot be dropped
	printed(t, d, dir, contentFile)
	m := migratorAs(t, login, dir)
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range found(t, d, `SELECT p.proname::text FROM pg_proc AS p WHERE p.pronamespace = 'orphan_cleaner'::regnamespace AND p.proowner <> 'orphan_cleaner_owner'::regrole
		UNION ALL SELECT c.relname::text FROM pg_class AS c WHERE c.relnamespace = 'orphan_cleaner'::regnamespace AND c.relkind IN ('r', 'p') AND c.relowner <> 'orphan_cleaner_owner'::regrole`) {
		t.Errorf("%s is not owned by orphan_cleaner_owner", wrong)
	}
	// What the counters need is named as a statement, until the file of the roles grants it.
	const lacking = `SELECT e.check_name || ': ' || e.hint FROM orphan_cleaner.effects_check() AS e WHERE e.status = 'FAIL' ORDER BY 1`
	if lacks := strings.Join(found(t, d, lacking), "\n"); !strings.Contains(lacks, `counter-of-notes: psql -f sql/roles.sql; or: GRANT USAGE ON SCHEMA content TO orphan_cleaner_owner; GRANT SELECT (id) ON content."Boards" TO orphan_cleaner_owner; GRANT SELECT ("select") ON content."Boards" TO orphan_cleaner_owner; GRANT SELECT (sign) ON content."Boards" TO orphan_cleaner_owner; GRANT UPDATE (sign) ON content."Boards" TO orphan_cleaner_owner`) || !strings.Contains(lacks, "counter-of-likes: ") {
		t.Errorf("it lacks %s", lacks)
	}
	d.Roles("../../sql/roles.sql")
	if lacks := found(t, d, lacking); len(lacks) > 0 {
		t.Errorf("after roles.sql it lacks %s", lacks)
	}
	d.Exec(`INSERT INTO content.posts (author_id) VALUES (gen_random_uuid())`)
	if n := testdb.One[int64](d, `SELECT p.row_count FROM orphan_cleaner.posts_page('00000000-0000-0000-0000-000000000000', 10) AS p`); n != 1 {
		t.Errorf("%d rows", n)
	}
	if _, err := m.DownTo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
}
