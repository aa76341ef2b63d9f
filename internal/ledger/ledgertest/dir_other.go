//go:build !linux

package ledgertest

import "testing"

// Dir is a directory that ends with the test.
func Dir(t testing.TB) string { t.Helper(); return t.TempDir() }
