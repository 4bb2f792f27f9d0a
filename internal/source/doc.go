// Package source is what checks users, whatever it speaks: the contract between a
// run and its source of truth, auth-service, and what all kinds of it share. Package
// authclient asks by gRPC, httpsource by HTTP and sqlsource by SQL. This package
// imports none of the three.
//
// # The contract
//
// A source answers one question, [Client.Missing]: which of these users are missing?
// The answer is complete and valid, or it is unknown. Complete means that the source
// has looked for every user that was asked for. Valid means that the whole answer
// arrived, that nothing in it contradicts the form which was agreed on, and that it
// names nobody who was not asked for. Whatever else happens is a [*BatchError]: it
// comes without ids, and all users of the batch are unknown in this run. No user is
// ever missing because of a doubt.
//
// What cannot be guaranteed here is that an answer is true. A source that returns
// nobody, half of the users or those of another environment does so in perfect form.
// Breakers and canaries are against those.
//
// # Calls
//
// A kind of source is one function, an [Attempt]: it asks once. [Client] does the rest
// for all of them. It repeats an attempt whose failure may pass by itself, with backoff
// and jitter: no connection, no answer in time, and what the reasons unavailable,
// aborted and resource_exhausted stand for. Asking only reads, so repeating it is safe.
// An invalid answer is not asked for again: a source that contradicts its contract is no
// better informed a second later. MaxQPS and Concurrency bound all attempts, and the
// [Observer] is told about each. Concurrency is halved while the P99 of the last
// hundred attempts is over TargetP99 beyond what chance or one stall explains, and
// grows by one for every twenty attempts that are not slow.
//
// # Secrets and untrusted text
//
// Certificates and the token are read from files, never from the command line, and are
// read again as they change: certificates for each new connection, the token for each
// call. A file that cannot be read or does not parse leaves the last good one in use.
// The token, and the user info of URLs, is removed from every text of the source, and
// what is left is bounded and escaped; see package safetext.
package source
