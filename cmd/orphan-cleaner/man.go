package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// printManual writes the manual page orphan-cleaner(1), in the man macros of roff.
func printManual(w io.Writer, model *kong.Application) error {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH ORPHAN-CLEANER 1 \"\" %q \"User Commands\"\n", "orphan-cleaner "+version)
	summary, _, _ := strings.Cut(model.Help, ":")
	fmt.Fprintf(&b, ".SH NAME\norphan-cleaner \\- %s\n", roff(strings.ToLower(summary[:1])+summary[1:]))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B orphan-cleaner\n.I COMMAND\n[FLAGS]\n.SH DESCRIPTION\n%s\n", roff(model.Help))
	b.WriteString(".SH COMMANDS\n")
	for _, leaf := range model.Leaves(true) {
		words := strings.TrimPrefix(leaf.Summary(), "orphan-cleaner ")
		fmt.Fprintf(&b, ".SS %s\n%s\n", roff(strings.TrimSuffix(words, " [flags]")), roff(leaf.Help))
		for _, argument := range leaf.Positional {
			manualEntry(&b, argument.Name, argument.Help)
		}
		for _, flag := range leaf.Flags {
			manualEntry(&b, flag.String(), kong.DefaultHelpValueFormatter(flag.Value))
		}
		command := strings.TrimPrefix(leaf.FullPath(), "orphan-cleaner ")
		fmt.Fprintf(&b, ".PP\nExample:\n.PP\n.nf\n.RS\n%s\n.RE\n.fi\n", roff(strings.ReplaceAll(exampleOf(command), "\n  ", "\n")))
	}
	b.WriteString(".SH FILES\n")
	for _, flag := range model.Flags {
		if flag.Name == "config" {
			manualEntry(&b, flag.String(), kong.DefaultHelpValueFormatter(flag.Value))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func manualEntry(b *strings.Builder, term, text string) {
	fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(term), roff(text))
}

// roff escapes what the typesetter would act upon.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`).Replace(text)
	return strings.ReplaceAll(text, "\n.", "\n\\&.")
}
