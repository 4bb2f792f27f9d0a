// Package bench measures a run against the ways it could be done otherwise, on
// the same data in the same cluster.
//
// Each repetition of each method gets a fresh clone of a filled, migrated and
// vacuumed database, and the methods take turns within a repetition, so that a
// machine that grows slower does so for all of them. Before anything is timed,
// each method must leave behind exactly the members that it should: a comparison
// of methods that do different work is worth nothing.
package bench
