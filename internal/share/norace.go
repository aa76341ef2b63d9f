//go:build !race

package share

const (
	raced = false
	cases = 20 // one in so many
	pace  = 20
)
