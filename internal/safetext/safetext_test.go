package safetext_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/nova-social/orphan-cleaner/internal/safetext"
)

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "",
		`say "no" to C:\temp`:               `say "no" to C:\temp`,
		"法院命令　第 7 号 é 👍":                    "法院命令　第 7 号 é 👍",
		"a\x1b]0;owned\x07b":                `a\x1b]0;owned\ab`,
		"\x1b[2J":                           `\x1b[2J`,
		"done\rERROR":                       `done\rERROR`,
		"a\nINFO orphan_cleaner: forged":    `a\nINFO orphan_cleaner: forged`,
		"C1: \u009b2J":                      `C1: \u009b2J`,
		"DEL: \x7f":                         `DEL: \x7f`,
		"user\u202egnp.exe":                 `user\u202egnp.exe`,
		"isolate \u2066 mark \u200f":        `isolate \u2066 mark \u200f`,
		"lines \u2028 \u2029":               `lines \u2028 \u2029`,
		"zero\u200bwidth \ufeff":            `zero\u200bwidth \ufeff`,
		"tag \U000e0041":                    `tag \U000e0041`,
		"not UTF-8: \xff\xc3(\xed\xa0\x80":  `not UTF-8: \xff\xc3(\xed\xa0\x80`,
		"replaced already: \ufffd":          "replaced already: \ufffd",
		"postgres://u:p@ss/w@db:5432/x":     "postgres://[hidden]@db:5432/x",
		"at https://t0k@a b, http://c:1":    "at https://[hidden]@a b, http://c:1",
		"mail@example.com, no URL: // @":    "mail@example.com, no URL: // @",
		"over://two\nlines:p@h":             "over://[hidden]@h",
		"x postgresql://u:p@a,b:p@c/d tail": "x postgresql://[hidden]@c/d tail",
		// The example in our own messages is no secret, and can be copied.
		"want postgres://user@host:5432/m": "want postgres://user@host:5432/m",
		"postgres://user@x:p@db/m":         "postgres://[hidden]@db/m",
	} {
		if got := safetext.Line(in, 1000); got != want {
			t.Errorf("Line(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	if got, want := safetext.URL("postgres://runner@h\u202e/\x1b[2J", 1000), `postgres://runner@h\u202e/\x1b[2J`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestLineIsCut(t *testing.T) {
	for in, want := range map[string]string{
		"1234567890":                      "1234567890",
		"12345678901":                     "1234567…",
		"12345é7890":                      "12345é…", // é has two bytes
		"123456é7890":                     "123456…",
		"12345\x1b[2J":                    `12345\x…`,
		strings.Repeat("\u202e", 100_000): `\u202e\…`,
	} {
		if got := safetext.Line(in, 10); got != want {
			t.Errorf("Line(%.20q, 10) = %s, want %s", in, got, want)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add("a\x1b]0;b\a\r\n\u202e\xff http://u:p@h/@", uint16(20))
	f.Add(strings.Repeat("…", 50), uint16(9))
	f.Fuzz(func(t *testing.T, text string, n uint16) {
		most := max(int(n), 3)
		line := safetext.Line(text, most)
		if len(line) > most || !utf8.ValidString(line) {
			t.Fatalf("%d bytes of at most %d: %q", len(line), most, line)
		}
		if at := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsGraphic(r) }); at >= 0 {
			t.Fatalf("not graphic at %d: %q", at, line)
		}
		if again := safetext.Line(line, most); again != line {
			t.Fatalf("%q became %q", line, again)
		}
	})
}
