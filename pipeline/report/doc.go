// Package report is how the stages say what happens: as events while it happens, and as
// the sum of an account's run. The one table of what a fault costs is here, too.
package report
