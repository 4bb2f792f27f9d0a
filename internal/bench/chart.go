package bench

import (
	_ "embed" // the chart is a file
	"fmt"
	"io"
	"math"
	"strconv"
	"text/template"
)

//go:embed chart.svg.tmpl
var chartSVG string

// The chart, in pixels.
const (
	chartWidth = 860
	chartLeft  = 190 // where bars begin
	chartRight = 660 // where the longest ends
	chartTop   = 60
	barHeight  = 18
)

type chart struct {
	Title, Subtitle                                 string
	Width, Height, Left, LabelX, Top, Bottom, TickY int
	Ticks                                           []tick
	Cases                                           []chartCase
}

type tick struct {
	X    string
	Text string
}

type chartCase struct {
	Y    int
	Text string
	Bars []bar
}

type bar struct {
	Method, Class, Text, Width, TextX string
	Y, TextY                          int
}

// WriteSVG draws the seconds of each method, on a logarithmic scale, with the most
// dead users of each size.
func (r Report) WriteSVG(w io.Writer) error {
	cases := r.charted()
	shortest, longest := math.Inf(1), 0.0
	for _, c := range cases {
		for _, m := range c.Methods {
			shortest, longest = min(shortest, m.Seconds), max(longest, m.Seconds)
		}
	}
	if longest == 0 {
		return fmt.Errorf("drawing the chart: nothing was measured")
	}
	low, high := math.Floor(math.Log10(shortest)), math.Ceil(math.Log10(longest))
	if high == low {
		high++
	}
	x := func(log float64) float64 { return chartLeft + (chartRight-chartLeft)*(log-low)/(high-low) }
	px := func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

	c := chart{
		Title: "Seconds to remove the members of dead users",
		Subtitle: fmt.Sprintf("orphan-cleaner %s, medians of %d repetitions, %d CPUs, PostgreSQL %s; logarithmic scale",
			r.Version, r.Repeat, r.Machine.CPUs, r.Machine.PostgreSQL),
		Width: chartWidth, Left: chartLeft, LabelX: chartLeft - 8, Top: chartTop,
	}
	for log := low; log <= high; log++ {
		c.Ticks = append(c.Ticks, tick{px(x(log)), strconv.FormatFloat(math.Pow(10, log), 'g', 3, 64) + " s"})
	}
	y := chartTop
	for _, measured := range cases {
		y += barHeight
		one := chartCase{Y: y, Text: measured.name()}
		y += 6
		for _, m := range measured.Methods {
			b := bar{Method: m.Method, Class: "other", Text: seconds(m.Seconds) + " s", Y: y, TextY: y + 11}
			switch {
			case m.Method == "ours":
				b.Class = "ours"
			case m.Computed > 0:
				b.Class = "computed"
				b.Text += fmt.Sprintf(", %s of it computed", seconds(m.Computed))
			}
			end := x(math.Log10(m.Seconds))
			b.Width, b.TextX = px(end-chartLeft), px(end+6)
			one.Bars = append(one.Bars, b)
			y += barHeight
		}
		c.Cases = append(c.Cases, one)
	}
	c.Bottom, c.TickY, c.Height = y+4, y+20, y+30
	tmpl, err := template.New("chart").Parse(chartSVG)
	if err != nil {
		return fmt.Errorf("reading the chart's template: %w", err)
	}
	return tmpl.Execute(w, c)
}

// charted leaves out, of each size and latency, all but the largest share.
func (r Report) charted() []CaseResult {
	most := map[string]float64{}
	for _, c := range r.Cases {
		most[c.Size.Name] = max(most[c.Size.Name], c.Share)
	}
	var cases []CaseResult
	for _, c := range r.Cases {
		if c.Share == most[c.Size.Name] {
			cases = append(cases, c)
		}
	}
	return cases
}
