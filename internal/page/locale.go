package page

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/message/catalog"

	"github.com/nova-social/orphan-cleaner/internal/safetext"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/status"
)

// locale is a language and the templates that speak it. The English texts of templates
// and verdicts are the keys of the others.
type locale struct {
	code      string // of BCP 47
	templates *template.Template

	printer   *message.Printer
	words     map[string]string // by the English ones; nil: they are said as they are
	today     string            // layouts of a time of day, and with its day
	otherDay  string
	day       string
	separator string // of phrases
}

// locales are those that the page speaks; the first is for everybody else.
func locales() ([]*locale, error) {
	english := &locale{code: "en", today: "15:04", otherDay: "2 Jan 15:04", day: "2 Jan", separator: "; "}
	mandarin := &locale{code: "zh", words: chinese(), today: "15:04", otherDay: "1月2日 15:04", day: "1月2日", separator: "；"}
	all := []*locale{english, mandarin}
	for _, l := range all {
		tag := language.Make(l.code)
		words := catalog.NewBuilder(catalog.Fallback(language.English))
		for key, text := range l.words {
			if err := words.SetString(tag, key, text); err != nil {
				return nil, fmt.Errorf("translating %q: %w", key, err)
			}
		}
		l.printer = message.NewPrinter(tag, message.Catalog(words))
		var err error
		l.templates, err = template.New("").Funcs(template.FuncMap{
			"t": l.say, "n": l.number, "verdict": l.verdict, "when": when, "line": line, "text": text, "lasted": lasted, "seconds": seconds, "ms": ms, "id": id,
		}).ParseFS(assets, "assets/*.tmpl")
		if err != nil {
			return nil, fmt.Errorf("reading the templates: %w", err)
		}
	}
	return all, nil
}

// choose takes the language that is asked for by name, or the browser's.
func choose(all []*locale, name, accepted string) *locale {
	tags := make([]language.Tag, len(all))
	for i, l := range all {
		if l.code == name {
			return l
		}
		tags[i] = language.Make(l.code)
	}
	_, index := language.MatchStrings(language.NewMatcher(tags), accepted)
	return all[index]
}

// say is fmt.Sprintf in this language. Numbers are grouped.
func (l *locale) say(format string, args ...any) string {
	said := make([]any, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case status.Clock:
			said[i] = arg.Format(l.today, l.otherDay)
		case status.Day:
			said[i] = arg.Format(l.day)
		case string:
			said[i] = safetext.Line(arg, maxLine)
			if word, is := l.words[arg]; is {
				said[i] = word
			}
		default:
			said[i] = arg
		}
	}
	return l.printer.Sprintf(format, said...)
}

func (l *locale) number(n any) string { return l.printer.Sprintf("%d", n) }

func (l *locale) verdict(v status.Verdict) string {
	var all strings.Builder
	for i, p := range v.Phrases {
		switch before := all.String(); {
		case i == 0, strings.HasSuffix(before, "？"):
		case strings.HasSuffix(before, "?"):
			all.WriteString(" ")
		default:
			all.WriteString(l.separator)
		}
		all.WriteString(l.say(p.Format, p.Args...))
	}
	return all.String()
}

// maxLine bounds a text of the database, in bytes: it may hold anything.
const maxLine = 600

func line(text string) string { return safetext.Line(text, maxLine) }

func text(text *string) string { return line(status.TextOf(text)) }

// when takes a time or a pointer to one.
func when(at any) string {
	switch at := at.(type) {
	case time.Time:
		return at.UTC().Format(time.DateTime)
	case *time.Time:
		if at != nil {
			return at.UTC().Format(time.DateTime)
		}
	}
	return ""
}

// id takes the number of a run, or a pointer to one. It is a name: nothing is grouped.
func id(run any) string {
	if run, is := run.(*int64); is && run != nil {
		return strconv.FormatInt(*run, 10)
	}
	return fmt.Sprint(run)
}

// ms takes milliseconds, or a pointer to them.
func ms(of any) string {
	if of, is := of.(*float64); is && of != nil {
		return fmt.Sprintf("%.0f ms", *of)
	}
	return fmt.Sprintf("%.0f ms", of)
}

func lasted(from, to time.Time) string { return seconds(to.Sub(from).Seconds()) }

func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d < time.Minute {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return settings.Duration(d.Round(time.Second)).String()
}
