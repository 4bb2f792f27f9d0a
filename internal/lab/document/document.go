// Package document writes generated figures into documents.
package document

import (
	"bytes"
	"fmt"
	"os"
	"slices"

	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Thousands writes 15,000.
func Thousands[T int | int64](n T) string { return message.NewPrinter(language.English).Sprint(n) }

// Replace puts the text between two marks of the document, in place of what is there.
func Replace(path, begin, end, text string) error {
	document, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := bytes.Cut(document, []byte(begin))
	_, after, ended := bytes.Cut(rest, []byte(end))
	if !found || !ended {
		return fmt.Errorf("%s has no lines %q and %q for the figures to stand between", path, begin, end)
	}
	return os.WriteFile(path, slices.Concat(before, []byte(begin+"\n\n"+text+"\n"+end), after), 0o644) //nolint:gosec // a document, for everybody
}
