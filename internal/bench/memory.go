package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"

	"github.com/nova-social/orphan-cleaner/internal/cleaner"
)

// apart has the program itself make a run, in a process of its own, and reads
// how much memory that had at most.
func (b *bench) apart(ctx context.Context, d *dataset, r *MethodResult) (err error) {
	name, err := b.clone(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.drop(context.WithoutCancel(ctx), name)) }()
	cmd := exec.CommandContext(ctx, b.Program, "run", "--json", "--log-level=error",
		"--max-new-missing-share="+strconv.FormatFloat(d.limits.NewMissingShare, 'f', -1, 64),
		"--max-delete-share="+strconv.FormatFloat(d.limits.DeleteShare, 'f', -1, 64),
		"--max-delete-members="+strconv.FormatInt(d.limits.DeleteMembers, 10))
	cmd.Env = slices.Concat(b.ProgramEnv, []string{"DATABASE_URL=" + b.cluster.URL(name), "AUTH_SERVICE_URL=" + b.auth.URL()})
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	peak := watchMemory(cmd.Process.Pid)
	err = cmd.Wait()
	r.PeakMemory = peak(cmd.ProcessState)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	var result cleaner.Result
	if err := json.Unmarshal(stdout.Bytes(), &result); err != nil {
		return fmt.Errorf("reading its result: %w", err)
	}
	if result.State != "succeeded" || result.MembersDeleted != d.doomed {
		return fmt.Errorf("%w: it ended %s with %d members deleted, not %d", ErrNotTheSame, result.State, result.MembersDeleted, d.doomed)
	}
	return nil
}
