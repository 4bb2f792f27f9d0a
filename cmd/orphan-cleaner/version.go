package main

import "fmt"

// version is set by the build.
var version = "dev"

// VersionCmd is `version`.
type VersionCmd struct{}

// Run prints the version alone on a line.
func (VersionCmd) Run(s *streams) error {
	_, err := fmt.Fprintln(s.out, version)
	return err
}
