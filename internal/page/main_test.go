package page_test

import (
	"context"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/page"
	"github.com/nova-social/orphan-cleaner/internal/status"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// newHistory is a database with a year behind it: see testdata/history.sql. The other
// files of testdata go on from there.
func newHistory(t *testing.T, more ...string) *testdb.DB {
	t.Helper()
	db := testdb.New(t)
	for _, file := range append([]string{"history.sql"}, more...) {
		db.Psql("-f", "testdata/"+file)
	}
	return db
}

// site is the page on a server of its own, which reads the database as the role that
// the program has.
func site(t *testing.T, db *testdb.DB) *httptest.Server {
	t.Helper()
	db.Roles("../../sql/roles.sql")
	return siteAt(t, db.Login("orphan_cleaner_runner")+"&connect_timeout=60")
}

func siteAt(t *testing.T, url string) *httptest.Server {
	t.Helper()
	// As the program opens it, which is part of what is tested: Login's cleanup comes after.
	pool, err := database.New(context.Background(), url, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return serve(t, pool)
}

func serve(t *testing.T, pool *pgxpool.Pool) *httptest.Server {
	t.Helper()
	p := page.Page{
		Pool: pool, Version: "v1.0.0", Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Ask: status.Ask{Retention: 30 * 24 * time.Hour, Interval: time.Hour, Runs: 20, Days: 31},
	}
	p.Patiently()
	handler, err := p.Handler()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

// answer is what a browser with this Accept-Language gets.
func answer(t *testing.T, url, accepted string) (code int, header http.Header, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept-Language", accepted)
	client := http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(text)
}

// get is a page in English.
func get(t *testing.T, url string) string {
	t.Helper()
	code, _, body := answer(t, url, "en")
	if code != http.StatusOK {
		t.Fatalf("%s: %d\n%s", url, code, body)
	}
	return body
}

var (
	tag    = regexp.MustCompile(`<[^>]*>`)
	spaces = regexp.MustCompile(`\s+`)
)

// words are those of a page, without its tags.
func words(page string) string {
	return strings.TrimSpace(spaces.ReplaceAllString(html.UnescapeString(tag.ReplaceAllString(page, " ")), " "))
}

func wants(t *testing.T, page string, texts ...string) {
	t.Helper()
	said := words(page)
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("the page does not say %q:\n%s", text, said)
		}
	}
}

func last(db *testdb.DB) string {
	return strconv.FormatInt(testdb.One[int64](db, "SELECT max(run_id) FROM orphan_cleaner.runs"), 10)
}
