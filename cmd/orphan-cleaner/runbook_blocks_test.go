package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The runbook, in its languages.
const (
	runbookEnglish = "../../docs/runbook.md"
	runbookChinese = "../../docs/runbook.zh-CN.md"
)

// block is a fenced block of the runbook, with what the HTML comment in the line
// before it says of it, which no reader of the page sees:
//
//	<!-- run -->                              it is run, and must succeed
//	<!-- run exit=3 expect="refused" -->      and must end with 3 and print this regular expression
//	<!-- run as=migrator on=auth-service -->  as another login, on another database: see [runbookWorld]
//	<!-- run given="runs are paused" -->      in a state that is brought about before: see [givens]
//	<!-- norun: why -->                       it is not run
type block struct {
	line     int
	language string
	code     string

	run    bool
	norun  string // why not
	exit   int
	expect []string // regular expressions, each of which is printed
	as, on string
	given  string
}

var (
	fencePattern = regexp.MustCompile("^( *)```(\\w*)$")
	markPattern  = regexp.MustCompile(`^ *<!-- (run|norun:)( .*)? -->$`)
	attrPattern  = regexp.MustCompile(`^ (\w+)=(?:"([^"]*)"|([^" ]+))`)
)

// isRunnable is about the languages of blocks that are run, or say why not.
func isRunnable(language string) bool {
	return slices.Contains([]string{"sql", "bash", "promql"}, language)
}

// readRunbook reads the blocks of a page, of every language, and says what is wrong with their marks.
func readRunbook(text string) (blocks []block, wrong []string) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		open := fencePattern.FindStringSubmatch(lines[i])
		if open == nil {
			if markPattern.MatchString(lines[i]) && (i+1 == len(lines) || !fencePattern.MatchString(lines[i+1])) {
				wrong = append(wrong, fmt.Sprintf("line %d: a mark without a block in the next line", i+1))
			}
			continue
		}
		b := block{line: i + 1, language: open[2]}
		if i > 0 {
			if err := b.mark(lines[i-1]); err != nil {
				wrong = append(wrong, fmt.Sprintf("line %d: %v", b.line, err))
			}
		}
		var code []string
		for i++; i < len(lines) && lines[i] != open[1]+"```"; i++ {
			code = append(code, strings.TrimPrefix(lines[i], open[1]))
		}
		if i == len(lines) {
			wrong = append(wrong, fmt.Sprintf("line %d: the block does not end", b.line))
		}
		b.code = strings.Join(code, "\n")
		switch isRunnable := isRunnable(b.language); {
		case isRunnable && !b.run && b.norun == "":
			wrong = append(wrong, fmt.Sprintf("line %d: the %s block says neither <!-- run --> nor <!-- norun: why -->", b.line, b.language))
		case !isRunnable && b.run:
			wrong = append(wrong, fmt.Sprintf("line %d: nothing can run a block of %q", b.line, b.language))
		}
		blocks = append(blocks, b)
	}
	return blocks, wrong
}

// mark reads the line before a block.
func (b *block) mark(line string) error {
	found := markPattern.FindStringSubmatch(line)
	if found == nil {
		return nil
	}
	rest := found[2]
	if found[1] == "norun:" {
		if b.norun = strings.TrimSpace(rest); b.norun == "" {
			return fmt.Errorf("norun without a reason")
		}
		return nil
	}
	b.run = true
	for rest != "" {
		attr := attrPattern.FindStringSubmatch(rest)
		if attr == nil {
			return fmt.Errorf("cannot read the mark from %q on", rest)
		}
		rest = rest[len(attr[0]):]
		value := attr[2] + attr[3]
		switch attr[1] {
		case "exit":
			var err error
			if b.exit, err = strconv.Atoi(value); err != nil {
				return fmt.Errorf("exit=%s is no number", value)
			}
		case "expect":
			if _, err := regexp.Compile(value); err != nil {
				return fmt.Errorf("expect: %w", err)
			}
			b.expect = append(b.expect, value)
		case "as":
			b.as = value
		case "on":
			b.on = value
		case "given":
			b.given = value
		default:
			return fmt.Errorf("no attribute %s", attr[1])
		}
	}
	return nil
}

var (
	hashComment = regexp.MustCompile(`(^|\s+)# .*$`)
	dashComment = regexp.MustCompile(`(^|\s+)-- .*$`)
)

// withoutComments is the code, which is the same in every language.
func (b block) withoutComments() string {
	comment := hashComment
	if b.language == "sql" {
		comment = dashComment
	}
	var kept []string
	for line := range strings.Lines(b.code) {
		line = strings.TrimSuffix(line, "\n")
		without := comment.ReplaceAllString(line, "")
		if strings.TrimSpace(without) != "" || strings.TrimSpace(line) == "" {
			kept = append(kept, without)
		}
	}
	return strings.Join(kept, "\n")
}

// asMarked is what a block says beside its code; the reason why it is not run is
// in the language of its page.
func (b block) asMarked() string {
	return fmt.Sprintf("%s run=%t exit=%d expect=%q as=%q on=%q given=%q", b.language, b.run, b.exit, b.expect, b.as, b.on, b.given)
}

// differences says where two versions of the runbook have not the same blocks.
func differences(one, other []block) (all []string) {
	ours := func(blocks []block) (kept []block) {
		for _, b := range blocks {
			if isRunnable(b.language) {
				kept = append(kept, b)
			}
		}
		return kept
	}
	one, other = ours(one), ours(other)
	for i := range max(len(one), len(other)) {
		switch {
		case i >= len(other):
			return append(all, fmt.Sprintf("the second lacks the block of line %d:\n%s", one[i].line, one[i].code))
		case i >= len(one):
			return append(all, fmt.Sprintf("the first lacks the block of line %d:\n%s", other[i].line, other[i].code))
		case one[i].withoutComments() != other[i].withoutComments():
			all = append(all, fmt.Sprintf("the blocks of lines %d and %d differ:\n%s\nand\n%s", one[i].line, other[i].line, one[i].code, other[i].code))
			if len(one) != len(other) {
				return append(all, fmt.Sprintf("one has %d blocks, the other %d: all that follow are apart", len(one), len(other)))
			}
		case one[i].asMarked() != other[i].asMarked():
			all = append(all, fmt.Sprintf("the marks of lines %d and %d differ: %s, and %s", one[i].line, other[i].line, one[i].asMarked(), other[i].asMarked()))
		}
	}
	return all
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blocksOf are the blocks of a version of the runbook; it has to be without fault.
func blocksOf(t *testing.T, path string) []block {
	t.Helper()
	blocks, wrong := readRunbook(readFile(t, path))
	for _, what := range wrong {
		t.Errorf("%s: %s", path, what)
	}
	if t.Failed() {
		t.FailNow()
	}
	return blocks
}

// What the reader of the runbook calls wrong, so that it is not the reader who is.
func TestRunbookReader(t *testing.T) {
	t.Parallel()
	const fence = "```"
	for text, want := range map[string]string{
		fence + "sql\nSELECT 1;\n" + fence:                                        "neither",
		fence + "bash\ntrue\n" + fence:                                            "neither",
		fence + "promql\nup\n" + fence:                                            "neither",
		"<!-- run -->\n\n" + fence + "sql\nSELECT 1;\n" + fence:                   "mark without a block",
		"<!-- norun: -->\n" + fence + "bash\ntrue\n" + fence:                      "neither",
		"<!-- run exit=three -->\n" + fence + "bash\ntrue\n" + fence:              "no number",
		"<!-- run expects=\"x\" -->\n" + fence + "bash\ntrue\n" + fence:           "no attribute",
		"<!-- run expect=\"(\" -->\n" + fence + "bash\ntrue\n" + fence:            "expect",
		"<!-- run and so on -->\n" + fence + "bash\ntrue\n" + fence:               "cannot read",
		"<!-- run -->\n" + fence + "yaml\na: b\n" + fence:                         "nothing can run",
		"<!-- run -->\n" + fence + "sql\nSELECT 1;":                               "does not end",
		"<!-- run exit=3 expect=\"a b\" as=x -->\n" + fence + "bash\nx\n" + fence: "",
		fence + "\nwhat a program prints\n" + fence:                               "",
	} {
		_, wrong := readRunbook(text)
		if got := strings.Join(wrong, "; "); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}

	one := []block{{language: "sql", run: true, code: "-- How many.\nSELECT count(*) -- all\nFROM t;"}}
	for _, c := range []struct {
		want  string
		other []block
	}{
		{"", []block{{language: "sql", run: true, code: "-- 有多少。\nSELECT count(*) -- 全部\nFROM t;"}, {language: "yaml", code: "a"}}},
		{"second lacks", nil},
		{"first lacks", append(slices.Clone(one), one...)},
		{"differ", []block{{language: "sql", run: true, code: "SELECT count(*)\nFROM other;"}}},
		{"marks", []block{{language: "sql", norun: "x", code: one[0].code}}},
		{"marks", []block{{language: "sql", run: true, expect: []string{"1"}, code: one[0].code}}},
	} {
		got := strings.Join(differences(one, c.other), "; ")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%v: %q, want %q", c.other, got, c.want)
		}
	}
}
