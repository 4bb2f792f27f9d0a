package faults

import (
	"os/exec"
	"strings"
	"testing"
)

// The release build has no failpoint: neither the code nor the variable that
// would switch one on. The build for the matrix has both, or this would prove
// nothing.
func TestReleaseHasNoFailpoint(t *testing.T) {
	t.Parallel()
	for _, build := range []struct {
		program string
		has     bool
	}{{build(t), false}, {build(t, "-tags=failpoint"), true}} {
		symbols, err := exec.Command("go", "tool", "nm", build.program).Output()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(symbols), "internal/run.(*Runner).Run") {
			t.Fatal("the symbols of the program are not told")
		}
		if has := strings.Contains(string(symbols), "internal/failpoint"); has != build.has {
			t.Errorf("symbols of internal/failpoint: %v, want %v", has, build.has)
		}
		named := exec.Command("grep", "-q", "ORPHAN_CLEANER_TEST_FAILPOINT", build.program).Run() == nil
		if named != build.has {
			t.Errorf("the program names ORPHAN_CLEANER_TEST_FAILPOINT: %v, want %v", named, build.has)
		}
	}
}
