package main

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
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
	for _, c := range completions(kctx.Model.Node, cmd.Words) {
		line := c.word
		switch {
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

type completion struct{ word, help string }

// completions are the commands, flags or values that begin with the last word; none
// where it is a value that the program does not know, such as a file.
func completions(node *kong.Node, words []string) (found []completion) {
	before, last := words[:len(words)-1], words[len(words)-1]
	add := func(word, help string) {
		if strings.HasPrefix(word, last) {
			found = append(found, completion{word, help})
		}
	}
	var value *kong.Flag // whose value the last word is
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
			node = node.Children[i]
		}
	}
	switch {
	case value != nil:
		if value.Enum != "" {
			for _, one := range value.EnumSlice() {
				add(one, "")
			}
		}
	case strings.HasPrefix(last, "-"):
		for _, flags := range node.AllFlags(true) {
			for _, flag := range flags {
				add("--"+flag.Name, flag.Help)
			}
		}
	default:
		for _, child := range node.Children {
			add(child.Name, child.Help)
		}
	}
	return found
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
