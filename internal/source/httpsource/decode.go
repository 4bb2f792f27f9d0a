package httpsource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/nova-social/orphan-cleaner/internal/source"
)

// invalid is why an answer is not in the form that was agreed on.
type invalid struct{ reason, what string }

func (i *invalid) Error() string { return i.what }

func malformed(format string, args ...any) *invalid {
	return &invalid{source.Malformed, fmt.Sprintf(format, args...)}
}

// decode reads {"users": [{"id": "…"}], "complete": true}, and nothing else. By
// json.Unmarshal a name would match in any case, and of one that is there twice the last
// would be taken.
func decode(text []byte) (ids []string, problem *invalid) {
	if !utf8.Valid(text) {
		return nil, malformed("the answer is not UTF-8")
	}
	in := json.NewDecoder(bytes.NewReader(text))
	isComplete := false
	err := object(in, "the answer", map[string]func() error{
		"users": func() error {
			return array(in, func() error {
				return object(in, "a user", map[string]func() error{"id": func() error {
					id, err := value[string](in, "an id")
					ids = append(ids, id)
					return err
				}})
			})
		},
		"complete": func() (err error) {
			isComplete, err = value[bool](in, "complete")
			return err
		},
	})
	if err == nil {
		if _, more := in.Token(); !errors.Is(more, io.EOF) {
			err = malformed("something follows the JSON object of the answer")
		}
	}
	switch found := (*invalid)(nil); {
	case errors.As(err, &found):
		return nil, found
	case err != nil:
		return nil, malformed("the answer is not JSON: %v", err)
	case !isComplete:
		return nil, &invalid{source.NotComplete, `the answer says "complete": false`}
	}
	return ids, nil
}

// object reads an object that has all of these members, each once, and no other.
func object(in *json.Decoder, what string, members map[string]func() error) error {
	if err := delimiter(in, '{', what+" is not an object"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for in.More() {
		name, err := value[string](in, "a name")
		if err != nil {
			return err
		}
		read, known := members[name]
		switch {
		case !known:
			return &invalid{source.UnknownField, fmt.Sprintf("%s has the unknown field %q, so it may be a part of the whole", what, name)}
		case seen[name]:
			return malformed("%s has the field %q twice", what, name)
		}
		seen[name] = true
		if err := read(); err != nil {
			return err
		}
	}
	if _, err := in.Token(); err != nil {
		return err
	}
	for name := range members {
		switch {
		case name == "complete" && !seen[name]:
			return &invalid{source.NotComplete, `the answer does not say "complete": true`}
		case !seen[name]:
			return malformed("%s has no field %q", what, name)
		}
	}
	return nil
}

// array reads an array, element by element.
func array(in *json.Decoder, element func() error) error {
	if err := delimiter(in, '[', "users is not an array"); err != nil {
		return err
	}
	for in.More() {
		if err := element(); err != nil {
			return err
		}
	}
	_, err := in.Token()
	return err
}

func delimiter(in *json.Decoder, want json.Delim, wrong string) error {
	switch token, err := in.Token(); {
	case err != nil:
		return err
	case token != want:
		return malformed("%s", wrong)
	}
	return nil
}

// value reads a value of one type; null is of none.
func value[T any](in *json.Decoder, what string) (T, error) {
	token, err := in.Token()
	is, ok := token.(T)
	if err == nil && !ok {
		err = malformed("%s is not a %T", what, is)
	}
	return is, err
}

func isUTF8(charset string) bool { return strings.EqualFold(charset, "utf-8") }
