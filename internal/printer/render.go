package printer

import (
	"embed"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"text/template"

	"github.com/nova-social/orphan-cleaner/internal/target"
)

//go:embed templates/*.sql
var templates embed.FS

// Function is a function of a target as it is printed.
type Function struct {
	Name    string // without the schema
	Text    string // from CREATE to the semicolon behind its body, and a newline
	Comment string
}

// made names a function and the template of it. The order is that of their calls.
type made struct{ verb, template, comment string }

// functionsOf are the functions that the core calls, by an action, and what they call.
func functionsOf(action string) []made {
	read := []made{
		{"page", "page", "The next distinct user ids from one on, in order, and how many rows they have. Granted to nobody."},
		{"holders", "holders", "Those of the users who have a row. Granted to nobody."},
		{"total", "total", "How many rows there are: counted where it may matter, else an estimate. Granted to nobody."},
		{"facts", "facts", "Of each user: rows older than the horizon, younger ones, rows on hold, and the last activity. Granted to nobody."},
		{"canaries", "canaries", "Users who were alive so far, spread over all ids. Granted to nobody."},
		{"choose", "choose", "Where those rows of the users are that may go: older than the horizon, unchanged since; one more than asked for where there are more. Granted to nobody."},
		{"proof", "proof", "How many rows of a run were audited and backed up since its beginning. Granted to nobody."},
		{"restore_plan", "restore_plan_" + action, "What a restore of this run, these users and span would do with each row: restore, there, there_differs, left_since. A null chooses all. Granted to nobody."},
		{"restore_chunks", "restore_chunks", "Where the backup rows of a restore are: the chunks of that many pages that hold one, by UTC day, with their users. Granted to nobody."},
		{"restore_chunk", "restore_chunk_" + action, "Restores the planned rows of these users on some pages of the backup of a day, places holds on their users, returns how many. Granted to nobody."},
		// Only where there is a counter.
		{"counts", "counts", "Changes what counts the rows with these keys, by as many as each has: more, or less. Granted to nobody."},
	}
	if action == target.Update {
		return append(read,
			made{"keep", "keep", "Audits and backs up rows, and works out what each column is to be set to. Granted to nobody."},
			made{"undone", "undone", "How many of the rows are not done yet. Granted to nobody."},
			made{"set", "set", "Updates the chosen rows as far as they are unchanged, all of them or none. Granted to nobody."},
			made{"delete", "delete", "Updates at most max_rows rows of the users: older than the horizon, unchanged since checked_from. Granted to nobody."},
			made{"revert_chunk", "revert_chunk", "Updates rows of a restore once more, as far as they are unchanged and of these users. Granted to nobody."},
		)
	}
	return append(read,
		made{"audit_deleted", "audit_deleted", "Audits every deleted row; backs up those of an open run and reports both counts to its transaction."},
		made{"delete", "delete", "Deletes at most max_rows rows of the users: older than the horizon, unchanged since checked_from. Granted to nobody."},
		made{"revert_chunk", "revert_chunk", "Deletes rows of a restore once more, as far as they are unchanged and of these users. Granted to nobody."},
	)
}

// functions renders the functions of a target.
func (r renderer) functions(m Model) ([]Function, error) {
	var rendered []Function
	for _, f := range functionsOf(m.Action) {
		if f.verb == "counts" && !m.HasCounter() {
			continue
		}
		text, err := r.render(f.template, m)
		if err != nil {
			return nil, err
		}
		rendered = append(rendered, Function{m.Name + "_" + f.verb, text, f.comment})
	}
	return rendered, nil
}

var setting = regexp.MustCompile(`(?m)^SET (\w+) = (.+)$`)

// settings are those of the function, as the catalog has them.
func (f Function) settings() string {
	head, _, _ := strings.Cut(f.Text, "\nAS $$")
	var lines []string
	for _, m := range setting.FindAllStringSubmatch(head, -1) {
		lines = append(lines, m[1]+"="+strings.Trim(m[2], "'"))
	}
	return strings.Join(lines, "\n")
}

// signature is its name, arguments and result.
func (f Function) signature() string {
	head, _, _ := strings.Cut(f.Text, "\nLANGUAGE ")
	return head
}

// body is what stands between the dollars.
func (f Function) body() string {
	_, body, _ := strings.Cut(f.Text, "\nAS $$")
	body, _, _ = strings.Cut(body, "$$;\n")
	return body
}

// renderer has the templates.
type renderer struct{ *template.Template }

func newRenderer() (renderer, error) {
	parsed, err := template.New("").Funcs(helpers()).ParseFS(templates, "templates/*.sql")
	if err != nil {
		return renderer{}, fmt.Errorf("reading the templates: %w", err)
	}
	return renderer{parsed}, nil
}

func (r renderer) render(name string, data any) (string, error) {
	var text strings.Builder
	if err := r.ExecuteTemplate(&text, name, data); err != nil {
		return "", fmt.Errorf("printing %s: %w", name, err)
	}
	return text.String(), nil
}

// helpers write what the templates cannot say.
func helpers() template.FuncMap {
	return template.FuncMap{
		"literal": literal,
		"add":     func(a, b int) int { return a + b },
		"json": func(m Model) (string, error) {
			text, err := json.Marshal(m)
			return string(text), err
		},
		"sets": func(sets []Set) string {
			var parts []string
			for _, set := range sets {
				parts = append(parts, fmt.Sprintf("%s = (%s)", set.Ident, set.Expression))
			}
			return strings.Join(parts, ", ")
		},
		"array": func(columns []Column) string {
			return `{"` + strings.Join(sortedNames(columns), `","`) + `"}`
		},
		"list": func(prefix string, columns any) string {
			return joined(columns, ", ", func(c Column) string { return prefix + c.Ident })
		},
		"listed": func(prefix string, columns any) string {
			return joined(columns, ",\n            ", func(c Column) string { return prefix + c.Ident })
		},
		"equal": func(one, other string, key []Column) string {
			return joined(key, " AND ", func(c Column) string { return one + c.Ident + " = " + other + c.Ident })
		},
		// Keys by numbers, where a name of ours could be that of a column.
		"numbered": func(prefix string, key []Column) string {
			return numbers(key, func(i int, c Column) string { return fmt.Sprintf("%s%s AS k%d", prefix, c.Ident, i) }, ", ")
		},
		"numbers": func(prefix string, key []Column) string {
			return numbers(key, func(i int, _ Column) string { return fmt.Sprintf("%sk%d", prefix, i) }, ", ")
		},
		"matched": func(one, other string, key []Column) string {
			return numbers(key, func(i int, c Column) string { return fmt.Sprintf("%s%s = %sk%d", one, c.Ident, other, i) }, " AND ")
		},
		// The whole row as text. That of conversation_members is worked out of the catalog: the nth list of columns of its statement.
		"row": func(prefix string, n int, m Model) string {
			if m.Shipped {
				return fmt.Sprintf("ROW(%%%d$s)::text", n)
			}
			return rowText(prefix, m.Stored)
		},
		// A variable, which a statement that is put together has by its number; and the sign of a remainder in it.
		"value": func(name string, n int, m Model) string {
			if m.Shipped {
				return fmt.Sprintf("$%d", n)
			}
			return name
		},
		"mod": func(m Model) string {
			if m.Shipped {
				return "%%"
			}
			return "%"
		},
		// By which restores names a row: its conversation, which only a member has, and its key.
		"conversation": func(prefix string, m Model) string {
			if m.Shipped {
				return prefix + "conversation_id"
			}
			return "'00000000-0000-0000-0000-000000000000'"
		},
		"rowKey": func(prefix string, m Model) string {
			if m.Shipped {
				return "''"
			}
			return rowText(prefix, m.Key)
		},
		// The key of a counter, as a row has it, and out of that again, where the number of rows stands behind it. As texts,
		// which any type is written as and read from.
		"countedOf": func(row string, m Model) string {
			return numbers(m.Counter.Values, func(i int, c Column) string { return fmt.Sprintf("%s%s::text AS k%d", row, c.Ident, i) }, ", ")
		},
		"countedKey": func(key []Column) string {
			return numbers(key, func(i int, c Column) string { return fmt.Sprintf("(e.value ->> %d)::%s AS k%d", i-1, c.Type, i) }, ", ")
		},
		// What a column was set to, and what it was before. One that is set since is as it is.
		"setTo": func(backup string, sets []Set) string {
			return joined(sets, ", ", func(c Column) string { return setTo(backup, c) })
		},
		"was": func(backup, row string, sets []Set) string {
			return joined(sets, ", ", func(c Column) string { return was(backup, row, c) })
		},
		"wasOne": func(backup, row string, s Set) string { return was(backup, row, s.Column) },
		"wasSet": func(backup, row string, sets []Set) string {
			return joined(sets, ", ", func(c Column) string {
				return fmt.Sprintf("CASE WHEN %sset_to ? %s THEN %s ELSE %s%s END", backup, literal(c.Name), setTo(backup, c), row, c.Ident)
			})
		},
		"join": func(functions []Function) string {
			texts := make([]string, len(functions))
			for i, f := range functions {
				texts[i] = f.Text
			}
			return strings.Join(texts, "\n")
		},
		"owned": func(functions []Function, tables ...string) any {
			return struct {
				Functions []Function
				Tables    []string
			}{functions, tables}
		},
		"names": func(functions []Function) string { return functionNames(functions, false) },
		// Those that call others first.
		"backwards": func(functions []Function) string { return functionNames(functions, true) },
	}
}

func rowText(prefix string, columns []Column) string {
	return "ROW(" + joined(columns, ", ", func(c Column) string { return prefix + c.Ident }) + ")::text"
}

func setTo(backup string, c Column) string {
	return fmt.Sprintf("(%sset_to ->> %s)::%s", backup, literal(c.Name), c.Type)
}

func was(backup, row string, c Column) string {
	return fmt.Sprintf("CASE WHEN %[1]sset_to ? %[2]s THEN %[1]s%[4]s ELSE %[3]s%[4]s END", backup, literal(c.Name), row, c.Ident)
}

// literal is a text in single quotes. No text of ours has a backslash.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
