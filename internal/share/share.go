// Package share says what part of the long tests a run has. Without the race detector
// `make test` has all of each. With it (-race -short) a part does: the goroutines and what they
// share are the same in every case. `make quick` (-short) has a smaller part, and no sweep.
package share

import (
	"fmt"
	"hash/fnv"
	"testing"
)

// Quick tells whether this is a run of `make quick`.
func Quick() bool { return testing.Short() && !raced }

// Sweep is called by a test that disturbs a run behind each of its effects, or lets each call
// fail. `make quick` has none of these.
func Sweep(t testing.TB) {
	t.Helper()
	if Quick() {
		t.Skip("make quick has no sweeps; make test has them")
	}
}

// Spares tells whether a run leaves out a case of a long test, always the same ones.
func Spares(what ...any) bool {
	h := fnv.New32a()
	_, _ = h.Write(fmt.Append(nil, what...)) // a hash takes all
	return testing.Short() && h.Sum32()%cases != 0
}

// Pace is how far it is to the next place of a run that a sweep disturbs.
func Pace() int {
	if testing.Short() {
		return pace
	}
	return 1
}
