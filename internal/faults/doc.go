// Package faults holds the fault matrix: a test for each fault that a run may
// meet, which injects the fault for real and reads from the database what became
// of it. It has no code outside its tests; `make faults` runs them and prints
// the matrix.
//
// Every row asserts I1 and I3, and of the others those that its fault puts at
// risk:
//
//   - I1: only users left out by a complete, valid answer of this run are ever deleted
//   - I2: doubt deletes nothing, leaves the ledger alone, and shows
//   - I3: a row is gone if and only if it has one audit row and one backup row
//   - I4: running again converges; nothing is done or counted twice
//   - I5: locks, transactions, memory and time stay bounded
//   - I6: restore gives back the identical rows and never overwrites newer ones
//   - I7: every refusal and every failure has a metric, and a message that names the hint
package faults
