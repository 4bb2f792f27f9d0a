// Package authclient asks auth-service which users are missing. It is the only
// package that speaks gRPC to auth-service, and it never touches a database.
//
// # What is guaranteed
//
// A user id is returned by [Client.Missing] only if the call ended with status OK,
// the whole response arrived and parsed, and the response adds up: its in-band error
// field is not set, it has no field beside the users that this contract does not know
// (a new field may be the token of the next page), every user in it has an id in the
// canonical 36-character form, every one of those ids was asked for, and this id is
// not among them. Any other response is invalid: the error is a [*BatchError], no id
// is returned, and all users of the batch are unknown.
//
// What cannot be guaranteed here is that a response is true. A server that returns
// nobody, half of the users or those of another environment's database does so in
// perfect form. Breakers and canaries are against those.
//
// # Calls
//
// Missing makes one call, and one more for each failure that may pass by itself:
// UNAVAILABLE, ABORTED, RESOURCE_EXHAUSTED (but not a response over the message limit)
// and DEADLINE_EXCEEDED. The call only reads, so repeating it is safe. An invalid
// response is not asked for again: a server that contradicts its contract is no better
// informed a second later. MaxQPS and Concurrency bound all attempts, and the
// [Observer] is told about each. Concurrency is halved while the P99 of the last
// hundred attempts is over TargetP99 beyond what chance or one stall explains, and
// grows by one for every twenty attempts that are not slow.
//
// gRPC itself makes one more attempt, unseen, when a server closes the connection and
// says that it did not begin to process the call.
//
// # Secrets and untrusted text
//
// The certificates and the token are read from files, never from the command line,
// and are read again as they change: certificates for each new connection, the token
// for each call. A file that cannot be read or does not parse leaves the last good one
// in use. The token, and the user info of URLs, is removed from every text of the
// server, and what is left is bounded and escaped; see package safetext.
package authclient
