package bench

import (
	_ "embed" // the chart is a file
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"text/template"

	"github.com/nova-social/orphan-cleaner/internal/lab/document"
)

//go:embed chart.svg.tmpl
var chartSVG string

// The chart, in pixels.
const (
	chartWidth = 860
	chartLeft  = 120 // where bars begin
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
	Name, Class, Text, Width, TextX string
	Y, TextY                        int
	seconds                         float64
}

// WriteSVG draws the seconds of the run and of the floor, on a logarithmic scale.
func (r Report) WriteSVG(w io.Writer) error {
	shortest, longest := math.Inf(1), 0.0
	for _, c := range r.Cases {
		for _, b := range c.bars() {
			shortest, longest = min(shortest, b.seconds), max(longest, b.seconds)
		}
	}
	if longest == 0 {
		return errors.New("drawing the chart: nothing was measured")
	}
	low, high := math.Floor(math.Log10(shortest)), math.Ceil(math.Log10(longest))
	if high == low {
		high++
	}
	x := func(log float64) float64 { return chartLeft + (chartRight-chartLeft)*(log-low)/(high-low) }
	px := func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

	c := chart{
		Title: "Seconds from the start of the process to its exit",
		Subtitle: fmt.Sprintf("orphan-cleaner %s, medians of %d repetitions, %d CPUs, PostgreSQL %s; logarithmic scale",
			r.Version, r.Repeat, r.Machine.CPUs, r.Machine.PostgreSQL),
		Width: chartWidth, Left: chartLeft, LabelX: chartLeft - 8, Top: chartTop,
	}
	for log := low; log <= high; log++ {
		c.Ticks = append(c.Ticks, tick{px(x(log)), strconv.FormatFloat(math.Pow(10, log), 'g', 3, 64) + " s"})
	}
	y := chartTop
	for _, measured := range r.Cases {
		y += barHeight
		one := chartCase{Y: y, Text: fmt.Sprintf("%s members of %s users, %s of users dead", document.Thousands(measured.Members), document.Thousands(measured.Users), percent(measured.Share))}
		y += 6
		for _, b := range measured.bars() {
			end := x(math.Log10(b.seconds))
			b.Text, b.Y, b.TextY = seconds(b.seconds)+" s", y, y+11
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

func (c Case) bars() []bar {
	bars := []bar{{Name: "run", Class: "run", seconds: c.Run.Seconds}}
	if c.Worn != nil {
		bars = append(bars, bar{Name: "run, after many", Class: "run", seconds: c.Worn.Seconds})
	}
	return append(bars, bar{Name: "floor", Class: "floor", seconds: c.Floor.Seconds})
}
