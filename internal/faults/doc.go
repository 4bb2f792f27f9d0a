// Package faults holds the fault matrix: a test for each fault that a run may
// meet, which injects the fault for real and reads from the database what became
// of it. It has no code outside its tests; `make faults` runs them and prints
// the matrix.
//
// Every row asserts I1 and I3, and of the others those that its fault puts at
// risk:
//
//   - I1: only users left out by two complete, valid responses of this run are ever
//     deleted, and nobody whose row changed since
//   - I2: doubt deletes nothing, leaves the ledger alone, and shows
//   - I3: a row is gone if and only if it has one audit row and one backup row
//   - I4: running again converges; nothing is done or counted twice
//   - I5: locks, transactions, memory and time stay bounded
//   - I6: restore gives back the identical rows and never overwrites newer ones
//   - I7: every refusal and every failure has a metric, and a message that names the hint
//   - I8: what no single run may do, no series of runs may do
//   - I9: a login with the runner's role can break none of I1, I3, I8 by any SQL
//   - I10: the application's own statements work as before, and wait for us half a second at most
package faults
