//go:build !linux

package watch

import "context"

// Machine tells w of what befalls the machine until the context ends. Elsewhere than on
// Linux that is not known.
func Machine(ctx context.Context, _ *Watcher, _ func(string)) { <-ctx.Done() }
