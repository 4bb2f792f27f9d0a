package main

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// secret is a password with everything in it that a URL may carry as it is; in
// the URL it is percentEncoded.
const (
	secret         = "s3cr3t/@:?#[]&%+ $'\"é"
	secretCore     = "s3cr3t"
	percentEncoded = "s3cr3t%2F%40%3A%3F%23%5B%5D%26%25%2B%20%24%27%22%C3%A9"
)

// noSecret fails the test where any part of the password was shown.
func noSecret(t *testing.T, e ended) {
	t.Helper()
	if strings.Contains(e.stdout+e.stderr, secretCore) {
		t.Errorf("the password was shown: %s", e)
	}
}

// lastLine is the line that a person reads first.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	return lines[len(lines)-1]
}

// What is wrong in itself is refused before anything is asked: exit status 2 and
// one line.
func TestWrongUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	before := contents(t, w.DB)
	const database, auth = "DATABASE_URL=", "AUTH_SERVICE_URL="
	for name, bad := range map[string]struct {
		unset string   // a setting of the world that is not there
		env   []string // further settings
		args  []string // default: run
		says  []string // all of them
	}{
		"no database":            {unset: database, says: []string{"DATABASE_URL is not set", "export DATABASE_URL=postgres://"}},
		"no database to check":   {unset: database, args: []string{"check"}, says: []string{"DATABASE_URL is not set", "export"}},
		"no database to migrate": {unset: database, args: []string{"migrate", "up"}, says: []string{"DATABASE_URL is not set", "export"}},
		"no database, status":    {unset: database, args: []string{"status"}, says: []string{"DATABASE_URL is not set", "export"}},
		"no auth-service":        {unset: auth, says: []string{"AUTH_SERVICE_URL is not set", "export AUTH_SERVICE_URL=http://"}},
		"database word":          {env: []string{database + "messaging"}, says: []string{"DATABASE_URL is not a PostgreSQL URL", "want postgres://"}},
		"database http":          {env: []string{database + "http://u:" + secretCore + "@db/messaging"}, says: []string{"DATABASE_URL", "want postgres://"}},
		"database port":          {env: []string{database + "postgres://u:" + percentEncoded + "@db:99999999/m"}, says: []string{"DATABASE_URL", "want"}},
		"database escape":        {env: []string{database + "postgres://u:" + secretCore + "%zz@db/m"}, says: []string{"DATABASE_URL", "want"}},
		"database raw password":  {env: []string{database + "postgres://u:" + secret + "@db/m"}, says: []string{"DATABASE_URL", "want"}},
		"database option":        {env: []string{database + "postgres://u:" + percentEncoded + "@db/m?sslmode=bogus"}, says: []string{"DATABASE_URL", "want"}},
		"database key words":     {env: []string{database + "host=db password=" + secretCore}, says: []string{"DATABASE_URL", "want"}},
		"database file missing":  {env: []string{"DATABASE_URL_FILE=/nowhere/url"}, says: []string{"DATABASE_URL_FILE", "/nowhere/url"}},
		"database file is a URL": {env: []string{"DATABASE_URL_FILE=postgres://u:" + secretCore + "@db/m"}, says: []string{"DATABASE_URL_FILE is the name of a file"}},
		"connections":            {env: []string{"DATABASE_MAX_CONNECTIONS=1"}, says: []string{"DATABASE_MAX_CONNECTIONS", "at least 2"}},
		"auth-service word":      {env: []string{auth + "auth-service"}, says: []string{"AUTH_SERVICE_URL", "write it as http://"}},
		"auth-service scheme":    {env: []string{auth + "grpc://auth-service:9080"}, says: []string{"AUTH_SERVICE_URL", "write it as http://"}},
		"auth-service password":  {env: []string{auth + "http://u:" + secretCore + "@auth-service"}, says: []string{"AUTH_SERVICE_URL", "write it as http://"}},
		"auth-service port":      {env: []string{auth + "http://auth-service:0"}, says: []string{"AUTH_SERVICE_URL", "port"}},
		"targets file missing":   {args: []string{"run", "--targets=nowhere.yaml"}, says: []string{"nowhere.yaml:1:1: it cannot be read"}},
		"method":                 {args: []string{"run", "--auth-service-method=GetUsersByIds"}, says: []string{"AUTH_SERVICE_METHOD", "write it as"}},

		"password in ps":                        {args: []string{"run", "--database-url=postgres://u:" + percentEncoded + "@db/m"}, says: []string{"seen by everybody in ps", "--database-url-file"}},
		"password option in ps":                 {args: []string{"run", "--database-url=postgres://u@db/m?password=" + percentEncoded}, says: []string{"seen by everybody in ps"}},
		"password in ps and in the environment": {env: []string{database + "postgres://u:" + percentEncoded + "@db/m"}, args: []string{"run", "--database-url=postgres://u:" + percentEncoded + "@db/m"}, says: []string{"seen by everybody in ps"}},
		"password in wrong flag":                {args: []string{"run", "--log-format=postgres://u:" + secret + "@db/m"}, says: []string{"--log-format", "[not shown]"}},
		"password, wrong number":                {env: []string{"DATABASE_MAX_CONNECTIONS=postgres://u:" + secret + "@db/m"}, says: []string{"--database-max-connections"}},
		"password as argument":                  {args: []string{"run", "postgres://u:" + secret + "@db/m"}, says: []string{"unexpected argument"}},

		"batch 0":             {args: []string{"run", "--batch-size=0"}, says: []string{"BATCH_SIZE is 0", "1 to 100"}},
		"batch 101":           {args: []string{"run", "--batch-size=101"}, says: []string{"BATCH_SIZE is 101", "1 to 100"}},
		"batch 0, set":        {env: []string{"ORPHAN_CLEANER_BATCH_SIZE=0"}, says: []string{"BATCH_SIZE is 0", "1 to 100"}},
		"batch 101, set":      {env: []string{"ORPHAN_CLEANER_BATCH_SIZE=101"}, says: []string{"BATCH_SIZE is 101", "1 to 100"}},
		"retention 30":        {args: []string{"run", "--retention=30"}, says: []string{`"30" is not a duration`, "30d"}},
		"retention 30, set":   {env: []string{"ORPHAN_CLEANER_RETENTION=30"}, says: []string{`"30" is not a duration`, "ORPHAN_CLEANER_RETENTION"}},
		"retention -1d":       {args: []string{"run", "--retention=-1d"}, says: []string{`"-1d" is not a duration`, "30d"}},
		"retention -1d apart": {args: []string{"run", "--retention", "-1d"}, says: []string{"--retention"}},
		"retention -1d, set":  {env: []string{"ORPHAN_CLEANER_RETENTION=-1d"}, says: []string{`"-1d" is not a duration`, "30d"}},
		"retention nothing":   {env: []string{"ORPHAN_CLEANER_RETENTION="}, says: []string{"is not a duration", "30d"}},
		"retention 0d":        {args: []string{"run", "--retention=0d"}, says: []string{"is not a duration"}},
		"retention 12h":       {args: []string{"run", "--retention=12h"}, says: []string{"RETENTION is 12h", "--allow-short-retention"}},
		"retention 12h, set":  {env: []string{"ORPHAN_CLEANER_RETENTION=12h"}, says: []string{"RETENTION is 12h", "--allow-short-retention"}},
		"retention, too long": {args: []string{"run", "--retention=99999999999d"}, says: []string{"is not a duration"}},
		"retention in status": {args: []string{"status", "--retention=30"}, says: []string{"is not a duration"}},

		"share":           {args: []string{"run", "--max-delete-share=5"}, says: []string{"MAX_DELETE_SHARE", "0 to 1"}},
		"share NaN":       {args: []string{"run", "--max-new-missing-share=NaN"}, says: []string{"MAX_NEW_MISSING_SHARE", "0 to 1"}},
		"negative limit":  {args: []string{"run", "--max-delete-members=-1"}, says: []string{"MAX_DELETE_ROWS"}},
		"concurrency":     {args: []string{"run", "--concurrency=0"}, says: []string{"CONCURRENCY", "1 to 64"}},
		"lease":           {args: []string{"run", "--lease=10ms"}, says: []string{"LEASE", "1s"}},
		"interval":        {args: []string{"run", "--interval=10ms"}, says: []string{"INTERVAL", "1s"}},
		"chunk":           {args: []string{"run", "--chunk-rows=0"}, says: []string{"CHUNK_ROWS", "1 to"}},
		"chunk time":      {args: []string{"run", "--chunk-time=11s"}, says: []string{"CHUNK_TIME", "1ms to 10s"}},
		"nice ratio":      {args: []string{"run", "--nice-ratio=101"}, says: []string{"NICE_RATIO", "0 to 100"}},
		"unknown flag":    {args: []string{"run", "--dryrun"}, says: []string{"unknown flag --dryrun", "--help"}},
		"stray argument":  {args: []string{"run", "now"}, says: []string{"unexpected argument now", "--help"}},
		"unknown command": {args: []string{"clean"}, says: []string{"unexpected argument clean", "--help"}},
		"half a command":  {args: []string{"migrate"}, says: []string{"up", "down", "status", "--help"}},
		"status of none":  {args: []string{"status", "--runs=0"}, says: []string{"--runs", "1 or more"}},

		// The help that is named has the flag, and an example of the command.
		"no reason":        {args: []string{"hold", "add"}, says: []string{"--reason", "see: orphan-cleaner hold add --help"}},
		"a bare user":      {args: []string{"hold", "add", "6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10"}, says: []string{"unexpected argument", "see: orphan-cleaner hold add --help"}},
		"no run":           {args: []string{"approve"}, says: []string{"<run>", "see: orphan-cleaner approve --help"}},
		"part of migrate":  {args: []string{"migrate"}, says: []string{`"up"`, "see: orphan-cleaner migrate --help"}},
		"misspelt flag":    {args: []string{"run", "--retentoin=30d"}, says: []string{`did you mean "--retention"`, "see: orphan-cleaner run --help"}},
		"misspelt command": {args: []string{"restroe"}, says: []string{`did you mean "restore"`, "see: orphan-cleaner --help"}},
		// What a value must be, in words of the reader.
		"batch in words":       {args: []string{"run", "--batch-size=ten"}, says: []string{`--batch-size: "ten" is not a whole number`, "see: orphan-cleaner run --help"}},
		"run in words":         {args: []string{"approve", "two"}, says: []string{`<run>: "two" is not a whole number`}},
		"hold by name":         {args: []string{"hold", "remove", "user"}, says: []string{`: <hold>: "user" is not a whole number`, "see: orphan-cleaner hold remove --help"}},
		"share in percent":     {args: []string{"run", "--max-delete-share=5%"}, says: []string{`--max-delete-share: "5%" is not a number such as 0.05`}},
		"rate in words, set":   {env: []string{"ORPHAN_CLEANER_MAX_QPS=fast"}, says: []string{`--max-qps: "fast" is not a number such as 0.05`, "ORPHAN_CLEANER_MAX_QPS"}},
		"negative limit apart": {args: []string{"run", "--max-delete-share", "-0.1"}, says: []string{`--max-delete-share: "-0.1" begins with a dash, which no value does`}},
		"negative run":         {args: []string{"restore", "--run", "-1"}, says: []string{`--run: "-1" begins with a dash, which no value does`, "see: orphan-cleaner restore --help"}},
		"approve a negative":   {args: []string{"fleet", "approve", "-1"}, says: []string{"unknown flag -1; see: orphan-cleaner fleet approve --help"}},
		// The example can be copied, and the name can be exported.
		"no database, whole":  {unset: database, says: []string{"export DATABASE_URL=postgres://user@host:5432/messaging"}},
		"mysql":               {env: []string{database + "mysql://u@h/messaging"}, says: []string{"want postgres://user@host:5432/messaging"}},
		"auth-service, whole": {env: []string{auth + "auth-service:9080"}, says: []string{"postgresql://user@host:5432/auth"}},
		"name of a setting":   {args: []string{"run", "--batch-size=101"}, says: []string{"ORPHAN_CLEANER_BATCH_SIZE is 101"}},
		"name of retention":   {args: []string{"run", "--retention=12h"}, says: []string{"ORPHAN_CLEANER_RETENTION is 12h"}},
		"name of a limit":     {args: []string{"run", "--max-delete-share=5"}, says: []string{"ORPHAN_CLEANER_MAX_DELETE_SHARE is 5"}},
		"name of a canary":    {args: []string{"run", "--canary-alive=me"}, says: []string{`ORPHAN_CLEANER_CANARY_ALIVE: "me" is not a UUID`}},
		"name of a window":    {args: []string{"prune", "--restore-window=1h"}, says: []string{"ORPHAN_CLEANER_RESTORE_WINDOW is 1h"}},
		"name of an address":  {args: []string{"serve", "--metrics-addr=nonsense"}, says: []string{"ORPHAN_CLEANER_METRICS_ADDR: "}},
		"a user of no UUID":   {args: []string{"hold", "add", "--user=me", "--reason=x"}, says: []string{`--user "me" is not a UUID`}},
		// States that are not as the reader thinks.
		"pin a short retention": {args: []string{"limits", "pin", "retention=1h"}, says: []string{"retention is 1h, under one day", "orphan-cleaner limits pin retention=1d"}},
		// Whatever is wrong, the command or the help that says how to fix it is named.
		"hold of nothing":     {args: []string{"hold", "add", "--reason=x"}, says: []string{"give either --user or --conversation", "see: orphan-cleaner hold add --help"}},
		"hold without a why":  {args: []string{"hold", "add", "--user=6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10", "--reason="}, says: []string{"--reason is empty", "see: orphan-cleaner hold add --help"}},
		"hold of a novel":     {args: []string{"hold", "add", "--user=6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10", "--reason=" + strings.Repeat("x", 501)}, says: []string{"--reason has 501 bytes, 500 at most", "see: orphan-cleaner hold add --help"}},
		"pause of a novel":    {args: []string{"pause", "--reason=" + strings.Repeat("x", 501)}, says: []string{"--reason has 501 bytes, 500 at most", "see: orphan-cleaner pause --help"}},
		"port alone":          {args: []string{"serve", "--metrics-addr=9091"}, says: []string{"missing port in address", "choose another with --metrics-addr, such as :9091"}},
		"two names of one":    {env: []string{"ORPHAN_CLEANER_MAX_DELETE_ROWS=5", "ORPHAN_CLEANER_MAX_DELETE_MEMBERS=7"}, says: []string{"ORPHAN_CLEANER_MAX_DELETE_ROWS and ORPHAN_CLEANER_MAX_DELETE_MEMBERS are one setting with two values", "unset ORPHAN_CLEANER_MAX_DELETE_MEMBERS"}},
		"no hold to remove":   {args: []string{"hold", "remove"}, says: []string{"--restore RUN", "see: orphan-cleaner hold remove --help"}},
		"restore backwards":   {args: []string{"restore", "--since=2026-01-31", "--until=2026-01-30"}, says: []string{"--since must be before --until", "see: orphan-cleaner restore --help"}},
		"report backwards":    {args: []string{"report", "--since=2026-02-01", "--until=2026-01-01"}, says: []string{"is not after", "see: orphan-cleaner report --help"}},
		"pin of nothing":      {args: []string{"limits", "pin", "delete-shar=0.1"}, says: []string{`no limit "delete-shar", did you mean delete-share? See: orphan-cleaner limits`}},
		"pin in percent":      {args: []string{"limits", "pin", "delete-share=5%"}, says: []string{`"5%" is not a number such as 0.05`, "see: orphan-cleaner limits pin --help"}},
		"pinned twice":        {args: []string{"limits", "pin", "retention=60d", "retention=30d"}, says: []string{"retention is given twice", "see: orphan-cleaner limits pin --help"}},
		"canary of both":      {env: []string{"ORPHAN_CLEANER_CANARY_ALIVE=6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10", "ORPHAN_CLEANER_CANARY_DEAD=6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10"}, says: []string{"is both in", "see: orphan-cleaner run --help"}},
		"textfile":            {args: []string{"run", "--metrics-textfile=/var/tmp/cleaner.txt"}, says: []string{"ORPHAN_CLEANER_METRICS_TEXTFILE", "ends in .prom"}},
		"retention 0s":        {args: []string{"run", "--retention=0s"}, says: []string{"is not a duration", "above 0"}},
		"no value":            {args: []string{"report", "--html"}, says: []string{"--html: a value is missing"}},
		"a flag for a value":  {args: []string{"status", "--watch", "--json"}, says: []string{`--watch: a value is missing before "--json"`}},
		"name of Pushgateway": {env: []string{"ORPHAN_CLEANER_PUSHGATEWAY_URL=pushgateway:9091"}, says: []string{"ORPHAN_CLEANER_PUSHGATEWAY_URL is not a URL", "write it as http://"}},
		"where it was set":    {env: []string{"ORPHAN_CLEANER_WINDOW=Wed 02:00-04:00 Mars/Olympus"}, says: []string{"there is no zone Mars/Olympus", "(from ORPHAN_CLEANER_WINDOW="}},
		"number of no int32":  {args: []string{"status", "--runs=99999999999"}, says: []string{`--runs: "99999999999" is too large a number`}},
		"no word":             {args: []string{""}, says: []string{`unexpected argument ""`}},
		"no word more":        {args: []string{"run", ""}, says: []string{`unexpected argument ""; see: orphan-cleaner run --help`}},
		"a call in years":     {args: []string{"run", "--max-qps=1e-9"}, says: []string{"ORPHAN_CLEANER_MAX_QPS is 1e-09, it must be 0.01 calls a second or more"}},
		"a device of URLs":    {env: []string{"DATABASE_URL_FILE=/dev/zero"}, says: []string{"DATABASE_URL_FILE: read /dev/zero: is longer than 4 MiB"}},
		"a device of tokens":  {env: []string{"AUTH_SERVICE_TOKEN_FILE=/dev/zero"}, says: []string{"AUTH_SERVICE_TOKEN_FILE: ", "is longer than 4 MiB"}},
		"a device of CAs":     {env: []string{"AUTH_SERVICE_CA_FILE=/dev/zero", "AUTH_SERVICE_URL=https://auth-service"}, says: []string{"the CA of auth-service", "is longer than 4 MiB"}},
		"a device of keys":    {env: []string{"AUTH_SERVICE_CERT_FILE=/dev/zero", "AUTH_SERVICE_KEY_FILE=/dev/zero", "AUTH_SERVICE_URL=https://auth-service"}, says: []string{"the client certificate", "is longer than 4 MiB"}},
		"a device to set":     {args: []string{"run", "--config=/dev/zero"}, says: []string{"--config: read /dev/zero: is longer than 4 MiB"}},
		"a device of targets": {args: []string{"run", "--targets=/dev/zero"}, says: []string{"/dev/zero:1:1: it cannot be read", "is longer than 4 MiB"}},
		"a device of shards":  {args: []string{"fleet", "status", "--fleet=/dev/zero"}, says: []string{"/dev/zero:1:1: it cannot be read", "is longer than 4 MiB"}},
		"no targets":          {args: []string{"target", "check", "/nowhere.yaml"}, says: []string{"no such file", "see: orphan-cleaner target check --help"}},
		"no fleet":            {args: []string{"fleet", "run", "--fleet=/nowhere.yaml"}, says: []string{"no such file", "see: orphan-cleaner fleet run --help"}},
		"report of tomorrow":  {args: []string{"report", "--since=2999-01-01"}, says: []string{"2999-01-01", "is in the future"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := slices.DeleteFunc(slices.Clone(w.env), func(s string) bool { return bad.unset != "" && strings.HasPrefix(s, bad.unset) })
			args := bad.args
			if args == nil {
				args = []string{"run"}
			}
			e := program(t, append(env, bad.env...), args...).expect(t, exitUsage)
			if strings.Count(e.stderr, "\n") != 1 || e.stdout != "" {
				t.Errorf("want one line on stderr alone, got %s", e)
			}
			for _, part := range bad.says {
				if !strings.Contains(e.stderr, part) {
					t.Errorf("the message does not say %q: %s", part, e.stderr)
				}
			}
			noSecret(t, e)
		})
	}
	// Registered before the subtests went on in parallel, so it runs after them,
	// and before the database goes.
	t.Cleanup(func() {
		if after := contents(t, w.DB); after != before {
			t.Errorf("wrong usage changed the database:\n%s\nwas\n%s", after, before)
		}
	})
}

// What only a server can tell ends with exit status 1 and a message with the
// hint; nothing changes but for the record of the failed run.
func TestServersRefuse(t *testing.T) {
	t.Parallel()
	const closedPort = "127.0.0.1:1" // nobody listens on tcpmux
	for name, bad := range map[string]struct {
		make  func(testing.TB) *testdb.DB // default: migrated
		spoil string
		env   []string
		says  []string
	}{
		"database unreachable":       {env: []string{"DATABASE_URL=postgres://u:" + percentEncoded + "@" + closedPort + "/messaging"}, says: []string{"connection refused", "check DATABASE_URL"}},
		"password as option":         {env: []string{"DATABASE_URL=postgres://u@" + closedPort + "/messaging?password=" + percentEncoded + "&sslmode=disable"}, says: []string{"connection refused", "check DATABASE_URL"}},
		"database host unknown":      {env: []string{"DATABASE_URL=postgres://u:" + percentEncoded + "@nowhere.invalid/messaging"}, says: []string{"nowhere.invalid", "check DATABASE_URL"}},
		"auth-service unreachable":   {env: []string{"AUTH_SERVICE_URL=http://" + closedPort}, says: []string{"auth-service", "connection refused", "check AUTH_SERVICE_URL"}},
		"auth-service is PostgreSQL": {env: []string{"AUTH_SERVICE_URL=postgresql"}, says: []string{"auth-service", "check AUTH_SERVICE_URL"}},
		"another database":           {make: testdb.NewEmpty, says: []string{"no table public.conversation_members", "messaging-service's database"}},
		"no migrations yet":          {make: testdb.NewBare, says: []string{"no migration has been applied", "orphan-cleaner migrate up"}},
		"migration too old":          {spoil: "DELETE FROM orphan_cleaner_goose WHERE version_id = (SELECT max(version_id) FROM orphan_cleaner_goose)", says: []string{"this program needs", "orphan-cleaner migrate up"}},
		"migration taken back":       {spoil: "INSERT INTO orphan_cleaner_goose (version_id, is_applied) SELECT max(version_id), false FROM orphan_cleaner_goose", says: []string{"this program needs", "orphan-cleaner migrate up"}},
		"migration too new":          {spoil: "INSERT INTO orphan_cleaner_goose (version_id, is_applied) VALUES (99999, true)", says: []string{"at migration 99999", "newer orphan-cleaner"}},
		"trigger dropped":            {spoil: "DROP TRIGGER conversation_members_audit_delete ON conversation_members", says: []string{"conversation_members_audit_delete", "hint"}},
		"trigger disabled":           {spoil: "ALTER TABLE conversation_members DISABLE TRIGGER conversation_members_audit_delete", says: []string{"is disabled", "ENABLE ALWAYS TRIGGER conversation_members_audit_delete"}},
		"no index":                   {spoil: "DROP INDEX conversation_members_user_id", says: []string{"no valid index", "CREATE INDEX CONCURRENTLY"}},
		"backup lacks a column":      {spoil: "ALTER TABLE conversation_members ADD COLUMN nickname text", says: []string{"nickname", "ALTER TABLE public.conversation_members_backup ADD COLUMN"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if bad.make == nil {
				bad.make = testdb.New
			}
			db, auth := bad.make(t), newAuth(t)
			if bad.spoil != "" {
				db.Exec(bad.spoil)
			}
			env := append([]string{"DATABASE_URL=" + db.URL, "AUTH_SERVICE_URL=" + auth.URL()}, bad.env...)
			if i := slices.Index(env, "AUTH_SERVICE_URL=postgresql"); i >= 0 {
				env[i] = "AUTH_SERVICE_URL=http://" + hostOf(t, db)
			}
			before := contents(t, db, "orphan_cleaner.runs")
			commands := [][]string{{"run", "--json"}, {"run", "--dry-run", "--json"}, {"check"}}
			var programs []*started
			for _, args := range commands {
				programs = append(programs, start(t, env, args...))
			}
			for i, args := range commands {
				e := programs[i].wait(t).expect(t, exitFailed)
				told := lastLine(e.stderr)
				if args[0] == "check" {
					told = failures(e.stdout)
				} else if r := e.result(t); r["state"] != "failed" || r["members_deleted"] != 0.0 {
					t.Errorf("%v: %s", args, e)
				}
				for _, part := range bad.says {
					if !strings.Contains(told, part) {
						t.Errorf("%v does not say %q: %s", args, part, e)
					}
				}
				noSecret(t, e)
			}
			if after := contents(t, db, "orphan_cleaner.runs"); after != before {
				t.Errorf("the database changed:\n%s\nwas\n%s", after, before)
			}
			if strings.Contains(before, "orphan_cleaner.runs") && db.Count("orphan_cleaner.runs WHERE state <> 'failed' OR members_deleted > 0 OR error IS NULL") != 0 {
				t.Error("orphan_cleaner.runs holds more than failures")
			}
			if auth.Calls() != 0 {
				t.Errorf("auth-service was asked about users %d times", auth.Calls())
			}
		})
	}
}

// failures are the lines of `check` that failed, with their hints.
func failures(stdout string) string {
	var b strings.Builder
	failed := false
	for line := range strings.Lines(stdout) {
		if !strings.HasPrefix(line, " ") {
			failed = strings.HasPrefix(line, "FAIL")
		}
		if failed {
			b.WriteString(line)
		}
	}
	return b.String()
}

func hostOf(t *testing.T, db *testdb.DB) string {
	t.Helper()
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// A server that asks for a password refuses a wrong one; nobody reads it anywhere.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	cluster, err := pgtemp.Start(t.Context(), pgtemp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	conn, err := pgx.Connect(t.Context(), cluster.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	rules := "host all guarded 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
	if err := os.WriteFile(filepath.Join(cluster.DataDir(), "pg_hba.conf"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"CREATE ROLE guarded LOGIN PASSWORD 'the right one'", "SELECT pg_reload_conf()"} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	trusted := strings.Replace(cluster.URL("postgres"), "postgres@", "guarded@", 1)
	eventually(t, "the server asks for a password", func() bool {
		guarded, err := pgx.Connect(t.Context(), trusted)
		if err == nil {
			_ = guarded.Close(context.Background())
		}
		return err != nil
	})

	inside := strings.Replace(trusted, "guarded@", "guarded:"+percentEncoded+"@", 1)
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte(inside+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	auth := newAuth(t)
	for name, setting := range map[string]string{
		"user part": "DATABASE_URL=" + inside,
		"option":    "DATABASE_URL=" + trusted + "&password=" + percentEncoded,
		"file":      "DATABASE_URL_FILE=" + file,
	} {
		for _, args := range [][]string{{"run"}, {"run", "--log-format=json", "--log-level=debug", "--json"}, {"check"}, {"status"}, {"migrate", "up"}} {
			t.Run(name+"/"+strings.Join(args, " "), func(t *testing.T) {
				t.Parallel()
				e := program(t, []string{setting, "AUTH_SERVICE_URL=" + auth.URL()}, args...).expect(t, exitFailed)
				if all := e.stdout + e.stderr; !strings.Contains(all, "password authentication failed") || !strings.Contains(all, "the password in DATABASE_URL is wrong") {
					t.Errorf("the cause or the hint is not named: %s", e)
				}
				noSecret(t, e)
			})
		}
	}
}

// learnGrants gives a role the grants that `check` says it lacks, and no other,
// until it lacks none.
func learnGrants(t *testing.T, w *world, env []string, role string) []string {
	t.Helper()
	named := regexp.MustCompile(`\b(USAGE|SELECT|EXECUTE) on ((?:schema )?[\w.]+)`)
	denied := regexp.MustCompile(`permission denied for (?:table|view) (\w+)`)
	var grants []string
	for range 10 {
		e := program(t, env, "check")
		if e.status == exitDone {
			return grants
		}
		lacks := failures(e.stdout)
		for _, m := range denied.FindAllStringSubmatch(lacks, -1) {
			lacks += " SELECT on " + m[1]
		}
		for _, m := range named.FindAllStringSubmatch(lacks, -1) {
			grant := m[1] + " ON " + m[2]
			if m[1] == "EXECUTE" {
				grant = "EXECUTE ON FUNCTION " + m[2]
			}
			if !slices.Contains(grants, grant) {
				grants = append(grants, grant)
				w.Exec("GRANT " + grant + " TO " + role)
			}
		}
	}
	t.Fatalf("check still fails with %q: %s", grants, program(t, env, "check"))
	return nil
}

// A role with just the grants that check asks for makes a run; without any one of
// them none starts, and the message names the grant.
func TestGrants(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	const role = "grants_test_runner"
	w.Exec("CREATE ROLE " + role + " LOGIN")
	t.Cleanup(func() {
		w.Exec("DROP OWNED BY " + role)
		w.Exec("DROP ROLE " + role)
	})
	env := []string{"DATABASE_URL=" + w.URLAs(role), "AUTH_SERVICE_URL=" + w.auth.URL()}
	grants := learnGrants(t, w, env, role)
	if len(grants) < 15 || !slices.Contains(grants, "EXECUTE ON FUNCTION orphan_cleaner.sweep_chunk") {
		t.Fatalf("check asks for no more than %q", grants)
	}
	for _, grant := range grants {
		w.Exec("REVOKE " + grant + " FROM " + role)
		before := contents(t, w.DB, "orphan_cleaner.runs")
		for _, args := range [][]string{{"run"}, {"run", "--dry-run"}} {
			e := program(t, env, args...).expect(t, exitFailed)
			object := grant[strings.LastIndex(grant, " ")+1:]
			if told := lastLine(e.stderr); !strings.Contains(told, object) || !strings.Contains(told, "hint: ") {
				t.Errorf("without %s %v does not name it with the hint: %s", grant, args, e.stderr)
			}
			// Without run_finish it cannot even say that it failed, and would be open for its lease.
			w.Exec("UPDATE orphan_cleaner.runs SET state = 'failed', finished_at = now() WHERE state = 'running'")
		}
		if after := contents(t, w.DB, "orphan_cleaner.runs"); after != before {
			t.Errorf("without %s the database changed:\n%s\nwas\n%s", grant, after, before)
		}
		w.Exec("GRANT " + grant + " TO " + role)
	}
	if n := w.Count("orphan_cleaner.runs WHERE state <> 'failed'"); n != 0 {
		t.Errorf("%d runs did not fail", n)
	}
	if e := program(t, env, "run", "--json").expect(t, exitDone); e.result(t)["members_deleted"] != 3.0 {
		t.Errorf("with all grants: %s", e)
	}
}

// A run that finds a table of ours dropped fails, says which, and changes nothing
// but its own record.
func TestMissingTable(t *testing.T) {
	t.Parallel()
	for _, table := range []string{
		"orphan_cleaner.runs", "orphan_cleaner.candidates", "orphan_cleaner.sightings", "orphan_cleaner.holds", "orphan_cleaner.refusals", "orphan_cleaner.pauses",
		"conversation_members_audit", "conversation_members_backup",
	} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 100, 3)
			w.Exec("DROP TABLE " + table + " CASCADE")
			before := contents(t, w.DB, "orphan_cleaner.runs")
			for _, args := range [][]string{{"check"}, {"run", "--dry-run"}, {"run"}} {
				e := program(t, w.env, args...).expect(t, exitFailed)
				if !strings.Contains(e.stdout+e.stderr, table) {
					t.Errorf("%v does not name the table: %s", args, e)
				}
			}
			if after := contents(t, w.DB, "orphan_cleaner.runs"); after != before {
				t.Errorf("the database changed:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

// A short retention is possible for those who mean it.
func TestAllowShortRetention(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	e := program(t, w.env, "run", "--json", "--retention=12h", "--allow-short-retention").expect(t, exitDone)
	if e.result(t)["members_deleted"] != 3.0 || !strings.Contains(e.stderr, "retention: 12h)") {
		t.Errorf("%s", e)
	}
}
