// Package failpoint stops a run at a named step, so that tests can kill it there.
//
// In the release build [After] returns the error it was given and is inlined
// away. Built with the tag failpoint, the program reads
//
//	ORPHAN_CLEANER_TEST_FAILPOINT=name[:n]=kill|stop|error
//
// and acts when it has passed the point of that name for the n-th time (1 by
// default) without an error: kill and stop send itself SIGKILL and SIGSTOP, and
// error makes the step fail though its work is done. The program says on stderr
// where it is before it does so.
package failpoint
