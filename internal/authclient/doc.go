// Package authclient asks auth-service which users are missing. It is the only
// package that speaks gRPC to auth-service, and it never touches a database.
//
// # What is guaranteed
//
// A user id is returned by [Client.Missing] only if auth-service answered the
// call with status OK, the whole answer arrived and parsed, its in-band error
// field was not set, every user in it has an id in the canonical 36-character
// form, every one of those ids was asked for, and this id was not among them.
// Anything else makes the whole batch void: the error is a [*BatchError] and no
// id is returned. A batch is never half believed.
//
// What cannot be guaranteed here is that the answer is true. A server that
// answers with nobody, with half of the users or from another environment's
// database answers in perfect form. Those are what the breakers and the canary
// users of a run are for.
//
// # Calls
//
// Missing makes one call, and one more for each failure that may pass by
// itself: UNAVAILABLE, ABORTED, RESOURCE_EXHAUSTED (but not a reply over the
// message limit) and DEADLINE_EXCEEDED. The call only reads, so repeating it is
// safe. An answer that was received and found wrong is not asked for again: a
// server that contradicts its contract is no better informed a second later.
// Every attempt takes its turn under MaxQPS and Concurrency and is reported to the
// [Observer]. Concurrency is halved while the P99 of the last hundred attempts is
// over TargetP99 beyond what chance or one stall explains, and grows back by one
// for every twenty attempts that are not slow.
//
// gRPC itself makes one more attempt, unseen, when a server closes the
// connection and says that it did not begin to process the call.
//
// # Secrets
//
// The certificates and the token are read from files, never from the command
// line, and are read again as they change: certificates for each new
// connection, the token for each call. A file that cannot be read or does not
// parse leaves the last good one in use. The token is cut out of every error
// before the error leaves the package.
package authclient
