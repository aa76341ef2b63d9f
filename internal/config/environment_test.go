package config

import (
	"os"
	"path/filepath"
	"testing"
)

// What the configuration finds by the environment it finds by the one that it is given.
func TestTheEnvironmentIsTheOneThatIsGiven(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	for name, at := range map[string]string{"HOME": other, "XDG_CONFIG_HOME": other, "XDG_STATE_HOME": other, EnvFile: filepath.Join(other, "config.toml")} {
		t.Setenv(name, at)
	}
	getenv := func(name string) string { return map[string]string{"HOME": dir}[name] }
	file, err := Find("", getenv)
	if want := filepath.Join(dir, ".config", program, "config.toml"); err != nil || file != want {
		t.Errorf("%s, %v, want %s", file, err, want)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("[account.work]\nhost = \"h\"\nuser = \"u\"\npassword_file = \"~/secret\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, getenv)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Accounts[0].PasswordFile, filepath.Join(dir, "secret"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, err := c.Accounts[0].StateDir(getenv); err != nil || got != filepath.Join(dir, ".local/state", program, "work") {
		t.Errorf("%s, %v", got, err)
	}
}
