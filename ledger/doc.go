// Package ledger holds the nouns of the permit chain, exact amounts, the events
// that change anything, and the pure fold of those events into State.
//
// Contract: State changes only through Apply, and Apply refuses an event that
// breaks an invariant (see Check). The package does no I/O, starts no goroutine
// and never asks for the time: every instant comes with the event that carries it.
// Whoever owns a State is its only writer; package store is that owner in a
// running process, replay and simulation are in theirs.
package ledger
