package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

func (p *program) indexCommand() *cli.Command {
	return &cli.Command{
		Name:  "index",
		Usage: "make the notmuch database anew, on all cores",
		Description: `With --rebuild: indexes all mail that is in the notmuch database once more, in several processes at once, merges what they made, and
puts that in the place of the database, with all its tags, properties and settings. It takes a part of the time of notmuch new, and less
room on the disk after it. The database that was there is kept beside the new one. What other programs write meanwhile is taken over;
until the end, whatever happens, the database is the one that was there. Run notmuch new before. It needs xapian-tools.`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "rebuild", Usage: "do it"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "say what would be done, and do nothing"},
		}, outputFlags()...),
		Action: p.rebuild,
	}
}

// shardName is the command that a rebuild starts, as often as it has processes.
const shardName = "index-shard"

func (p *program) shardCommand() *cli.Command {
	return &cli.Command{
		Name:   shardName,
		Usage:  "be a process of index --rebuild",
		Hidden: true,
		Action: func(c *cli.Context) error {
			if c.Args().Len() != 2 {
				return &usageError{"it is started by index --rebuild", c.Command.HelpName}
			}
			return index.BuildShard(c.Context, c.Args().Get(0), c.Args().Get(1), p.stdin, p.stdout)
		},
	}
}

// workers gives the processes that index at once: so many, or as many as there are cores, and two at least.
func workers(n int) (index.RebuildOptions, error) {
	self, err := os.Executable()
	return index.RebuildOptions{
		Workers: cmp.Or(n, min(max(2, runtime.GOMAXPROCS(0)), config.MaxIndexWorkers)),
		Worker: func(ctx context.Context, dir, shard string) *exec.Cmd {
			cmd := exec.CommandContext(ctx, self, shardName, dir, shard)
			cmd.Args[0] = os.Args[0]
			return cmd
		},
	}, err
}

// indexAhead gives what a first sync indexes with; nil if that is one process.
func indexAhead(a *config.Account, idx *index.Index) func(context.Context, []mail.Change, int, func(int)) (bool, error) {
	o, err := workers(a.IndexWorkers)
	if err != nil || o.Workers < 2 {
		return nil
	}
	return func(ctx context.Context, changes []mail.Change, own int, progress func(int)) (bool, error) {
		o := o
		o.Progress = func(done, _ int) { progress(done) }
		return idx.Ahead(ctx, changes, own, o)
	}
}

func (p *program) rebuild(c *cli.Context) error {
	if !c.Bool("rebuild") || c.Args().Present() {
		return &usageError{"what of the index? --rebuild makes it anew", c.Command.HelpName}
	}
	o, err := workers(0)
	if err != nil {
		return err
	}
	out, err := p.output(c)
	if err != nil {
		return err
	}
	defer out.close()
	look := p.indexOptions(out)
	look.Existing = true
	idx, err := index.Open(c.Context, look)
	if err != nil {
		return err
	}
	o.DryRun = c.Bool("dry-run")
	o.Progress = func(done, total int) {
		out.event(pipeline.Event{Time: time.Now(), Type: pipeline.EventProgress, Account: "notmuch", Done: done, Total: total})
	}
	r, err := idx.Rebuild(c.Context, o)
	switch {
	case err == nil:
	case r.Kept != "":
		return fmt.Errorf("the new notmuch database is in place, but %w", err)
	case c.Err() != nil:
		return errUnchanged
	case errors.Is(err, index.ErrLocked), errors.Is(err, index.ErrStale):
		out.fault(err.Error() + "; " + errUnchanged.Error())
		return errLater
	default:
		return fmt.Errorf("%w; %w", err, errUnchanged)
	}
	switch {
	case out.json:
		out.print(out.stdout, jsonLine(r))
	case out.most > showFaults:
		out.say(rebuiltText(r))
	}
	return nil
}

// rebuiltText says what a rebuild did, or would do, in a line.
func rebuiltText(r index.Rebuilt) string {
	mail := fmt.Sprintf("%s in %s", count(r.Messages, "message", "messages"), count(r.Files, "file", "files"))
	if r.Kept == "" {
		return fmt.Sprintf("%s would be indexed by %s; it takes up to %s of the disk meanwhile", mail, count(r.Workers, "process", "processes"), room(r.Room))
	}
	text := fmt.Sprintf("%s indexed; the database had %s and has %s", mail, room(r.SizeBefore), room(r.Size))
	if r.Threads != r.ThreadsBefore {
		text += fmt.Sprintf("; %s threads are %s, since mail that held some together is gone", thousands(r.ThreadsBefore), thousands(r.Threads))
	}
	return text + fmt.Sprintf("; the one before is kept as %s, until you remove it or rebuild again", r.Kept)
}

// room is a number of bytes in a sentence.
func room(n int64) string { return strings.TrimSpace(size(n)) }
