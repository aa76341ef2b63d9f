package takeover

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const magic = "OFFLINEIMAP LocalStatus CACHE DATA - DO NOT MODIFY - FORMAT "

// TestOfflineIMAP reads the text form; the database that the real one makes is tested with
// that, in cmd.
func TestOfflineIMAP(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status, validity string
		files            []string
		busy             bool
		want             *Agreement
		words            string
	}{
		"what there may be": {magic + "2\n1|FSa|12|x\n2||0|\n7|S|0|\n", "5\n",
			[]string{"cur/1_0.1.h,U=1,FMD5=aa:2,FS", "new/1_1.1.h,U=2,FMD5=aa", "cur/copied,U=2,FMD5=bb:2,", "cur/mine:2,S", "cur/odd,U=x,FMD5=aa:2,", "cur/1_2.1.h,U=9,FMD5=aa:2,"}, false,
			&Agreement{UIDValidity: 5, UIDNext: 8, Messages: []Agreed{{UID: 1, Key: "1_0.1.h,U=1,FMD5=aa", Letters: "FS"}, {UID: 2, Key: "1_1.1.h,U=2,FMD5=aa"}, {UID: 7, Key: "gone,U=7", Letters: "S"}}}, ""},
		"the first form":    {magic + "1\n3:RS\n", "5", nil, false, &Agreement{UIDValidity: 5, UIDNext: 4, Messages: []Agreed{{UID: 3, Key: "gone,U=3", Letters: "RS"}}}, ""},
		"another program's": {"1:S\n", "5", nil, false, nil, "none of OfflineIMAP's"},
		"no number":         {magic + "1\nx:S\n", "5", nil, false, nil, "line 2 is none of OfflineIMAP's"},
		"no UID":            {magic + "1\n-3:S\n", "5", nil, false, nil, "-3 is no UID"},
		"no UIDVALIDITY":    {magic + "1\n", "x", nil, false, nil, "is no UIDVALIDITY"},
		"a UID twice":       {magic + "1\n3:S\n", "5", []string{"cur/a,U=3,FMD5=aa:2,", "new/b,U=3,FMD5=aa"}, false, nil, "two files"},
		"at work":           {magic + "1\n3:S\n", "5", nil, true, nil, "at work on it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, at := t.TempDir(), folder(t, head, c.files...)
			state := StateOfflineIMAP(dir, "a", "there")
			for _, d := range []string{filepath.Join(state.Status, "LocalStatus"), state.Validity} {
				if err := os.MkdirAll(d, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			write(t, state.Validity, "A.B", c.validity)
			write(t, filepath.Join(state.Status, "LocalStatus"), "A.B", c.status)
			if c.busy {
				f, err := os.Create(state.Lock)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
					t.Fatal(err)
				}
			}
			got, err := OfflineIMAP(t.Context(), at, state, []string{"A", "B"}, []string{"A.B"})
			if c.words != "" {
				if err == nil || !strings.Contains(err.Error(), c.words) {
					t.Errorf("%v does not say %q", err, c.words)
				}
				return
			}
			if err == nil {
				goesOn(t, got.State, filepath.Join(state.Status, "LocalStatus", "A.B"))
				got.State = State{}
			}
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%v\n%+v, want\n%+v", err, got, c.want)
			}
			if _, err := OfflineIMAP(t.Context(), at, state, []string{"Other"}, []string{"Other"}); err != ErrNone { //nolint:errorlint // it is this one
				t.Errorf("of another folder: %v", err)
			}
		})
	}
}

func TestOfflineIMAPAccounts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "rc", "# me\n[general]\nAccounts = a, b,lost\nmetadata: ~/meta\n[Account a]\nremoterepository = far\nlocalrepository=near\n"+
		"[Account b]\nremoterepository = far\nlocalrepository = gone\n\n[Repository near]\ntype = Maildir\nlocalfolders = ~/Mail/a/\n"+
		"[Repository far]\nremotehost = h\nremoteuser = me\nnametrans = lambda f:\n   f\n")
	got, err := OfflineIMAPAccounts(filepath.Join(dir, "rc"), "/home/me")
	want := []OfflineIMAPAccount{{LocalFolders: "/home/me/Mail/a", State: StateOfflineIMAP("/home/me/meta", "a", "far"), Proposal: Proposal{
		Name: "a", Root: "/home/me/Mail/a", Host: "h", User: "me", TLS: "implicit",
		NotCarriedOver: []string{"nametrans: it is Python: folders that are there keep their names; new ones are called as the mailbox"}}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v, want\n%+v", err, got, want)
	}
}
