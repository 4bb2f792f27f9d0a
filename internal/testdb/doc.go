// Package testdb gives each test a PostgreSQL database of its own.
//
// A test binary has one throw-away cluster, started when the first test asks
// for a database. The tables of messaging-service and all migrations are
// applied once, to a template; each test gets a clone of it, some 50 ms later.
// Tests may so run in parallel, commit, alter tables, and drop triggers.
// Only roles and tablespaces are shared: they belong to the cluster.
//
//	func TestMain(m *testing.M) { testdb.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		db := testdb.New(t)
//		db.Exec("INSERT INTO orphan_cleaner.holds …")
//	}
//
// The database of a test that passed is dropped at once. That of a test that
// failed is kept until the binary ends, and with ORPHAN_CLEANER_TEST_KEEP=1 the
// cluster stays up even then; the test's output says how to connect.
package testdb
