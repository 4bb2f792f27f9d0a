package page

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/status"
)

// Report is what the command report has read.
type Report struct {
	Since   time.Time
	Until   time.Time // not in it
	Days    []db.ReportDaysRow
	Total   db.ReportDaysRow
	Sizes   []db.ReportSizesRow
	Targets []db.ReportTargetsRow // in the order of the sweep
	Blocked []status.BlockedUser  // now
}

// styled is a report with its style in it: one file, which loads nothing.
type styled struct {
	view
	Style  template.CSS
	Policy string
}

// Write writes it as one HTML file that prints well, in the language of this code, en or zh.
func (r Report) Write(w io.Writer, lang, version string) error {
	all, err := locales()
	if err != nil {
		return err
	}
	style, err := assets.ReadFile("assets/style.css")
	if err != nil {
		return err
	}
	l := choose(all, lang, "")
	hash := sha256.Sum256(style)
	// The style is this program's own, whole, as its hash says to the browser.
	page := styled{
		view{locale: l, Lang: l.code, Version: version, Report: &r}, template.CSS(style), //nolint:gosec // embedded, nobody's input
		"default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'",
	}
	if err := l.templates.ExecuteTemplate(w, "report", page); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
