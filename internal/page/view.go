package page

import (
	"net/http"
	"net/url"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/status"
)

// view is what a template gets.
type view struct {
	*locale
	Lang     string
	Root     string // of this page's links, so that it works under any path
	Path     string // of this page behind it
	Range    string
	Version  string
	Error    string
	Overview *overview
	Run      *run
	Report   *Report

	isAsked bool // for this language, by name: links go on in it
}

func (p *Page) view(r *http.Request, root string) view {
	asked := r.URL.Query().Get("lang")
	l := choose(p.locales, asked, r.Header.Get("Accept-Language"))
	path := ""
	if run := r.PathValue("run"); run != "" {
		path = "runs/" + url.PathEscape(run)
	}
	return view{locale: l, Lang: l.code, Root: root, Path: path, Version: p.Version, isAsked: asked == l.code}
}

// To is a link to another page, in the same language.
func (v view) To(path string) string { return v.link(path, v.Range, v.isAsked, v.Lang) }

// ToRange is one to the same page with charts of another range.
func (v view) ToRange(name string) string { return v.link(v.Path, name, v.isAsked, v.Lang) }

// ToLang is one to the same page in another language.
func (v view) ToLang(lang string) string { return v.link(v.Path, v.Range, true, lang) }

func (v view) link(path, inRange string, isAsked bool, lang string) string {
	query := url.Values{}
	if inRange != "" && path == "" && inRange != rangeNamed("") {
		query.Set("range", inRange)
	}
	if isAsked {
		query.Set("lang", lang)
	}
	link := v.Root + path
	if encoded := query.Encode(); encoded != "" {
		link += "?" + encoded
	}
	return link
}

// Ranges are what the charts can show.
func (v view) Ranges() []span { return ranges() }

// Charts are those of the page.
func (v view) Charts() []chart {
	if v.Report != nil {
		return reportCharts(v.Report.Days)
	}
	return charts(v.Range, v.Overview.Spans[v.Range])
}

// Meters are the breakers beside their limits.
func (v view) Meters() []meter {
	list := make([]meter, len(v.Overview.Breakers))
	for i, b := range v.Overview.Breakers {
		shown := func(value float64) string { return v.printer.Sprintf("%.0f", value) }
		if settings.IsShare(b.Breaker) {
			shown = func(value float64) string { return v.printer.Sprintf("%.2f %%", 100*value) }
		}
		list[i] = meter{b.Breaker, shown(b.Figure), shown(b.LimitValue), b.IsOn, b.IsOn && b.Figure > b.LimitValue, meterWidth(b.Figure, b.LimitValue)}
	}
	return list
}

// due is a day of the backlog, and how wide its bar is, of 100.
type due struct {
	db.CandidateBacklogRow
	Width string
}

// Backlog is who waits, by the day on which a run may delete their members.
func (v view) Backlog() []due {
	most := int64(1)
	for _, b := range v.Overview.Backlog {
		most = max(most, b.Members)
	}
	list := make([]due, len(v.Overview.Backlog))
	for i, b := range v.Overview.Backlog {
		list[i] = due{b, meterWidth(float64(b.Members), float64(most))}
	}
	return list
}

// Holds are the first of those in force.
func (v view) Holds() []db.HoldListRow {
	return v.Overview.HoldList[:min(len(v.Overview.HoldList), maxListed)]
}

// Until is a time as verdicts say it: short, today without its day.
func (v view) Until(at time.Time) string {
	now := time.Now()
	if v.Overview != nil {
		now = v.Overview.Now
	}
	return status.Clock{Now: now, At: at}.Format(v.today, v.otherDay)
}
