package printer

import (
	"slices"
	"strings"
)

// joined writes columns, or those that are set, one by one.
func joined(columns any, separator string, form func(Column) string) string {
	var parts []string
	switch columns := columns.(type) {
	case []Column:
		for _, c := range columns {
			parts = append(parts, form(c))
		}
	case []Set:
		for _, s := range columns {
			parts = append(parts, form(s.Column))
		}
	}
	return strings.Join(parts, separator)
}

// numbers writes columns with their place, from 1 on.
func numbers(columns []Column, form func(int, Column) string, separator string) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = form(i+1, c)
	}
	return strings.Join(parts, separator)
}

func sortedNames(columns []Column) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	slices.Sort(names)
	return names
}

// functionNames are the names of functions in their schema, wrapped as the house does.
func functionNames(functions []Function, backwards bool) string {
	const width = 120
	var text strings.Builder
	line := width
	if backwards {
		functions = slices.Clone(functions)
		slices.Reverse(functions)
	}
	for i, f := range functions {
		name := "orphan_cleaner." + f.Name
		if i > 0 {
			text.WriteString(",")
		}
		if line += len(name) + 2; line > width {
			text.WriteString("\n   ")
			line = 4 + len(name)
		}
		text.WriteString(" " + name)
	}
	return text.String()
}
