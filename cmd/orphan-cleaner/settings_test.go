package main

import (
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	good := map[string]time.Duration{
		"30d": 30 * day, "1h": time.Hour, "1d12h": 36 * time.Hour, "90s": 90 * time.Second, "1m30s": 90 * time.Second,
		"10m": 10 * time.Minute, "1h30m": 90 * time.Minute, "250ms": 250 * time.Millisecond,
	}
	for text, want := range good {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %v, %v", text, time.Duration(d), err)
		}
	}
	for _, text := range []string{"", "30", "-1d", "1d-12h", "0s", "0d", "d", "1w", "30 d", "99999999999d", "-5m", "1.5d", "NaN"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, time.Duration(d))
		}
	}
	for want, d := range map[string]time.Duration{"30d": 30 * day, "1h": time.Hour, "1d12h": 36 * time.Hour, "1m30s": 90 * time.Second, "10m": 10 * time.Minute, "20h": 20 * time.Hour, "10s": 10 * time.Second} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%v is written as %s, want %s", d, got, want)
		}
	}
}

// Whatever is read is positive, and reads back as the same from how it is written.
func FuzzDuration(f *testing.F) {
	for _, seed := range []string{"30d", "1d12h", "90s", "-1d", "1h0m0.5s", "5d5d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var d, again Duration
		if d.UnmarshalText([]byte(text)) != nil {
			return
		}
		if d <= 0 {
			t.Errorf("%q was read as %v", text, time.Duration(d))
		}
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%q is %v, written %s, read back as %v (%v)", text, time.Duration(d), d, time.Duration(again), err)
		}
	})
}
