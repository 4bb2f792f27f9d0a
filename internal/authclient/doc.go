// Package authclient asks auth-service by gRPC which users are missing, as package
// source says what that means. It is the only package that speaks gRPC to auth-service,
// and it never touches a database.
//
// A response is complete and valid only if the call ended with status OK and without
// the details of an error, the whole response arrived and parsed, its in-band error field
// is not set, it has no field beside the users that this contract does not know (a new
// field may be the token of the next page), and every user in it has an id in the
// canonical 36-character form that was asked for. A response over the message limit is
// not asked for again.
//
// gRPC itself makes one more attempt, unseen, when a server closes the connection and
// says that it did not begin to process the call.
package authclient
