// Package model holds no code of the program, only a test of it: random
// histories of joins, leaves, deleted and revived users, a lying auth-service,
// holds, pauses, approvals, passing time, runs that are killed, cut off or
// overtaken, played on a real PostgreSQL and a real gRPC server, and held at
// each step against a model that knows the guarantees and nothing of the
// queries that keep them.
//
// The model does not know whose turn it is where runs ask about a share: it hears
// whom the run reads, and knows who must be among them, so that everybody is asked
// about in time even if the next run is missed.
//
// The model predicts for each run who goes, what the ledger holds, how the run
// ends and each number that it reports. It hears what auth-service answered to
// each call from the server itself. A run that was broken off cannot be
// predicted; of that it says which members may be gone, and that the row of
// each is in the audit and in the backup, once and whole.
//
// Not in it: the breakers delete-share and history, which begin at a thousand
// members; the second answer growing too old; prune; and the schedule of serve.
//
// A failed history is shrunk to a shorter one and written to a file, which is
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
