package source

import (
	"regexp"

	"github.com/nova-social/orphan-cleaner/internal/safetext"
)

// maxQuoted bounds what a server can put into a message of ours, in bytes.
const maxQuoted = 300

// Clean makes a text of the server fit to be shown. A server may repeat what it was
// sent: the token is removed before the text is cut, so that no part of it is left.
func (t Token) Clean(text string) string {
	for _, secret := range []string{t.Header, t.secret} {
		if secret != "" {
			text = regexp.MustCompile(`(?i)`+regexp.QuoteMeta(secret)).ReplaceAllLiteralString(text, "[token]")
		}
	}
	return safetext.Line(text, maxQuoted)
}
