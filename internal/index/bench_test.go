package index

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

const benchMails = 2000

// corpus writes mails of 1 to 10 KB, in words as rare as a language's, into a
// maildir, and gives the changes that index them.
func (w *world) corpus(n int) []mail.Change {
	w.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	words := rand.NewZipf(r, 1.1, 3, 60000)
	w.deliver("box/tmp/x", "x") // makes the maildir
	changes := make([]mail.Change, n)
	for i := range changes {
		var b bytes.Buffer
		id := fmt.Sprintf("m%d@example.org", i)
		fmt.Fprintf(&b, "From: Person %d <p%d@example.org>\nTo: list%d@example.org\nSubject: w%x about w%x\nMessage-ID: <%s>\nDate: %s\n",
			r.IntN(300), r.IntN(300), r.IntN(9), words.Uint64(), words.Uint64(), id, time.Unix(1.4e9+int64(i)*999, 0).UTC().Format(time.RFC1123Z))
		if i > 10 && r.IntN(2) == 0 {
			fmt.Fprintf(&b, "In-Reply-To: <m%d@example.org>\n", r.IntN(i))
		}
		b.WriteByte('\n')
		for size := 1000 + r.IntN(4000) + r.IntN(4000); b.Len() < size; {
			fmt.Fprintf(&b, "w%x ", words.Uint64())
			if r.IntN(10) == 0 {
				b.WriteByte('\n')
			}
		}
		name := fmt.Sprintf("box/new/k%d", i)
		c := mail.Change{Op: mail.OpAdd, New: usual(), Add: []string{"account", "list"}}
		if i%2 == 0 {
			name, c.Remove = fmt.Sprintf("box/cur/k%d:2,S", i), []string{"unread"}
		}
		c.Path = filepath.Join(w.root, name)
		w.write(c.Path, b.String())
		changes[i] = c
	}
	return changes
}

// cpu is what this process used, and all that it waited for.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}

// measure runs f on a fresh world of b.Loop; f does n things.
func measure(b *testing.B, n int, prepare func() (w *world, f func())) {
	b.Helper()
	var used time.Duration
	for b.Loop() {
		b.StopTimer()
		w, f := prepare()
		b.StartTimer()
		before := cpu(b)
		f()
		used += cpu(b) - before
		b.StopTimer()
		w.quiet()
		b.StartTimer()
	}
	b.ReportMetric(float64(n*b.N)/used.Seconds(), "mails/cpu-s")
}

func BenchmarkAdd(b *testing.B) {
	for _, size := range []int{50, 200, 500} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			measure(b, benchMails, func() (*world, func()) {
				w := newWorld(b)
				changes := w.corpus(benchMails)
				return w, func() {
					for batch := range slices.Chunk(changes, size) {
						w.apply(batch...)
					}
				}
			})
		})
	}
	b.Run("notmuch-new", func(b *testing.B) {
		measure(b, benchMails, func() (*world, func()) {
			w := newWorld(b)
			w.corpus(benchMails)
			return w, func() {
				cmd := exec.Command("notmuch", "new", "--quiet")
				cmd.Env = append(cleanEnv(), "NOTMUCH_CONFIG="+w.config, "HOME="+w.dir)
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
			}
		})
	})
}

func BenchmarkFlag(b *testing.B) {
	const n = 1000
	// known gives a world that knows all mails and the changes that make them read.
	known := func() (*world, []mail.Change) {
		w := newWorld(b)
		changes := w.corpus(2 * n)
		w.apply(changes...)
		var flags []mail.Change
		for i := 1; i < len(changes); i += 2 {
			flags = append(flags, mail.Change{Op: mail.OpFlag, ID: fmt.Sprintf("m%d@example.org", i), Path: changes[i].Path, Set: "S", Remove: []string{"unread"}})
		}
		return w, flags
	}
	b.Run("library", func(b *testing.B) {
		measure(b, n, func() (*world, func()) {
			w, flags := known()
			return w, func() {
				for batch := range slices.Chunk(flags, 200) {
					w.apply(batch...)
				}
			}
		})
	})
	b.Run("read-anew", func(b *testing.B) { // what the slow way costs
		measure(b, n, func() (*world, func()) {
			w, flags := known()
			for i := range flags {
				flags[i].Set = "ST"
			}
			return w, func() {
				for batch := range slices.Chunk(flags, 200) {
					w.apply(batch...)
				}
			}
		})
	})
	b.Run("notmuch-new", func(b *testing.B) { // mbsync renames, notmuch looks
		measure(b, n, func() (*world, func()) {
			w, flags := known()
			for _, c := range flags {
				to := strings.Replace(c.Path, "/new/", "/cur/", 1) + ":2,S"
				if err := os.Rename(c.Path, to); err != nil {
					b.Fatal(err)
				}
			}
			return w, func() { w.notmuch("new", "--quiet") }
		})
	})
}
