package takeover

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// OfflineIMAPAccount is an account of an .offlineimaprc.
type OfflineIMAPAccount struct {
	LocalFolders string // absolute path
	State        OfflineIMAPState
}

// maxConfig bounds what is read of another program's configuration.
const maxConfig = 1 << 20

// OfflineIMAPAccounts reads an .offlineimaprc. home is what ~ stands for.
func OfflineIMAPAccounts(file, home string) ([]OfflineIMAPAccount, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	sections, err := iniOf(io.LimitReader(f, maxConfig))
	if err != nil {
		return nil, err
	}
	path := func(s string) string {
		if rest, ok := strings.CutPrefix(s, "~/"); ok {
			s = filepath.Join(home, rest)
		}
		return filepath.Clean(os.ExpandEnv(s))
	}
	general := sections["general"]
	metadata := general["metadata"]
	if metadata == "" {
		metadata = "~/.offlineimap"
	}
	var out []OfflineIMAPAccount
	for name := range strings.SplitSeq(general["accounts"], ",") {
		name = strings.TrimSpace(name)
		account := sections["Account "+name]
		remote, local := account["remoterepository"], sections["Repository "+account["localrepository"]]
		if name == "" || remote == "" || local["localfolders"] == "" {
			continue
		}
		out = append(out, OfflineIMAPAccount{path(local["localfolders"]), StateOfflineIMAP(path(metadata), name, remote)})
	}
	return out, nil
}

// iniOf reads what Python's configparser reads: sections of `key = value` or `key: value`,
// in which a line that begins with a blank goes on with the value before it.
func iniOf(r io.Reader) (map[string]map[string]string, error) {
	out := make(map[string]map[string]string)
	var section map[string]string
	key := ""
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxConfig)
	for in.Scan() {
		line := in.Text()
		text := strings.TrimSpace(line)
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
		case text[0] == '[' && strings.HasSuffix(text, "]"):
			name := strings.TrimSpace(text[1 : len(text)-1])
			if out[name] == nil {
				out[name] = make(map[string]string)
			}
			section, key = out[name], ""
		case section == nil:
		case (line[0] == ' ' || line[0] == '\t') && key != "":
			section[key] += "\n" + text
		default:
			i := strings.IndexAny(text, "=:")
			if i < 0 {
				continue
			}
			key = strings.ToLower(strings.TrimSpace(text[:i]))
			section[key] = strings.TrimSpace(text[i+1:])
		}
	}
	return out, in.Err()
}
