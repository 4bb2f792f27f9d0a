package main

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// pictures are the files of docs/commands and the page that shows them. A picture is drawn
// from the text, so that it is the same on each machine and a stale one is found by comparing.
type pictures struct {
	t     *testing.T
	page  map[string][]string // by command, its pictures as Markdown
	files []string
}

const picturesDir = "../../docs/commands"

// pictureName is of a file, without what ends it: the command, and its flag if there is one.
func pictureName(command string, args []string) string {
	flags := slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return !strings.HasPrefix(arg, "--") })
	if len(flags) == 1 {
		flag, _, _ := strings.Cut(flags[0], "=")
		command += strings.TrimPrefix(flag, "-")
	}
	return strings.ReplaceAll(command, " ", "-")
}

// add draws what a command printed on a terminal of 80 and on one of 120 columns.
func (p *pictures) add(command string, args []string, outputs map[string]string) {
	p.t.Helper()
	given := pictureNoise[0].what.ReplaceAllString("orphan-cleaner "+strings.Join(quoted(args), " "), pictureNoise[0].mask)
	name := pictureName(command, args)
	for _, columns := range []int{80, 120} {
		file := fmt.Sprintf("%s-%d.svg", name, columns)
		golden(p.t, filepath.Join(picturesDir, file), drawn(given, outputs[strconv.Itoa(columns)], columns))
		p.files = append(p.files, file)
	}
	p.page[command] = append(p.page[command], fmt.Sprintf("[![%s prints this](commands/%s-80.svg)](commands/%s-120.svg)", given, name, name))
}

func quoted(args []string) []string {
	words := slices.Clone(args)
	for i, word := range words {
		if flag, value, is := strings.Cut(word, "="); is && strings.Contains(value, " ") {
			words[i] = flag + "='" + value + "'"
		}
	}
	return words
}

// write writes the page, and finds pictures that nobody shows any more.
func (p *pictures) write(model *kong.Application) {
	p.t.Helper()
	var b strings.Builder
	b.WriteString("# Commands\n\nWhat each command prints on a terminal of 80 columns; a picture leads to the same on 120. " +
		"Of a command that prints nothing\n" +
		"it is the help. Times, speeds, ports and versions are made up. `make screenshots` writes this page and its pictures from the program, and a test compares them.\n" +
		"What `--json` prints is in [output.md](output.md).\n")
	group := ""
	for _, leaf := range slices.SortedStableFunc(slices.Values(model.Leaves(false)), func(a, b *kong.Node) int { return cmp.Compare(place(model, a), place(model, b)) }) {
		command := strings.TrimPrefix(leaf.Path(), "orphan-cleaner ")
		if title := top(leaf).Group.Title; title != group {
			group = title
			fmt.Fprintf(&b, "\n## %s\n", group)
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n%s\n", command, leaf.Help, strings.Join(p.page[command], "\n\n"))
	}
	golden(p.t, "../../docs/commands.md", b.String())
	found, err := os.ReadDir(picturesDir)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, file := range found {
		if !slices.Contains(p.files, file.Name()) {
			p.t.Errorf("docs/commands/%s is shown by no page", file.Name())
		}
	}
}

// top is the command of the first word.
func top(node *kong.Node) *kong.Node {
	for node.Parent != nil && node.Parent.Type != kong.ApplicationNode {
		node = node.Parent
	}
	return node
}

// place is where the usage has a command.
func place(model *kong.Application, node *kong.Node) int {
	return slices.Index(model.Children, top(node))
}

// The grid of a picture, in pixels, and the colours of a terminal.
const (
	cellWidth, cellHeight, margin = 7.8, 18, 12
	colours                       = `text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#e6edf3;white-space:pre}` +
		`.c{fill:#8b949e}.c31{fill:#ff7b72}.c32{fill:#7ee787}.c33{fill:#e3b341}`
)

var escape = regexp.MustCompile("\x1b\\[(\\d+)m")

// drawn is a terminal of so many columns: the command, then what it printed.
func drawn(command, output string, columns int) string {
	var rows []string
	row := func(class, line string) {
		y := margin + cellHeight*len(rows) + 13
		length := utf8.RuneCountInString(escape.ReplaceAllString(line, ""))
		if length == 0 {
			rows = append(rows, "")
			return
		}
		inner := escape.ReplaceAllStringFunc(escaped(line), func(code string) string {
			if code = escape.FindStringSubmatch(code)[1]; code == "0" {
				return "</tspan>"
			}
			return `<tspan class="c` + code + `">`
		})
		rows = append(rows, fmt.Sprintf(`<text%s x="%d" y="%d" textLength="%.1f">%s</text>`+"\n", class, margin, y, cellWidth*float64(length), inner))
	}
	for _, line := range wrapped("$ "+command, columns) {
		row(` class="c"`, line)
	}
	for line := range strings.Lines(output) {
		for _, part := range wrapped(strings.TrimSuffix(line, "\n"), columns) {
			row("", part)
		}
	}
	width, height := cellWidth*float64(columns)+2*margin, cellHeight*len(rows)+2*margin
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%d" viewBox="0 0 %.0f %d" role="img">`+"\n<title>%s</title>\n<style>%s</style>\n"+
		`<rect width="100%%" height="100%%" rx="6" fill="#0d1117"/>`+"\n%s</svg>\n", width, height, width, height, escaped(command), colours, strings.Join(rows, ""))
}

// wrapped breaks a line where a terminal does: after the last column.
func wrapped(line string, columns int) (parts []string) {
	if strings.Contains(line, "\x1b") { // such a line is short
		return []string{line}
	}
	for runes := []rune(line); ; runes = runes[columns:] {
		if len(runes) <= columns {
			return append(parts, string(runes))
		}
		parts = append(parts, string(runes[:columns]))
	}
}

func escaped(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

// The pictures of the commands and of the page stay small, and are what a browser can read.
func TestPicturesAreSmall(t *testing.T) {
	t.Parallel()
	total := int64(0)
	err := filepath.WalkDir(picturesDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		total += int64(len(text))
		if err == nil {
			err = xml.Unmarshal(text, &struct {
				XMLName xml.Name `xml:"http://www.w3.org/2000/svg svg"`
			}{})
		}
		return err
	})
	if err != nil || total > 1_000_000 {
		t.Errorf("%d bytes, %v", total, err)
	}
}
