package page

import (
	"fmt"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// The size of a chart, in units of its viewBox: as wide as a phone is in pixels, so that
// its letters are as large as those beside it.
const (
	chartWidth  = 360.0
	chartTop    = 18.0 // of the tallest bar
	chartBottom = 84.0 // of all bars
	// least is how tall a bar is that is not nothing.
	least = 2.0
)

// chart is one row of bars. What it says is in its figures: see table.
type chart struct {
	Class       string // of the style
	Name        string // in English
	Total       int64  // or of the last bar, where a sum means nothing
	Most        int64
	First, Last string
	Bars        []bar
}

type bar struct {
	X, Y, Width, Height string
	Label               string // of the span
	Value               int64
	Empty               bool // nothing is known of it
}

// one is a figure of each span.
type one struct {
	at    string
	value int64
	empty bool
}

func newChart(class, name string, isSum bool, values []one) chart {
	c := chart{Class: class, Name: name, Bars: make([]bar, len(values))}
	for _, v := range values {
		c.Most = max(c.Most, v.value)
		switch {
		case isSum:
			c.Total += v.value
		case !v.empty:
			c.Total = v.value
		}
	}
	step := chartWidth / float64(max(len(values), 1))
	for i, v := range values {
		tall := least
		if v.value > 0 {
			tall = max(least, float64(v.value)/float64(c.Most)*(chartBottom-chartTop))
		} else if !v.empty {
			tall = 0
		}
		c.Bars[i] = bar{
			X: unit(float64(i)*step + step*0.1), Width: unit(step * 0.8), Y: unit(chartBottom - tall), Height: unit(tall),
			Label: v.at, Value: v.value, Empty: v.empty,
		}
	}
	if len(values) > 0 {
		c.First, c.Last = values[0].at, values[len(values)-1].at
	}
	return c
}

func unit(f float64) string { return fmt.Sprintf("%.1f", f) }

// charts are those of the runs of a range.
func charts(name string, spans []db.RunSpansRow) []chart {
	layout := time.DateOnly
	if name == "day" {
		layout = "15:04"
	}
	of := func(class, title string, isSum bool, value func(db.RunSpansRow) int64) chart {
		values := make([]one, len(spans))
		for i, s := range spans {
			values[i] = one{s.Since.UTC().Format(layout), value(s), !s.IsRun}
		}
		return newChart(class, title, isSum, values)
	}
	return []chart{
		of("checked", "Users checked by the last run of each", false, func(s db.RunSpansRow) int64 { return s.UsersChecked }),
		of("missing", "Users missing in it", false, func(s db.RunSpansRow) int64 { return s.UsersMissing }),
		of("deleted", "Members deleted", true, func(s db.RunSpansRow) int64 { return s.MembersDeleted }),
		of("refused", "Runs refused", true, func(s db.RunSpansRow) int64 { return s.Refused }),
	}
}

// reportCharts are those of a report's days.
func reportCharts(days []db.ReportDaysRow) []chart {
	of := func(class, title string, value func(db.ReportDaysRow) int64) chart {
		values := make([]one, len(days))
		for i, d := range days {
			values[i] = one{d.Day, value(d), d.Runs == 0}
		}
		return newChart(class, title, true, values)
	}
	return []chart{
		of("checked", "Users checked", func(d db.ReportDaysRow) int64 { return d.UsersChecked }),
		of("deleted", "Members deleted", func(d db.ReportDaysRow) int64 { return d.MembersDeleted }),
		of("missing", "Members restored", func(d db.ReportDaysRow) int64 { return d.MembersRestored }),
		of("refused", "Runs refused, incomplete or failed", func(d db.ReportDaysRow) int64 { return d.Refused + d.Incomplete + d.Failed }),
	}
}

// meter is a figure beside its limit, as wide as its share of it.
type meter struct {
	Name          string
	Figure, Limit string
	IsOn, IsOver  bool
	Width         string // of 100
}

func meterWidth(figure, limit float64) string {
	if limit <= 0 {
		return "0"
	}
	return unit(min(100, max(0, 100*figure/limit)))
}
