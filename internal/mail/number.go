package mail

import "strconv"

// Number says how many of something there are, with the word for one or for many.
func Number(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
