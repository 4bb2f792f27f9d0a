package window_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/window"
)

func read(t *testing.T, text string) (w window.Weekly) {
	t.Helper()
	if err := w.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return w
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for text, moments := range map[string]map[string]bool{
		"": nil,
		"Wed 02:00-04:00 Asia/Shanghai": { // UTC+8; 2 December 2026 is a Wednesday
			"2026-12-01T17:59:59Z": false, "2026-12-01T18:00:00Z": true, "2026-12-01T19:59:59Z": true, "2026-12-01T20:00:00Z": false, "2026-12-02T18:00:00Z": false,
		},
		"Sat 22:00-02:00 UTC": {
			"2026-12-05T21:59:00Z": false, "2026-12-05T22:00:00Z": true, "2026-12-06T01:59:00Z": true, "2026-12-06T02:00:00Z": false,
			"2026-12-05T01:00:00Z": false, "2026-12-06T22:00:00Z": false,
		},
		"Fri-Mon 00:00-24:00 UTC": {
			"2026-12-03T23:59:00Z": false, "2026-12-04T00:00:00Z": true, "2026-12-07T23:59:59Z": true, "2026-12-08T00:00:00Z": false,
		},
		"wed 02:00-03:00 UTC, daily 05:00-06:00 UTC": {
			"2026-12-02T02:30:00Z": true, "2026-12-03T02:30:00Z": false, "2026-12-03T05:30:00Z": true,
		},
		// Summer time begins on 29 March 2026 at 02:00, which is 03:00 then.
		"daily 02:15-02:45 Europe/Berlin": {
			"2026-03-28T01:30:00Z": true, "2026-03-29T00:59:59Z": false, "2026-03-29T01:00:00Z": false, "2026-03-29T01:30:00Z": false, "2026-03-30T00:30:00Z": true,
		},
		// Half of it is left out.
		"daily 01:30-03:30 Europe/Berlin": {
			"2026-03-29T00:29:00Z": false, "2026-03-29T00:30:00Z": true, "2026-03-29T01:29:00Z": true, "2026-03-29T01:30:00Z": false,
		},
		// It ends on 25 October 2026 at 03:00, which is 02:00 again.
		"Sun 02:15-02:45 Europe/Berlin": {
			"2026-10-25T00:14:00Z": false, "2026-10-25T00:30:00Z": true, "2026-10-25T00:50:00Z": false, "2026-10-25T01:14:00Z": false, "2026-10-25T01:30:00Z": true, "2026-10-25T01:45:00Z": false,
		},
	} {
		w := window.Weekly{}
		if text == "" {
			if !w.Open(time.Now()) || !w.Next(at(t, "2026-12-02T02:30:00Z")).Equal(at(t, "2026-12-02T02:30:00Z")) {
				t.Error("without a window it is not always open")
			}
			continue
		}
		w = read(t, text)
		if w.String() != text {
			t.Errorf("%q is shown as %q", text, w)
		}
		for moment, want := range moments {
			if got := w.Open(at(t, moment)); got != want {
				t.Errorf("%s at %s: open %v, want %v", text, moment, got, want)
			}
		}
	}
}

func TestNext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, now, want string }{
		{"Wed 02:00-04:00 Asia/Shanghai", "2026-12-01T12:00:30Z", "2026-12-01T18:00:00Z"},
		{"Wed 02:00-04:00 Asia/Shanghai", "2026-12-01T19:00:30Z", "2026-12-01T19:00:30Z"},
		{"Wed 02:00-04:00 Asia/Shanghai", "2026-12-01T20:00:00Z", "2026-12-08T18:00:00Z"},
		// Left out on 29 March: two weeks later.
		{"Sun 02:15-02:45 Europe/Berlin", "2026-03-23T00:00:00Z", "2026-04-05T00:15:00Z"},
	} {
		if got := read(t, c.text).Next(at(t, c.now)); !got.Equal(at(t, c.want)) {
			t.Errorf("%s after %s: %s, want %s", c.text, c.now, got.UTC().Format(time.RFC3339), c.want)
		}
	}
}

func TestWrong(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"":                                        "0 words",
		"Wed 02:00-04:00":                         "2 words",
		"Wed 02:00 - 04:00 UTC":                   "5 words",
		"Wednes 02:00-04:00 UTC":                  "no day",
		"Mon-Xyz 02:00-04:00 UTC":                 "no day",
		"Wed 2-4 UTC":                             `"2" is no time`,
		"Wed 02:00-25:00 UTC":                     `"25:00" is no time`,
		"Wed 02:00 UTC":                           `"" is no time`,
		"Wed 02:00-02:00 UTC":                     "no span",
		"Wed 24:00-02:00 UTC":                     "no span",
		"Wed 02:00-04:00 Local":                   "not the same everywhere",
		"Wed 02:00-04:00 Asia/Beijing":            "no zone Asia/Beijing",
		"Wed 02:00-04:00 ../../etc/passwd":        "no zone",
		"Wed 02:00-04:00 UTC,":                    "0 words",
		"Wed 02:00-04:00 UTC;Thu 02:00-04:00 UTC": "5 words",
	} {
		var w window.Weekly
		if err := w.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "write it as") {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}
