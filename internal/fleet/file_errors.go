package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/nova-social/orphan-cleaner/internal/target"
)

func at(path string, line, column int, format string, args ...any) error {
	return &target.Error{Path: path, Line: line, Column: column, Message: withPassword.ReplaceAllString(fmt.Sprintf(format, args...), "[not shown]")}
}

// withPassword is a URL in a wrong place.
var withPassword = regexp.MustCompile(`\w+://[^\s@]*:\S*@[^\s"]*`)

// located is the first place that the reader of YAML complains about.
func located(path string, err error) error {
	of, is := errors.AsType[*yaml.LoadError](err)
	if many, are := errors.AsType[*yaml.LoadErrors](err); are && len(many.Errors) > 0 {
		of, is = many.Errors[0], true
	}
	switch {
	case strings.Contains(err.Error(), "no documents"):
		return at(path, 1, 1, "the file is empty: see docs/scale.md")
	case !is:
		return at(path, 1, 1, "%v: see docs/scale.md", err)
	}
	message := notKey.ReplaceAllString(of.Message, "is no key of a fleet file")
	if into := notType.FindStringSubmatch(message); into != nil {
		message = "this is not " + cmp.Or(wanted[into[1]], "what belongs here")
	}
	return at(path, max(of.Mark.Line, 1), max(of.Mark.Column, 1), "%s: see docs/scale.md", message)
}

// Who writes the file does not know our types.
var (
	notKey  = regexp.MustCompile(`not found in type \S+( \{.*)?`)
	notType = regexp.MustCompile(`^cannot construct .* into \*?(struct|\S+)`)
	wanted  = map[string]string{ //nolint:gochecknoglobals // constant
		"fleet.content": "a fleet file, with shards and other keys", "struct": "{directory: DIR}, or a list of {name, url_file}",
		"fleet.shardEntry": "a shard, such as {name: eu-1, url_file: eu-1}", "[]int": "a list of whole numbers, such as [1, 10]",
		"map[string]float64": "a map of limits, such as {delete-rows: 500000}",
		"int":                "a whole number", "float64": "a number", "bool": "true or false", "string": "a text",
	}
)
