//go:build race

package share

const (
	raced = true
	cases = 8 // one in so many
	pace  = 5 // odd, so that what every other place has is among them
)
