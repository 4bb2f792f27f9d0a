package main

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The shipped program links no throw-away server, fake, benchmark, demo or test.
func TestShipsNoLaboratory(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	if !strings.Contains(string(out), "/internal/speed\n") {
		t.Fatalf("go list does not see what this program is made of:\n%s", out)
	}
	const ours = `(?m)^github\.com/nova-social/orphan-cleaner/.*(pgtemp|testdb|authfake|bench|demo|/lab)\b.*$`
	for _, found := range regexp.MustCompile(ours).FindAllString(string(out), -1) {
		t.Errorf("the program links %s", found)
	}
	if regexp.MustCompile(`(?m)^testing$`).Match(out) {
		t.Error("the program links package testing")
	}
}
