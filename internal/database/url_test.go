package database_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nova-social/orphan-cleaner/internal/database"
)

// secret is the password of each URL here, or a part of it: nothing may show it.
const secret = "QXZJretTail"

func TestURLsThatAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	noPEM := filepath.Join(dir, "no.pem")
	if err := os.WriteFile(noPEM, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	const login, at = "postgres://u:" + secret, "@db:5432/messaging"
	const encode = "must be percent-encoded, most likely in the password: @ as %40"
	for name, bad := range map[string]struct{ url, says string }{
		"empty":                     {"", "is not a PostgreSQL URL"},
		"a word":                    {"messaging", "is not a PostgreSQL URL"},
		"another scheme":            {"mysql://u:" + secret + "@db/messaging", "is not a PostgreSQL URL"},
		"key words":                 {"host=db dbname=messaging password=" + secret, "write it as a URL"},
		"@ in the password":         {login + "@" + secret + at, encode},
		"@ at its end":              {login + "@" + at, encode},
		"/ in the password":         {"postgres://u:12/" + secret + at, encode},
		"/ and @":                   {"postgres://u:12/x@" + secret + at, encode},
		"? in the password":         {"postgres://u:12?" + secret + at, encode},
		"# in the password":         {login + "#" + secret + at, encode},
		"# after the @":             {"postgres://u:12@x#" + secret, encode},
		"% in the password":         {login + "%zz" + at, "write % as %25"},
		"% at its end":              {login + "%" + at, "write % as %25"},
		"a space in the password":   {login + " " + at, "a space as %20"},
		"a line break in it":        {login + "\n" + at, "a line break"},
		"no @":                      {"postgres://u:" + secret + "/messaging", "has a port that is not a number"},
		"port":                      {login + "@db:99999/messaging", "a number from 1 to 65535"},
		"port 0":                    {login + "@db:0/messaging", "a number from 1 to 65535"},
		"ports":                     {login + "@a:1,b:2/messaging?port=1,2,3", "more ports than hosts"},
		"IPv6":                      {login + "@[::1/messaging", "[::1]:5432"},
		"no database":               {login + "@db:5432", "names no database"},
		"no database, with a slash": {login + "@db:5432/", "names no database"},
		"an unknown parameter":      {login + at + "?connect_timout=5", "a parameter that is not known, number 1 after the ?; there are: application_name"},
		"& in a password parameter": {"postgres://u@db/messaging?password=12&" + secret + "=1", "number 2 after the ?"},
		"sqlx's parameter":          {login + at + "?sslmode=disable&statement-cache-capacity=100", "number 2 after the ?"},
		"Prisma's parameter":        {login + at + "?schema=public", "is not known"},
		"a parameter of the pool":   {login + at + "?pool_max_conns=5", "is not known"},
		"connect_timeout=5s":        {login + at + "?connect_timeout=5s", "the parameter connect_timeout must be whole seconds without a unit"},
		"sslmode":                   {login + at + "?sslmode=verify_full", "the parameter sslmode must be one of: disable, allow"},
		"target_session_attrs":      {login + at + "?target_session_attrs=master", "target_session_attrs must be one of: any, read-write"},
		"sslrootcert missing":       {login + at + "?sslmode=verify-full&sslrootcert=" + dir + "/ca.pem", "the parameter sslrootcert names a file that cannot be read: no such file"},
		"sslrootcert is no PEM":     {login + at + "?sslmode=verify-full&sslrootcert=" + noPEM, "holds no certificate"},
		"sslkey without sslcert":    {login + at + "?sslkey=" + noPEM, "sslcert and sslkey"},
		"service":                   {"postgres://u:" + secret + "@/messaging?service=nowhere&servicefile=" + noPEM, "the parameter service names a service that is not in the service file"},
		"two =":                     {login + at + "?sslmode=a=b", "must be one of"},
		"a parameter with %":        {login + at + "?sslmode=%zz", "a % in them written as %25"},
	} {
		_, err := database.ParseConfig(bad.url)
		switch {
		case err == nil:
			t.Errorf("%s: accepted", name)
		case !strings.Contains(err.Error(), bad.says) || !strings.HasPrefix(err.Error(), "DATABASE_URL ") || strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: %q, want one line that says %q", name, err, bad.says)
		case strings.Contains(err.Error(), "QXZJ") || strings.Contains(err.Error(), "Tail"):
			t.Errorf("%s: a part of the password is shown: %v", name, err)
		case errors.As(err, new(*pgconn.ParseConfigError)):
			t.Errorf("%s: the URL is in the chain of the error", name)
		}
	}
}

func TestURLsThatAreRead(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]struct {
		host, password string
		port           uint16
		fallbacks      int
	}{
		"postgres://u:p@db:5432/messaging?sslmode=disable":                                     {"db", "p", 5432, 0},
		"postgresql://u:a%40b%2Fc%25d@db/messaging?sslmode=disable":                            {"db", "a@b/c%d", 5432, 0},
		"postgres://u:a:b&c=d+e;f@db/messaging?sslmode=disable":                                {"db", "a:b&c=d+e;f", 5432, 0},
		"postgres://u:p@[::1]:5433/messaging?sslmode=disable":                                  {"::1", "p", 5433, 0},
		"postgres://u:p@a:1,b:2/messaging?sslmode=disable&target_session_attrs=read-write":     {"a", "p", 1, 1},
		"postgres:///messaging?host=/var/run/postgresql&user=u&password=p":                     {"/var/run/postgresql", "p", 5432, 0},
		"postgres://u:p@%2Fvar%2Frun%2Fpostgresql/messaging":                                   {"/var/run/postgresql", "p", 5432, 0},
		"postgres://u:p@db/messaging?sslmode=require&connect_timeout=5&options=-c%20jit%3Doff": {"db", "p", 5432, 0},
	} {
		cfg, err := database.ParseConfig(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		c := cfg.ConnConfig
		if c.Host != want.host || c.Port != want.port || c.Password != want.password || c.Database != "messaging" || c.User != "u" || len(c.Fallbacks) != want.fallbacks {
			t.Errorf("%s: host %q, port %d, password %q, database %q, user %q, %d fallbacks", url, c.Host, c.Port, c.Password, c.Database, c.User, len(c.Fallbacks))
		}
	}
}

// What the URL leaves out is taken from PostgreSQL's own variables; a wrong one is named.
func TestURLAndEnvironment(t *testing.T) {
	t.Setenv("PGPASSWORD", secret)
	t.Setenv("PGDATABASE", "messaging")
	t.Setenv("PGHOST", "db")
	cfg, err := database.ParseConfig("postgres://u@/")
	if err != nil || cfg.ConnConfig.Password != secret || cfg.ConnConfig.Host != "db" || cfg.ConnConfig.Database != "messaging" {
		t.Fatalf("%v", err)
	}
	for variable, wrong := range map[string]struct{ value, says string }{
		"PGSERVICE":            {secret, "the environment's PGSERVICE names a service"},
		"PGCONNECT_TIMEOUT":    {"5s", "the environment's PGCONNECT_TIMEOUT must be whole seconds"},
		"PGSSLMODE":            {secret, "the environment's PGSSLMODE must be one of"},
		"PGSSLROOTCERT":        {"/nowhere/" + secret, "the environment's PGSSLROOTCERT names a file that cannot be read"},
		"PGTARGETSESSIONATTRS": {secret, "the environment's PGTARGETSESSIONATTRS must be one of"},
		"PGPORT":               {secret, "has a port"},
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, wrong.value)
			_, err := database.ParseConfig("postgres://u@/messaging")
			if err == nil || !strings.Contains(err.Error(), wrong.says) || strings.Contains(err.Error(), secret) {
				t.Errorf("%v, want %q", err, wrong.says)
			}
		})
	}
}

// A password that nobody percent-encoded is refused, and then no four bytes of it are
// shown, or it is read as it was meant, and no part of it is taken for a host.
func FuzzRawPassword(f *testing.F) {
	for _, seed := range []string{"QXZJ", "QX@ZJQX", "12/QXZJ", "QX?ZJQX=1", "QX#ZJ@QXZJ", "%QXZJ", "%40QX:ZJ", "QX]ZJ[", "a@b/c?host=QXZJ", "12@QXZJ/m?port=99999", "&QXZJ=1", "\x00QXZJ"} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, password string, asParameter bool) {
		// No letters that our own words are made of.
		password = strings.Map(func(r rune) rune {
			if strings.ContainsRune("@/?#%:&=[];,+ \n", r) {
				return r
			}
			return rune("QXZJQWK798"[int(uint32(r)%10)])
		}, password)
		url := "postgres://u:" + password + "@db.internal:5432/messaging"
		if asParameter {
			url = "postgres://u@db.internal:5432/messaging?password=" + password
		}
		cfg, err := database.ParseConfig(url)
		if err == nil {
			c := cfg.ConnConfig
			if c.Host != "db.internal" || c.Port != 5432 || c.Database != "messaging" || c.User != "u" {
				t.Errorf("%q is read as host %q, port %d, database %q, user %q", url, c.Host, c.Port, c.Database, c.User)
			}
			return
		}
		for i := 0; i+4 <= len(password); i++ {
			if strings.Contains(err.Error(), password[i:i+4]) {
				t.Errorf("%q is in the message: %v", password[i:i+4], err)
			}
		}
	})
}
