package settings

import (
	"encoding/json"
	"maps"
	"strconv"
	"time"
)

// BoundNames are the settings that can be pinned in the database: retention,
// max-gap, and the limits by the names of their breakers.
func BoundNames() []string {
	names := []string{"retention", "max-gap"}
	for _, breaker := range BreakerNames() {
		if _, has := DefaultLimits()[breaker]; has {
			names = append(names, breaker)
		}
	}
	return names
}

// Bounds are their values by name; times in seconds.
func (r Run) Bounds() map[string]float64 {
	bounds := map[string]float64{"retention": r.Retention.Seconds(), "max-gap": r.MaxGap.Seconds()}
	maps.Copy(bounds, r.Limits)
	return bounds
}

// Stricter is what a pin makes of a value, as orphan_cleaner.effective_settings
// does: the longer retention, the lower limit; history 0 is no limit.
func Stricter(name string, value, pin float64) float64 {
	if name == "retention" || name == "history" && (value == 0 || pin == 0) {
		return max(value, pin)
	}
	return min(value, pin)
}

// Pinned names the bounds in which the settings in force differ from those that
// were asked for: both as [Run.JSON] writes them.
func Pinned(asked, inForce []byte) (pinned []string) {
	var own, bound map[string]any
	// Settings of a restore are none of these: nothing is named.
	if json.Unmarshal(asked, &own) != nil || json.Unmarshal(inForce, &bound) != nil {
		return nil
	}
	for _, name := range BoundNames() {
		value, is := bound[name].(float64)
		before, was := own[name].(float64)
		// Seconds pass through decimal fractions: less than a microsecond is no difference.
		if is && was && max(value-before, before-value) > 1e-6 {
			pinned = append(pinned, PinText(name, value, before))
		}
	}
	return pinned
}

// PinText is how a run says that a pin binds it, and no longer what it was started with.
func PinText(name string, value, before float64) string {
	return name + " at " + BoundText(name, value) + ", not " + BoundText(name, before)
}

// IsTime says that a bound is a time, in seconds.
func IsTime(name string) bool { return name == "retention" || name == "max-gap" }

// BoundText is the value as it would be written.
func BoundText(name string, value float64) string {
	if IsTime(name) {
		return Duration(value * float64(time.Second)).String()
	}
	return strconv.FormatFloat(value, 'f', -1, 64)
}
