package target

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Expression is SQL that is exactly one expression over the columns of a target: in
// parentheses it can stand in a statement, and close, end or add nothing there. Only
// [ParseExpression] makes one.
type Expression string

const maxExpression = 1000 // bytes

// What the tokens of an expression are. A number runs into a word as PostgreSQL lets it.
var token = regexp.MustCompile(`^(?:( +)|('(?:[^']|'')*')|("[^"]+")|([A-Za-z_][A-Za-z0-9_]*)|(\d+(?:\.\d+)?)|(::|[-+*/%=<>!~|.,()\[\]]))`)

// The groups of token.
const (
	space = iota + 1
	literal
	quotedName
	word
	number
	operator
)

// What nothing may hold, not even a literal: the printed text is one line of a function's
// body, and whoever reads it need not know where a literal begins.
var nowhere = []string{";", `\`, "$", "--", "/*", "*/"}

// Words that make more than an expression of what stands between parentheses, or that call
// what is not on the list of callable. A column of that name is written in double quotes.
var refusedWords = []string{
	"select", "with", "table", "values", "insert", "update", "delete", "merge", "into", "union", "intersect", "except",
	"limit", "offset", "fetch", "returning", "window", "over", "filter", "within", "operator", "exists", "lateral", "default",
}

// Words that a parenthesis may follow: keywords, types that take a length, and functions of
// pg_catalog that read nothing but their arguments and the clock. No other function is
// called: one that runs SQL, such as query_to_xml, would make any expression a statement.
var callable = []string{
	"and", "or", "not", "in", "any", "all", "from", "between", "like", "ilike", "case", "when", "then", "else", "row",
	"numeric", "varchar", "cast", "extract",
	"coalesce", "nullif", "greatest", "least", "now", "date_trunc", "make_interval", "to_timestamp",
	"lower", "upper", "length", "left", "right", "substr", "replace", "concat", "md5", "gen_random_uuid",
	"abs", "round", "floor", "ceil", "cardinality", "array_remove", "jsonb_build_object",
}

// ParseExpression refuses what is more than one expression: statements, subqueries,
// comments, and calls of functions that are not on a list. It does not know SQL's grammar:
// whether the expression has sense, the server says, see [File.Validate].
func ParseExpression(text string) (Expression, error) {
	text = strings.TrimSpace(text)
	if text == "" || len(text) > maxExpression {
		return "", fmt.Errorf("an expression has 1 to %d bytes, this one %d: an empty string is written \"''\"", maxExpression, len(text))
	}
	for _, r := range text {
		if !unicode.IsGraphic(r) {
			return "", fmt.Errorf("an expression is one line of visible characters, this one has %U: write it on one line", r)
		}
	}
	for _, part := range nowhere {
		if strings.Contains(text, part) {
			return "", fmt.Errorf("an expression has no %s, not even in a literal: take it out", part)
		}
	}
	var open []string
	last, lastIs, before := "", 0, 0 // the token before, without spaces; what it is; what it is with spaces
	for rest := text; rest != ""; {
		m := token.FindStringSubmatch(rest)
		if m == nil {
			return "", fmt.Errorf("an expression cannot hold %.12q here: unclosed quotes, or a character that is not allowed", rest)
		}
		rest = rest[len(m[0]):]
		is := slices.IndexFunc(m[1:], func(group string) bool { return group != "" }) + 1
		lower := strings.ToLower(m[0])
		switch {
		case is == space:
		case is == literal && before == word:
			return "", fmt.Errorf("%s%s is a literal with escapes or of bits: write it without the %s", last, m[0], last)
		case is == word && slices.Contains(refusedWords, lower):
			return "", fmt.Errorf("%q makes it more than an expression: no statements, subqueries, aggregates; a column of that name is written in double quotes", m[0])
		case m[0] == "(" && (lastIs == quotedName || lastIs == word && !slices.Contains(callable, strings.ToLower(last))):
			return "", fmt.Errorf("it calls %s, which is not one of the functions that are allowed: %s", last, strings.Join(callable[slices.Index(callable, "coalesce"):], ", "))
		case lastIs == operator && last == "." && is != word && is != quotedName:
			return "", errors.New("after a dot stands the name of a column")
		case m[0] == "(" || m[0] == "[":
			open = append(open, map[string]string{"(": ")", "[": "]"}[m[0]])
		case m[0] == ")" || m[0] == "]":
			if len(open) == 0 || open[len(open)-1] != m[0] {
				return "", fmt.Errorf("%s closes nothing: balance the parentheses", m[0])
			}
			open = open[:len(open)-1]
		case m[0] == "," && len(open) == 0:
			return "", errors.New("it is a list: write one expression for each column")
		}
		if before = is; is != space {
			// A qualified function is not one of pg_catalog.
			if last == "." && is == word {
				is = quotedName
			}
			last, lastIs = m[0], is
		}
	}
	if len(open) > 0 {
		return "", fmt.Errorf("%s is missing: balance the parentheses", open[len(open)-1])
	}
	return Expression(text), nil
}
