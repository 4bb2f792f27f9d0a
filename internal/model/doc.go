// Package model holds no code of the program, only a test of it: random
// histories of joins, leaves, deleted and revived users, an auth-service that lies
// or loses a few users a day, holds, pauses, approvals, passing time, runs that are
// killed, cut off or overtaken, played on a real PostgreSQL and a real gRPC server,
// and held at each step against a model that knows the guarantees and nothing of the
// queries that keep them.
//
// With CHECK_EVERY the model does not know which part of the users a run checks: it
// hears what the run reads, and knows that every user is checked in time while runs
// come on a beat.
//
// The model predicts for each run whose rows are deleted, what the ledger holds, how
// the run ends, which breaker refuses it, over this run and over a day, a week and a
// month of its own record, and each number that the run reports. It hears what
// auth-service responded to each call from the server itself. A run that was broken
// off cannot be predicted; of that it says which members may be gone, and that the
// row of each is in the audit and in the backup, once and whole.
//
// Two further targets are registered: likes, which are deleted, and posts, which are marked and emptied. In half of
// the histories users have rows in all three tables. Then the model holds each table, its audit, its backup and its figures
// to the same rules, each breaker about rows to each table by itself, and a user to leaving the ledger when no row of
// any table is left to be done; each run checks everybody. In the others nobody has such a row, and CHECK_EVERY is played.
// In two of three histories member_count is kept, by runs and restores or by a trigger, and is right at each step.
// Every history ends with a restore of all that runs deleted.
//
// Not in it: the breaker history, which begins at a thousand members; which canaries
// a run or a revert chooses; a response that grows too old; prune; and the schedule of serve.
//
// An ordinary test plays the same histories each time; any option of rapid's plays new
// ones. A failed history is shrunk to a shorter one and written to a file, which is
// named in the output; to play that file again, or many histories for long:
//
//	go test ./internal/model -run TestHistories -rapid.failfile=testdata/rapid/…
//	go test ./internal/model -run TestHistories -rapid.seed=N
//	go test ./internal/model -run TestHistories -rapid.checks=1000
//	make soak SOAK=1h
//
// A file that lies in testdata/rapid/TestHistories is played first in every
// later test until it passes. With ORPHAN_CLEANER_TEST_KEEP=1 the database of
// the failed history stays up to be looked into.
package model
