// Package page is the status page, and the report as a file: what status, report and
// the record of a run say, for a browser. It reads and never writes, has no script,
// and names nobody but by ids.
package page

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/safetext"
	"github.com/nova-social/orphan-cleaner/internal/status"
)

//go:embed assets
var assets embed.FS

// Page serves it: the overview at /, a run at /runs/N.
type Page struct {
	Pool    *pgxpool.Pool
	Ask     status.Ask // what the overview is reckoned by
	Version string
	Log     *slog.Logger

	locales  []*locale
	overview cached[overview]
	runs     cachedRuns
	patience time.Duration // 0: readLimit
}

// policy lets a browser load this page's style and icon, and nothing else.
const policy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler reads the embedded templates; it fails only where one is wrong.
func (p *Page) Handler() (http.Handler, error) {
	var err error
	if p.locales, err = locales(); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.serveOverview)
	mux.HandleFunc("GET /runs/{run}", p.serveRun)
	for path, kind := range map[string]string{"style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"} {
		text, err := assets.ReadFile("assets/" + path)
		if err != nil {
			return nil, err
		}
		mux.HandleFunc("GET /"+path, func(w http.ResponseWriter, _ *http.Request) {
			header(w, kind, "max-age=300")
			_, _ = w.Write(text) // an error means that the browser has gone
		})
	}
	return mux, nil
}

func header(w http.ResponseWriter, kind, caching string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", caching)
}

func (p *Page) serveOverview(w http.ResponseWriter, r *http.Request) {
	v := p.view(r, "./")
	v.Range = rangeNamed(r.URL.Query().Get("range"))
	read, err := p.overview.get(r.Context(), func(ctx context.Context) (overview, error) {
		return readOnly(ctx, p, func(ctx context.Context, q *db.Queries) (overview, error) { return readOverview(ctx, q, p.Ask) })
	})
	v.Overview = &read
	p.write(w, v, "overview", err)
}

func (p *Page) serveRun(w http.ResponseWriter, r *http.Request) {
	v := p.view(r, "../")
	id, err := strconv.ParseInt(r.PathValue("run"), 10, 64)
	if err != nil || id <= 0 {
		p.write(w, v, "run", errNoRun)
		return
	}
	read, err := p.runs.get(r.Context(), id, func(ctx context.Context) (run, error) {
		return readOnly(ctx, p, func(ctx context.Context, q *db.Queries) (run, error) { return readRun(ctx, q, id) })
	})
	v.Run = &read
	p.write(w, v, "run", err)
}

var errNoRun = errors.New("there is no run of this number")

// maxError bounds what is shown of an error, in bytes.
const maxError = 1000

// write renders the whole page before the first byte of it: half a page is none.
func (p *Page) write(w http.ResponseWriter, v view, name string, err error) {
	code := http.StatusOK
	switch {
	case errors.Is(err, errNoRun):
		code, name, v.Error = http.StatusNotFound, "error", v.locale.say(err.Error())
	case err != nil:
		code, name, v.Error = http.StatusServiceUnavailable, "error", safetext.Line(err.Error(), maxError)
	}
	var page bytes.Buffer
	if err := v.locale.templates.ExecuteTemplate(&page, name, v); err != nil {
		p.Log.Error("Drawing the status page failed", "page", name, "error", err)
		http.Error(w, "drawing the page failed: see the log", http.StatusInternalServerError)
		return
	}
	header(w, "text/html; charset=utf-8", "no-store")
	w.Header().Set("Content-Language", v.Lang)
	w.Header().Set("Vary", "Accept-Language")
	w.WriteHeader(code)
	_, _ = page.WriteTo(w) // an error means that the browser has gone
}

const (
	// readLimit is for all that a page needs: under what serve has to answer in.
	readLimit = 10 * time.Second
	lockLimit = 2 * time.Second
)

func readOnly[T any](ctx context.Context, p *Page, query func(context.Context, *db.Queries) (T, error)) (T, error) {
	value, err := database.Bounded(ctx, p.Pool, database.Patience{LockTimeout: lockLimit}, pgx.ReadOnly, cmp.Or(p.patience, readLimit), query)
	if err != nil && !errors.Is(err, errNoRun) {
		p.Log.Warn("Reading the database for the status page failed", "error", err)
	}
	return value, err
}
