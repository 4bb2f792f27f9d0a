package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
)

// JSONFlag is --json of a command that says in a line what it did.
type JSONFlag struct {
	JSON bool `name:"json" help:"Print one JSON object."`
}

// say prints the line, or with --json the object.
func (f JSONFlag) say(s *streams, object map[string]any, format string, args ...any) error {
	if f.JSON {
		return printJSONLine(s.out, object)
	}
	_, err := fmt.Fprintf(s.out, format+"\n", args...)
	return err
}

func printJSON(w io.Writer, v any) error {
	indented, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeJSON(w, indented)
}

// printJSONLine is printJSON on one line.
func printJSONLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeJSON(w, line)
}

// writeJSON escapes what a terminal acts upon and JSON allows as it is: C1, DEL and
// bidirectional overrides. The value stays the same.
func writeJSON(w io.Writer, encoded []byte) error {
	var b bytes.Buffer
	for _, r := range string(encoded) {
		if r == '\n' || unicode.IsGraphic(r) { // a line break is between the values
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}
