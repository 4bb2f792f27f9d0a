package target

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/nova-social/orphan-cleaner/internal/suggest"
	"github.com/nova-social/orphan-cleaner/internal/textfile"
)

// maxFile bounds a file, in bytes.
const maxFile = 1 << 20

// reader walks through the nodes of a file. The errors are all that it met, the first of each place.
type reader struct {
	path string
	errs []error
}

func (r *reader) fail(n *yaml.Node, format string, args ...any) {
	r.errs = append(r.errs, &Error{r.path, n.Line, n.Column, fmt.Sprintf(format, args...)})
}

// inOrder joins errors of one file by their places, a line for each, and keeps the first of each place.
func inOrder(errs []error) error {
	at := func(err error) position {
		of, _ := errors.AsType[*Error](err)
		return position{of.Line, of.Column}
	}
	slices.SortStableFunc(errs, func(a, b error) int {
		return cmp.Or(cmp.Compare(at(a).line, at(b).line), cmp.Compare(at(a).column, at(b).column))
	})
	return errors.Join(slices.CompactFunc(errs, func(a, b error) bool { return at(a) == at(b) })...)
}

// document is the root of a file of one document.
func document(path string) (*yaml.Node, error) {
	text, err := textfile.Read(path)
	at := func(line, column int, message string) (*yaml.Node, error) {
		return nil, &Error{path, line, column, message}
	}
	switch {
	case err != nil:
		return at(1, 1, "it cannot be read: "+err.Error())
	case len(text) > maxFile:
		return at(1, 1, "it is larger than 1 MiB: it is no targets.yaml")
	}
	for i := 0; i < len(text); {
		c, size := utf8.DecodeRune(text[i:])
		if c == utf8.RuneError && size == 1 || c < ' ' && c != '\n' && c != '\r' && c != '\t' {
			return at(1+strings.Count(string(text[:i]), "\n"), i-strings.LastIndexByte(string(text[:i]), '\n'), "it is not UTF-8 text: save it as such, without control characters")
		}
		i += size
	}
	var root yaml.Node
	err = yaml.Load(text, &root)
	if e, is := errors.AsType[*yaml.LoadError](err); is && e.Mark.Line > 0 {
		return at(e.Mark.Line, e.Mark.Column, strings.TrimSpace(e.Message+" "+e.ContextMsg)+": correct the YAML")
	} else if err != nil {
		return at(1, 1, "it must be one YAML document with the lists targets and ignore, see docs/targets.md")
	}
	return root.Content[0], nil
}

// pairs calls each for the entries of a mapping.
func (r *reader) pairs(n *yaml.Node, what string, each func(name string, key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.fail(n, "%s must be a mapping of names to values", what)
		return
	}
	var seen []string
	for i := 0; i < len(n.Content); i += 2 {
		name := r.text(n.Content[i], "a key of "+what)
		if slices.Contains(seen, name) {
			r.fail(n.Content[i], "%q is there twice: remove one", name)
			continue
		}
		seen = append(seen, name)
		each(name, n.Content[i], n.Content[i+1])
	}
}

// mapping reads a mapping of known keys, of which the required ones must be there, and
// returns where each stands.
func (r *reader) mapping(n *yaml.Node, what string, required []string, fields map[string]func(*yaml.Node)) place {
	p := place{r.path, map[string]position{"": {n.Line, n.Column}}}
	meant := map[string]bool{}
	r.pairs(n, what, func(name string, key, value *yaml.Node) {
		read, known := fields[name]
		if !known {
			meant[r.unknown(key, name, "key of "+what, slices.Sorted(maps.Keys(fields)))] = true
			return
		}
		p.at[name] = position{value.Line, value.Column}
		read(value)
	})
	for _, name := range required {
		if _, is := p.at[name]; !is && !meant[name] {
			r.fail(n, "%s has no %q: add it, see docs/targets.md", what, name)
		}
	}
	return p
}

// unknown fails at a name that is none of those known, and returns the one that may be meant.
func (r *reader) unknown(n *yaml.Node, name, what string, known []string) (near string) {
	if near = suggest.Nearest(name, known); near != "" {
		r.fail(n, "%q is no %s: did you mean %s?", name, what, near)
	} else {
		r.fail(n, "%q is no %s: there are %s", name, what, strings.Join(known, ", "))
	}
	return near
}

// list calls each for the items of a sequence.
func (r *reader) list(n *yaml.Node, what string, each func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		r.fail(n, "%s must be a list", what)
		return
	}
	for _, item := range n.Content {
		each(item)
	}
}

// text is a scalar as it is written: NULL, true and 1 are texts, too.
func (r *reader) text(n *yaml.Node, what string) string {
	if n.Kind == yaml.ScalarNode {
		return n.Value
	}
	if n.Kind == yaml.AliasNode {
		r.fail(n, "%s is an alias: write the value out", what)
	}
	r.fail(n, "%s must be one value", what)
	return ""
}
