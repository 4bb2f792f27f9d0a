package main

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/nova-social/orphan-cleaner/internal/settings"
)

//go:embed completion
var completionScripts embed.FS

// CompletionCmd is `completion`.
type CompletionCmd struct {
	Shell string   `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
	Words []string `arg:"" optional:"" help:"What the script asks: the words so far, the last one unfinished. Prints what it may become."`
}

// Run prints the script, or what the last word may become, as the shell reads it.
func (cmd *CompletionCmd) Run(kctx *kong.Context, s *streams) error {
	if len(cmd.Words) == 0 {
		script, err := completionScripts.ReadFile("completion/" + cmd.Shell)
		if err != nil {
			return fmt.Errorf("reading the script: %w", err)
		}
		_, err = s.out.Write(script)
		return err
	}
	words, cut := cmd.Words, ""
	if cmd.Shell == "bash" {
		words, cut = joined(words)
	}
	for _, c := range completions(kctx.Model.Node, words) {
		line := c.word
		switch {
		case cmd.Shell == "bash":
			line = strings.TrimPrefix(line, cut)
		case cmd.Shell == "zsh" && c.help != "":
			line = strings.ReplaceAll(c.word, ":", `\:`) + ":" + c.help
		case cmd.Shell == "fish" && c.help != "":
			line += "\t" + c.help
		}
		if _, err := fmt.Fprintln(s.out, line); err != nil {
			return err
		}
	}
	return nil
}

// joined are the words of bash, which parts them at each =; of what it replaces is left out what
// stands before the last.
func joined(words []string) (whole []string, cut string) {
	for i, word := range words {
		if len(whole) == 0 || word != "=" && words[i-1] != "=" {
			whole, cut = append(whole, word), ""
			continue
		}
		whole[len(whole)-1] += word
		cut = strings.TrimSuffix(whole[len(whole)-1], strings.TrimPrefix(word, "="))
	}
	return whole, cut
}

type completion struct{ word, help string }

// completions are the commands, flags or values that begin with the last word; none
// where it is a value that the program does not know, such as a file.
func completions(node *kong.Node, words []string) (found []completion) {
	before, last := words[:len(words)-1], words[len(words)-1]
	if len(before) > 0 && before[0] == "help" && !strings.HasPrefix(last, "-") {
		return completions(node, words[1:])
	}
	add := func(word, help string) {
		if strings.HasPrefix(word, last) {
			found = append(found, completion{word, help})
		}
	}
	var value *kong.Flag // whose value the last word is
	arguments := 0
	for _, word := range before {
		if value != nil { // the value of the flag before it
			value = nil
			continue
		}
		if name, is := strings.CutPrefix(word, "--"); is {
			if flag := flagOf(node, name); flag != nil && !flag.IsBool() {
				value = flag
			}
			continue
		}
		if i := slices.IndexFunc(node.Children, func(child *kong.Node) bool { return child.Name == word }); i >= 0 {
			node, arguments = node.Children[i], 0
		} else {
			arguments++
		}
	}
	name, _, assigned := strings.Cut(strings.TrimPrefix(last, "--"), "=")
	switch {
	case value != nil:
		for _, one := range knownValues(value.Value) {
			add(one, "")
		}
	case strings.HasPrefix(last, "--") && assigned:
		if flag := flagOf(node, name); flag != nil {
			for _, one := range knownValues(flag.Value) {
				add("--"+name+"="+one, "")
			}
		}
	case strings.HasPrefix(last, "-"):
		if node.DefaultCmd != nil {
			node = node.DefaultCmd
		}
		for _, flags := range node.AllFlags(true) {
			for _, flag := range flags {
				add("--"+flag.Name, flag.Help)
			}
		}
	default:
		for _, child := range node.Children {
			add(child.Name, child.Help)
		}
		if n := len(node.Positional); n > 0 && (arguments < n || node.Positional[n-1].IsCumulative()) {
			for _, one := range knownValues(node.Positional[min(arguments, n-1)]) {
				add(one, "")
			}
		}
	}
	return found
}

// knownValues are those of a flag or an argument that only so many words can be.
func knownValues(of *kong.Value) (known []string) {
	switch of.Tag.Get("values") {
	case "limits":
		return settings.BoundNames()
	case "limits=":
		for _, name := range settings.BoundNames() {
			known = append(known, name+"=")
		}
	case "effects":
		for _, effect := range effects() {
			for _, choice := range effect.choices {
				known = append(known, effect.name+"="+choice)
			}
		}
	default:
		if of.Enum != "" {
			return of.EnumSlice()
		}
	}
	return known
}

func flagOf(node *kong.Node, name string) *kong.Flag {
	for _, flags := range node.AllFlags(true) {
		for _, flag := range flags {
			if flag.Name == name || slices.Contains(flag.Aliases, name) {
				return flag
			}
		}
	}
	return nil
}
