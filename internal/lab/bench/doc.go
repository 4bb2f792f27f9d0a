// Package bench measures whole runs of the built orphan-cleaner, from the start of the
// process to its exit, beside the floor: the least that such a run has to do, written
// apart (package floor) and a process of its own, too. So is auth-service.
//
// Each measurement gets a fresh clone of one filled database, and they take turns:
// run, floor, run of the worn database, and again, so that a machine that grows
// slower does so for all of them. What each leaves behind is compared with what it
// has to leave: a comparison of programs that do different work is worth nothing.
package bench
