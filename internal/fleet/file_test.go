package fleet_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/fleet"
)

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "shards", "..data"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "shards/b", "postgres://runner:s3cret@b/messaging\n")
	write(t, dir, "shards/a", "postgres://runner:s3cret@a/messaging\n")
	write(t, dir, "control", "postgres://fleet:s3cret@c/control\n")
	f, err := fleet.Load(write(t, dir, "fleet.yaml", `
control_url_file: control
shards: {directory: shards}
waves: [1, 3]
limits: {delete-rows: 500000, shard-outlier: 20}
max_qps: 40
job_timeout: 20m
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Shards) != 2 || f.Shards[0] != (fleet.Shard{Name: "a", URL: "postgres://runner:s3cret@a/messaging"}) || f.ControlURL != "postgres://fleet:s3cret@c/control" ||
		len(f.Waves) != 2 || f.Limits["delete-rows"] != 500_000 || f.Limits["delete-share"] != 0.05 || f.Outlier != 20 || f.MaxQPS != 40 || f.JobTimeout != 20*time.Minute || f.Workers != 4 {
		t.Errorf("%+v", f)
	}
	f, err = fleet.Load(write(t, dir, "list.yaml", "shards:\n- {name: one, url_file: shards/a}\n- {name: two, url_file: shards/b}\n"))
	if err != nil || f.Shards[1].Name != "two" || len(f.Waves) != 2 {
		t.Errorf("%+v %v", f, err)
	}
}

// Each error names its line and column, and shows no password.
func TestLoadWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a", "postgres://runner:s3cret@a/messaging")
	write(t, dir, "again", "postgres://other@a:5432/messaging")
	write(t, dir, "nothing", "\n")
	write(t, dir, "bad", "postgres://runner:s3/cret@a/messaging")
	const shards = "shards: [{name: a, url_file: a}]\n"
	for text, want := range map[string]string{
		"":                                                  ":1:1: the file is empty",
		"# nothing\n":                                       ":1:1: the file is empty",
		"hello\n":                                           ":1:1: this is not a fleet file",
		"shards: a\n":                                       ":1:9: this is not {directory: DIR}, or a list of {name, url_file}",
		"shards: [a]\n":                                     ":1:10: this is not a shard, such as {name: eu-1, url_file: eu-1}",
		shards + "waves: [[a], [z]]\n":                      ":2:9: this is not a whole number",
		shards + "waves: 1\n":                               ":2:8: this is not a list of whole numbers, such as [1, 10]",
		shards + "limits: [x]\n":                            ":2:9: this is not a map of limits, such as {delete-rows: 500000}",
		shards + "limits: {delete-share: 5%}\n":             ":2:24: this is not a number",
		shards + "check_users_once: maybe\n":                ":2:19: this is not true or false",
		shards + "workers: 0\n":                             ":2:1: workers is 0",
		shards + "job_timeout: 1ms\n":                       ":2:1: job_timeout is 1ms: it must be 10s to 7d",
		shards + "job_timeout: 999999h\n":                   ":2:1: job_timeout is",
		shards + "control_url: ''\n":                        ":2:1: control_url is empty: remove it",
		shards + "control_url_file: nothing\n":              ":2:1: nothing is empty",
		shards + "limits: {shard-outlier: 0.5}\n":           ":2:1: shard-outlier is 0.5: it must be 1 or more, or 0, which switches the breaker off",
		shards + "'postgres://x:s3cret@z/d': 1\n":           ":2:1: field [not shown] is no key",
		shards + "limits: {'postgres://x:s3cret@z/d': 1}\n": ":2:1: ",
		shards + "workers: 'postgres://x:s3cret@z/d'\n":     ":2:10: this is not a whole number",
		"shards: [{name: 'postgres://x:s3cret@z/d', url_file: a}]\n": ":1:1: ",
		"shards: [{name: a}]\n":                    ":1:1: shard a: url_file is missing",
		"shards: [{name: a, url_file: nothing}]\n": ":1:1: shard a: nothing is empty",
		"shards: [":                                                      ":2:1: ",
		shards + "wave: [1]\n":                                           ":2:1: field wave is no key",
		shards + "waves: [1, x]\n":                                       ":2:12: this is not a whole number",
		shards + "waves: [1, 0]\n":                                       ":2:1: wave 2 has 0 shards",
		shards + "max_qps: -1\n":                                         ":2:1: max_qps is -1",
		shards + "max_qps: .nan\n":                                       ":2:1: max_qps is NaN",
		shards + "control_url_file:\n":                                   ":2:1: control_url_file is empty: remove it, or write what belongs there",
		shards + "control_url: ~\n":                                      ":2:1: control_url is empty",
		shards + "waves: null\n":                                         ":2:1: waves is empty",
		shards + "max_qps: 0.01\njob_timeout: 5m\n":                      ":2:1: max_qps is 0.01: in a job_timeout of 5m that is less than a call for each of 4 workers",
		shards + "max_qps: 1e-300\njob_timeout: 7d\n":                    ":2:1: max_qps is 1e-300: it must be 0.01",
		"shards: [{name: a, url_file: /dev/null}]\n":                     ":1:1: shard a: /dev/null is empty",
		shards + "limits: {dele: 1}\n":                                   `:2:1: "dele" is no limit`,
		shards + "limits: {delete-share: 5}\n":                           ":2:1: delete-share is 5: it must be a share",
		shards + "job_timeout: 5\n":                                      ":2:14: ",
		shards + "workers: 1000\n":                                       ":2:1: workers is 1000",
		shards + "control_url: host=x\n":                                 ":2:1: the URL is written in key words",
		"waves: [1]\n":                                                   ":1:1: there are 0 shards",
		"shards: {directory: nowhere}\n":                                 ":1:1: the directory cannot be read",
		"shards: [{name: a, url_file: none}]\n":                          ":1:1: shard a: its URL cannot be read",
		"shards: [{name: a, url_file: 'postgres://x:y@z/d'}]\n":          ":1:1: shard a: url_file is the name of a file",
		"shards: [{name: a, url_file: bad}]\n":                           ":1:1: shard a: the URL in bad has a character",
		"shards: [{name: ../a, url_file: a}]\n":                          `:1:1: "../a" is no name of a shard`,
		"shards: [{name: a, url_file: a}, {name: a, url_file: a}]\n":     "there are two shards a",
		"shards: [{name: a, url_file: a}, {name: b, url_file: again}]\n": "shards a and b are the same database",
		"control_url: postgres://h/d\ncontrol_url_file: a\n" + shards:    ":2:1: control_url is there, too",
		"shards: [{name: a, url: 'postgres://x:s3cret@z/d'}]\n":          "field url is no key",
	} {
		_, err := fleet.Load(write(t, dir, "fleet.yaml", text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "cret") || strings.ContainsAny(err.Error(), "\n!") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
