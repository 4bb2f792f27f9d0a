// Package safetext makes text that others wrote fit to be shown. A user name, an
// error of a server or the reason of a hold may hold anything: a line that looks
// like one of ours, a sequence that sets the title of a terminal, a megabyte.
package safetext

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const ellipsis = "…"

// userInfo ends at the last @ of a word: a password may hold one, and hiding too
// much is better than showing the end of a password.
var userInfo = regexp.MustCompile(`://\S*@`)

// placeholder is the user info of the examples in our own messages, to be copied.
const placeholder = "://user@"

// Line is text on one line of at most most bytes, which is 3 or more. It is valid
// UTF-8; what is not graphic is escaped as in a Go string: control characters (ESC,
// CR, LF, C1), bidirectional overrides, zero-width characters and bytes that are
// not UTF-8. The user info of URLs is hidden. Line of a Line is the same Line.
func Line(text string, most int) string {
	line := userInfo.ReplaceAllStringFunc(escape(text), func(found string) string {
		if found == placeholder {
			return found
		}
		return "://[hidden]@"
	})
	return cut(line, most)
}

// URL is as Line, but shows the name of the login: of a URL that was made without its
// secrets.
func URL(url string, most int) string { return cut(escape(url), most) }

func cut(line string, most int) string {
	if len(line) <= most {
		return line
	}
	end := most - len(ellipsis)
	for !utf8.RuneStart(line[end]) {
		end--
	}
	return line[:end] + ellipsis
}

func escape(text string) string {
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			b.WriteString(`\x` + strconv.FormatUint(uint64(text[i]), 16)) // 80 to ff: two digits
		case unicode.IsGraphic(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}
