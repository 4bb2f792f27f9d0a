package settings

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that also reads and writes days: 30d, 1d12h, 90s.
type Duration time.Duration

const day = 24 * time.Hour

var daysPattern = regexp.MustCompile(`^(\d+)d(.*)$`)

// UnmarshalText refuses a number without a unit and anything not positive.
func (d *Duration) UnmarshalText(text []byte) error {
	value := string(text)
	wrong := fmt.Errorf("%q is not a duration: write a number above 0 with its unit, such as 30d, 12h or 90s, 36500d at most", value)
	var days time.Duration
	rest := value
	if parts := daysPattern.FindStringSubmatch(value); parts != nil {
		n, err := strconv.Atoi(parts[1])
		if err != nil || n > 36_500 {
			return wrong
		}
		days, rest = time.Duration(n)*day, parts[2]
	}
	var other time.Duration
	if rest != "" {
		var err error
		if other, err = time.ParseDuration(rest); err != nil || other < 0 {
			return wrong
		}
	}
	if days+other <= 0 {
		return wrong
	}
	*d = Duration(days + other)
	return nil
}

// String is the shortest form that UnmarshalText reads back: 1h, not 1h0m0s.
func (d Duration) String() string {
	days, rest := time.Duration(d)/day, time.Duration(d)%day
	text := rest.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	switch {
	case days == 0:
		return text
	case rest == 0:
		return fmt.Sprintf("%dd", days)
	default:
		return fmt.Sprintf("%dd%s", days, text)
	}
}
