package main

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/safetext"
)

// Exit statuses, a contract.
const (
	exitDone       = 0
	exitFailed     = 1
	exitUsage      = 2
	exitRefused    = 3
	exitAnotherRun = 4
)

// errUsage is wrapped by what the user can fix on the command line or in the environment.
var errUsage = errors.New("wrong usage")

func exitStatus(err error) int {
	switch {
	case err == nil, errors.Is(err, run.ErrPaused):
		return exitDone
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, run.ErrRefused):
		return exitRefused
	case errors.Is(err, run.ErrAnotherRun):
		return exitAnotherRun
	default:
		return exitFailed
	}
}

// maxShown bounds one text of others that is printed, in bytes.
const maxShown = 2000

// shown is a text that a server, or somebody in the database, wrote: fit for a
// terminal.
func shown(text string) string { return safetext.Line(text, maxShown) }

// oneLine is the text of an error in one line, fit for a terminal, each part of it
// once: pgx tells of every address it tried, in a line of its own.
func oneLine(err error) string {
	var parts []string
	for part := range strings.Lines(err.Error()) {
		if part = strings.TrimSpace(part); part != "" && !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return shown(strings.Join(parts, " "))
}

var urlPattern = regexp.MustCompile(`(?is)(postgres(ql)?://|rediss?(\+\w+)?://|password=).*`)

// hideURL cuts off what may be a database URL misplaced on the command
// line, password included: its end cannot be told.
func hideURL(text string) string { return urlPattern.ReplaceAllString(text, "[not shown]") }

// plainly has what kong says of a value in the words of the reader.
func plainly(text string) string {
	for _, p := range []struct{ said, plain string }{
		{`expected a valid \d+ bit u?int but got ("-?\d+")`, "$1 is too large a number"},
		{`expected a valid \d+ bit u?int but got (".*?")`, "$1 is not a whole number"},
		{`(unknown flag -\d+), did you mean .*`, "$1"},
		{`unexpected argument ,`, `unexpected argument "",`},
		{`unexpected argument$`, `unexpected argument ""`},
		{`expected a float but got (".*?") \(\w+\)`, "$1 is not a number such as 0.05"},
		{`expected \w+ value but got (".*?") \(short flag\); perhaps try .*\?`, "$1 begins with a dash, which no value does"},
		{`expected \w+ value but got (".*?") \(long flag\); perhaps try .*\?`, "a value is missing before $1"},
		{`expected \w+ value but got "EOL" \(<EOL>\)`, "a value is missing"},
		{"cannot construct !!(str|seq|map|int|bool|float|null)( `[^`]*`)? into (struct \\{.*\\}|\\S+)", "this $1$2 is not what belongs here"},
		{`^\[(<\w+>)\]`, "$1"},
		{`\(from envar (\w+=)`, "(from $1"},
	} {
		text = regexp.MustCompile(p.said).ReplaceAllString(text, p.plain)
	}
	return text
}

// commandMeant is the command whose help has what a command line lacks.
func commandMeant(err error) string {
	meant := "orphan-cleaner"
	if parse, is := errors.AsType[*kong.ParseError](err); is {
		for _, step := range parse.Context.Path {
			if step.Command != nil {
				meant = step.Command.FullPath()
			}
		}
	}
	return meant
}

// errShown is wrapped by errors that the user has already been shown.
var errShown = errors.New("shown")

type shownError struct{ error }

func (e shownError) Unwrap() []error { return []error{e.error, errShown} }
