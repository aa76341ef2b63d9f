//go:build race

package pipeline

// underRace: the race detector is at work, under which a killed run takes ten times
// as long. It has seen all there is after a part of them.
const underRace = true
