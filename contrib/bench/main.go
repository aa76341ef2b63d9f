//go:build linux

// Command bench measures notmuch-imap against mbsync and `notmuch new`, in the
// same run, on the same machine, from the same Dovecot. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// bench is one run of the program.
type bench struct {
	out       io.Writer
	dir       string // everything is written below it
	binary    string // notmuch-imap; "" measures the peer alone
	seed      uint64
	sizes     []int // of the first sync, in mails
	mailboxes int
	idle      int // mails of part i
	oneWay    time.Duration
	large     int // MB
	far       int // mails of part l
	changed   int // mails in the mailbox of part d
	runs      int
	watch     int           // mails of part w
	rest      time.Duration // that it rests
}

// parts are what can be measured, in the order of the output.
func (b *bench) parts() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"a": b.firstSync, "c": b.largeMail, "d": b.changes, "e": b.fsync, "l": b.slowLines, "w": b.watching,
		"b": b.idleSync(fmt.Sprintf("(b) idle sync of %d mailboxes, %v each way", b.mailboxes, b.oneWay), 3, imaptest.Corpus, b.oneWay),
		"i": b.idleSync(fmt.Sprintf("(i) idle sync of %d mails in %d mailboxes", b.idle/b.mailboxes*b.mailboxes, b.mailboxes), b.idle/b.mailboxes, notes, 0),
		"f": b.outgoing(fmt.Sprintf("(f) %d tags changed here and %d new mails here, among %d", flagChanges, newMails, b.changed), b.changed, 0,
			b.tagAndPut, func(run int) (int, int) { return b.changed + (run+1)*newMails, b.changed - (run+1)*flagChanges }),
		"g": b.outgoing(fmt.Sprintf("(g) %d files renamed here as Mutt does, among %d", flagChanges, b.changed), b.changed, 0,
			func(c *client, _ int) error { return c.rename(flagChanges) }, func(run int) (int, int) { return b.changed, b.changed - (run+1)*flagChanges }),
		"h": inTurn(b.outgoing(fmt.Sprintf("(h) %d mails to be uploaded, %v each way", uploads, b.oneWay), 10, b.oneWay,
			func(c *client, run int) error { return c.put(b.seed+3_000_000+uint64(run), uploads) }, func(run int) (int, int) { return 10 + (run+1)*uploads, 10 }),
			b.outgoing(fmt.Sprintf("(h) %d mails to be uploaded that notmuch knows already, %v each way", uploads, b.oneWay), 10, b.oneWay,
				b.putKnown, func(run int) (int, int) { return 10 + (run+1)*uploads, 10 })),
	}
}

// inTurn is a part of several tables.
func inTurn(tables ...func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, table := range tables {
			if err := table(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == measureArgument {
		os.Exit(measureChild(os.Args[2], os.Args[3:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	b := &bench{out: os.Stdout}
	parts := flag.String("parts", "abcdefghilw", "what to measure: a first sync, b idle sync, c a large message, d changes there, e fsync, f tags and new mail here, g renames here, h uploads, i idle sync of much mail, l first sync over slow lines, w watch")
	sizes := flag.String("n", "2000,20000", "mails of the first syncs")
	binary := flag.String("binary", "./notmuch-imap", "the program; empty measures mbsync and notmuch new alone")
	temp := flag.String("dir", os.TempDir(), "make the scratch directory below this one; a file system in memory hides what fsync costs")
	timeout := flag.Duration("timeout", time.Hour, "give up after this time")
	flag.Uint64Var(&b.seed, "seed", 1, "of the mails")
	flag.IntVar(&b.mailboxes, "mailboxes", 200, "of the idle syncs")
	flag.IntVar(&b.idle, "idle", 50_000, "mails in the mailboxes of part i, together")
	flag.DurationVar(&b.oneWay, "delay", 25*time.Millisecond, "of the network in parts b and h, each way")
	flag.IntVar(&b.large, "mb", 200, "size of the large message")
	flag.IntVar(&b.far, "far", 2000, "mails of the first syncs of part l")
	flag.IntVar(&b.changed, "changed", 2000, "mails in the mailbox of part d, 240 or more for each of -runs")
	flag.IntVar(&b.runs, "runs", 1, "repeat parts a, b and d this often and take medians")
	flag.IntVar(&b.watch, "watch", 500, "mails that come in part w, one by one")
	flag.DurationVar(&b.rest, "rest", 5*time.Minute, "that the watch of part w has nothing to do")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("no arguments, please: %q", flag.Args())
	}
	if b.runs < 1 || b.changed < 240*b.runs || b.mailboxes < 1 || b.idle < b.mailboxes || b.large < 1 || b.far < 1 || b.watch < 1 || b.rest <= 0 {
		return errors.New("-runs, -mailboxes, -mb, -far, -watch and -rest are 1 or more, -idle is -mailboxes or more, -changed is 240 or more for each of -runs")
	}
	for s := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("-n %s: numbers with commas between, please", *sizes)
		}
		b.sizes = append(b.sizes, n)
	}
	if *binary != "" {
		if b.binary, err = filepath.Abs(*binary); err != nil {
			return err
		}
		if _, err := os.Stat(b.binary); err != nil {
			return fmt.Errorf("%w (`make build` makes it)", err)
		}
	}
	if b.dir, err = os.MkdirTemp(*temp, "notmuch-imap-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()

	b.about(ctx)
	all := b.parts()
	for _, p := range strings.Split(*parts, "") {
		part, ok := all[p]
		if !ok {
			return fmt.Errorf("-parts %s: there is no part %q", *parts, p)
		}
		if err := part(ctx); err != nil {
			return fmt.Errorf("part %s: %w", p, err)
		}
	}
	return nil
}

// about says what is measured, and on what.
func (b *bench) about(ctx context.Context) {
	version := func(words ...string) string {
		if words[0] == "" {
			return "notmuch-imap: not measured"
		}
		out, err := exec.CommandContext(ctx, words[0], words[1:]...).Output()
		if err != nil {
			return words[0] + ": " + err.Error()
		}
		first, _, _ := strings.Cut(string(out), "\n")
		return first
	}
	b.say("%s; %s; %s; dovecot %s", version(b.binary, "version"), version("mbsync", "--version"), version("notmuch", "--version"),
		version(dovecotBinary(), "--version"))
	b.say("%d processors, %s; %d run(s), medians; seed %d", runtime.NumCPU(), runtime.Version(), b.runs, b.seed)
}

func dovecotBinary() string {
	if path, err := exec.LookPath("dovecot"); err == nil {
		return path
	}
	return "/usr/sbin/dovecot" // not on an ordinary user's PATH
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.out, format+"\n", args...)
}

// row is one line of a table: the same figure of both.
type row struct {
	what         string
	ours, theirs float64
	format       string // of one figure, with its unit
	note         string
}

// table prints rows with the ratio of ours to theirs, which is better below 1.
func (b *bench) table(title string, rows []row) {
	b.say("\n%s\n  %-26s %16s %24s %8s", title, "", "notmuch-imap", "mbsync + notmuch new", "ratio")
	for _, r := range rows {
		ours, ratio := "-", "-"
		if b.binary != "" {
			ours = fmt.Sprintf(r.format, r.ours)
			if r.theirs > 0 {
				ratio = fmt.Sprintf("%.2f", r.ours/r.theirs)
			}
		}
		b.say("%s", strings.TrimRight(fmt.Sprintf("  %-26s %16s %24s %8s   %s", r.what, ours, fmt.Sprintf(r.format, r.theirs), ratio, r.note), " "))
	}
}

// median gives the one in the middle of some, by a figure of theirs.
func median(of []usage, figure func(usage) float64) float64 {
	if len(of) == 0 {
		return 0
	}
	figures := make([]float64, len(of))
	for i, u := range of {
		figures[i] = figure(u)
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}
