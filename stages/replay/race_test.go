//go:build race

package replay

// raced tells that the race detector slows this test binary down, ten times and more.
const raced = true
