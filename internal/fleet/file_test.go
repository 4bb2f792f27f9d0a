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
	write(t, dir, "bad", "postgres://runner:s3/cret@a/messaging")
	const shards = "shards: [{name: a, url_file: a}]\n"
	for text, want := range map[string]string{
		"":                                      ":1:1: ",
		"shards: [":                             ":2:1: ",
		shards + "wave: [1]\n":                  ":2:1: field wave is no key",
		shards + "waves: [1, x]\n":              ":2:12: ",
		shards + "waves: [1, 0]\n":              ":2:1: wave 2 has 0 shards",
		shards + "max_qps: -1\n":                ":2:1: max_qps is -1",
		shards + "max_qps: .nan\n":              ":2:1: max_qps is NaN",
		shards + "limits: {dele: 1}\n":          `:2:1: "dele" is no limit`,
		shards + "limits: {delete-share: 5}\n":  ":2:1: delete-share is 5: it must be a share",
		shards + "job_timeout: 5\n":             ":2:14: ",
		shards + "workers: 1000\n":              ":2:1: workers is 1000",
		shards + "control_url: host=x\n":        ":2:1: DATABASE_URL is written in key words",
		"waves: [1]\n":                          ":1:1: there are 0 shards",
		"shards: {directory: nowhere}\n":        ":1:1: the directory cannot be read",
		"shards: [{name: a, url_file: none}]\n": ":1:1: shard a: its URL cannot be read",
		"shards: [{name: a, url_file: 'postgres://x:y@z/d'}]\n":          ":1:1: shard a: url_file is the name of a file",
		"shards: [{name: a, url_file: bad}]\n":                           ":1:1: shard a: DATABASE_URL has a character",
		"shards: [{name: ../a, url_file: a}]\n":                          `:1:1: "../a" is no name of a shard`,
		"shards: [{name: a, url_file: a}, {name: a, url_file: a}]\n":     "there are two shards a",
		"shards: [{name: a, url_file: a}, {name: b, url_file: again}]\n": "shards a and b are the same database",
		"control_url: postgres://h/d\ncontrol_url_file: a\n" + shards:    ":2:1: control_url is there, too",
		"shards: [{name: a, url: 'postgres://x:s3cret@z/d'}]\n":          "field url is no key",
	} {
		_, err := fleet.Load(write(t, dir, "fleet.yaml", text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "cret") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
