//go:build race

package share

const (
	raced = true
	cases = 12 // one in so many
	pace  = 7  // odd, so that what every other place has is among them
)
