package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

func (p *program) demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "play the whole story on a server of its own",
		Description: `Starts an IMAP server on this machine that holds a mailbox with one message that it will not hand over, and
synchronises it into a Maildir and a notmuch database of its own. Your mail, your configuration and the network are not touched.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "keep", Usage: "leave the demo's directory behind, and say where it is"},
		},
		Action: func(c *cli.Context) error { return p.demo(c.Context, c.Bool("keep")) },
	}
}

// stage is where the demo plays.
type stage struct {
	*program
	dir string
	env []string
}

func (p *program) demo(ctx context.Context, keep bool) (err error) {
	if _, err := exec.LookPath("notmuch"); err != nil {
		return errors.New("the demo needs the notmuch command: install notmuch (`make demo` does)")
	}
	dir, err := os.MkdirTemp("", name+"-demo-")
	if err != nil {
		return err
	}
	defer func() {
		if keep {
			p.say("Everything is still in %s.", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	server, err := imaptest.NewSeed()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	s, err := p.setStage(dir, server)
	if err != nil {
		return err
	}
	return s.play(ctx, server)
}

// setStage writes the configurations, and a PATH on which this program is
// notmuch-imap.
func (p *program) setStage(dir string, server *imaptest.Server) (*stage, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	mail := filepath.Join(dir, "Mail")
	files := map[string]string{
		"notmuch-config": "[database]\npath=" + mail + "\n[user]\nname=Demo\nprimary_email=" + imaptest.User + "\n[new]\ntags=unread;inbox\n",
		"config.toml": fmt.Sprintf("[account.work]\nhost = %q\nport = %d\ntls_ca_file = %q\nuser = %q\npassword_file = %q\n",
			server.Host(), server.Port(), filepath.Join(dir, "ca.pem"), imaptest.User, filepath.Join(dir, "password")),
		"ca.pem":   string(server.Certificate.PEM),
		"password": imaptest.Password + "\n",
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	bin := filepath.Join(dir, "bin")
	if err := errors.Join(os.Mkdir(mail, 0o700), os.Mkdir(bin, 0o700), os.Symlink(self, filepath.Join(bin, name))); err != nil {
		return nil, err
	}
	env := []string{
		"PATH=" + bin + string(os.PathListSeparator) + p.getenv("PATH"), "HOME=" + dir, "XDG_STATE_HOME=" + filepath.Join(dir, "state"),
		"NOTMUCH_CONFIG=" + filepath.Join(dir, "notmuch-config"), "NOTMUCH_IMAP_CONFIG=" + filepath.Join(dir, "config.toml"), "LC_ALL=C.UTF-8",
	}
	return &stage{program: p, dir: dir, env: env}, nil
}

// run shows a command and what it prints, with the lines of all of it that are
// beyond most left out.
func (s *stage) command(ctx context.Context, most int, words ...string) error {
	s.verbatim("\n$ " + quote(words))
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	for _, dir := range filepath.SplitList(strings.TrimPrefix(s.env[0], "PATH=")) {
		if path := filepath.Join(dir, words[0]); !strings.Contains(words[0], "/") && executable(path) {
			cmd.Path, cmd.Err = path, nil
			break
		}
	}
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	var lines []string
	if text := strings.TrimRight(plainText(string(out)), "\n"); text != "" {
		lines = strings.Split(text, "\n")
	}
	for i, line := range lines {
		if i == most {
			s.say("  [%d more lines]", len(lines)-most)
			break
		}
		s.verbatim("  " + line)
	}
	// Status 3 says that something could not be fetched, which is the point.
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == exitPartly {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", quote(words), err)
	}
	return nil
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// quote writes a command as one would type it.
func quote(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		if strings.ContainsAny(w, " *'()") {
			w = "'" + w + "'"
		}
		out[i] = w
	}
	return strings.Join(out, " ")
}

// play is the story.
func (s *stage) play(ctx context.Context, server *imaptest.Server) error {
	uid := strconv.Itoa(imaptest.SeedBadUID)
	s.say("A server on 127.0.0.1:%d holds an INBOX of %d messages. It lists UID %s like all the others,\nand when it is asked for it, it says OK and sends nothing: so did the Exchange server of this story.",
		server.Port(), imaptest.SeedMessages, uid)
	if err := s.command(ctx, 30, "notmuch", "imap", "sync"); err != nil {
		return err
	}
	s.say("\nAll the other mail is there and searchable.")
	if err := s.command(ctx, 5, "notmuch", "count", "*"); err != nil {
		return err
	}
	s.say("\nThe one that would not come is a mail, too, at the place that its date gives it:")
	if err := s.command(ctx, 20, "notmuch", "search", "tag:fetch-failed"); err != nil {
		return err
	}
	if err := s.command(ctx, 62, "notmuch", "show", "tag:fetch-failed"); err != nil {
		return err
	}
	if err := s.command(ctx, 20, "notmuch", "imap", "stubs"); err != nil {
		return err
	}
	s.say("\nThe evening with openssl s_client, done by the program (in Mutt: the key ,i on the note):")
	if err := s.command(ctx, 60, "notmuch", "imap", "inspect", "tag:fetch-failed"); err != nil {
		return err
	}
	s.say("\nTo be rid of it, in Mutt: ,d stops asking for it, and nothing happens on the server; ,D asks you first,\nthen deletes this one message there and no other:\n\n  $ notmuch imap drop tag:fetch-failed\n  $ notmuch imap drop --remote tag:fetch-failed")
	s.say("\nUntil then every sync asks again when it is due. Known is quiet:")
	if err := s.command(ctx, 10, "notmuch", "imap", "sync"); err != nil {
		return err
	}
	s.say("\nNow somebody repairs the server, and you have tagged the note meanwhile. In Mutt ,r asks again at once:")
	server.Heal(imaptest.SeedBadUID)
	if err := s.command(ctx, 5, "notmuch", "tag", "+important", "--", "tag:fetch-failed"); err != nil {
		return err
	}
	if err := s.command(ctx, 10, "notmuch", "imap", "retry", "tag:fetch-failed"); err != nil {
		return err
	}
	s.say("\nThe real mail has taken the note's place, with your tag:")
	if err := s.command(ctx, 5, "notmuch", "search", "tag:fetch-failed"); err != nil {
		return err
	}
	if err := s.command(ctx, 30, "notmuch", "show", "tag:important"); err != nil {
		return err
	}
	s.say("\nThat was it; the server and the mail of this demo are gone.")
	return nil
}
