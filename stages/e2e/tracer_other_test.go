//go:build !(linux && amd64)

package e2e

// A tracer is written for one kernel and one processor; the tests that need it say so and are skipped.
const canTrace = false

func traceMain(string, []string) int { return 1 }
