// Package window says when sweeps may delete: some hours of some weekdays.
package window

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Weekly are the times in which sweeps may delete; the zero value is always. A time is
// what a clock on the wall of its zone shows: where summer time begins, a window in
// the hour that is left out does not open that day; where it ends, one in the hour
// that is there twice is open both times.
type Weekly struct {
	spans []span
	text  string
}

// span is one window. It belongs to the day on which it begins; one that ends at
// or before its beginning ends on the next day.
type span struct {
	days       [7]bool
	begin, end int // minutes of the day
	zone       *time.Location
}

const minutesADay = 24 * 60

// UnmarshalText reads windows separated by commas: "Wed 02:00-04:00 Asia/Shanghai",
// "Mon-Fri 22:00-05:00 Europe/Berlin", "daily 02:00-04:00 UTC".
func (w *Weekly) UnmarshalText(text []byte) error {
	*w = Weekly{text: string(text)}
	for one := range strings.SplitSeq(string(text), ",") {
		s, err := parse(strings.Fields(one))
		if err != nil {
			return fmt.Errorf("%q is no window: %w; write it as Wed 02:00-04:00 Asia/Shanghai", strings.TrimSpace(one), err)
		}
		w.spans = append(w.spans, s)
	}
	return nil
}

func parse(words []string) (s span, err error) {
	if len(words) != 3 {
		return s, fmt.Errorf("it has %d words, not day, hours and zone", len(words))
	}
	if s.days, err = parseDays(words[0]); err != nil {
		return s, err
	}
	begin, end, _ := strings.Cut(words[1], "-")
	if s.begin, err = parseTime(begin); err != nil {
		return s, err
	}
	if s.end, err = parseTime(end); err != nil {
		return s, err
	}
	if s.begin == s.end || s.begin == minutesADay {
		return s, fmt.Errorf("%s is no span of time; the whole day is 00:00-24:00", words[1])
	}
	if words[2] == "Local" { // another one on each machine
		return s, fmt.Errorf("zone Local is not the same everywhere")
	}
	if s.zone, err = time.LoadLocation(words[2]); err != nil {
		return s, fmt.Errorf("there is no zone %s", words[2])
	}
	return s, nil
}

func parseDays(text string) (days [7]bool, err error) {
	if text == "daily" {
		text = "Sun-Sat"
	}
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	from, to := weekday(first), weekday(last)
	if from < 0 || to < 0 {
		return days, fmt.Errorf("%s is no day: Mon to Sun, Mon-Fri or daily", text)
	}
	for day := from; ; day = (day + 1) % 7 {
		days[day] = true
		if day == to {
			return days, nil
		}
	}
}

func weekday(text string) int {
	for day := range 7 {
		if strings.EqualFold(time.Weekday(day).String()[:3], text) {
			return day
		}
	}
	return -1
}

func parseTime(text string) (minutes int, err error) {
	if text == "24:00" {
		return minutesADay, nil
	}
	at, err := time.Parse("15:04", text)
	if err != nil {
		return 0, fmt.Errorf("%s is no time such as 02:00", strconv.Quote(text))
	}
	return at.Hour()*60 + at.Minute(), nil
}

// String is what was read.
func (w Weekly) String() string { return w.text }

// Open says whether a sweep may delete now.
func (w Weekly) Open(now time.Time) bool {
	for _, s := range w.spans {
		local := now.In(s.zone)
		minute, today := local.Hour()*60+local.Minute(), local.Weekday()
		yesterday := (today + 6) % 7
		if s.begin < s.end && s.days[today] && minute >= s.begin && minute < s.end ||
			s.begin > s.end && (s.days[today] && minute >= s.begin || s.days[yesterday] && minute < s.end) {
			return true
		}
	}
	return len(w.spans) == 0
}

// farthest is how far Next looks: a weekly window may not open in the week in which
// summer time begins.
const farthest = 15 * 24 * time.Hour

// Next is the first minute from now on in which a sweep may delete; zero where there
// is none.
func (w Weekly) Next(now time.Time) time.Time {
	if w.Open(now) {
		return now
	}
	for at := now.Truncate(time.Minute).Add(time.Minute); at.Sub(now) < farthest; at = at.Add(time.Minute) {
		if w.Open(at) {
			return at
		}
	}
	return time.Time{}
}
