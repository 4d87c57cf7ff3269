package agent

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// formerSysctls is what the settings of the node were before Fairlead changed
// them, as far as they were changed since the node booted: a reboot puts them
// back by itself.
type formerSysctls struct {
	Boot     string            `json:"boot"` // the boot's ID
	Settings map[string]former `json:"settings"`
}

// former is one setting, by its path below /proc/sys.
type former struct {
	Was string `json:"was"`
	Set string `json:"set"` // to which Fairlead has set it
}

// sysctlsFile is the name of the file in Config.StateDir.
const sysctlsFile = "sysctls.json"

// RememberSysctls returns what a data plane tells of the sysctls that it is about
// to change, so that Uninstall puts back what they were. It keeps the first value
// of each. It may be called concurrently.
func RememberSysctls(stateDir string, log *slog.Logger) func(path, was, set string) {
	file := filepath.Join(stateDir, sysctlsFile)
	var mu sync.Mutex // guards the file
	return func(path, was, set string) {
		mu.Lock()
		defer mu.Unlock()
		known, err := readSysctls(file)
		if err != nil {
			log.Warn("the former values of sysctls could not be read; those of now are kept", "error", err)
		}
		before, again := known.Settings[path]
		if again && before.Set == set {
			return
		}
		if again {
			was = before.Was
		}
		known.Settings[path] = former{Was: was, Set: set}
		if err := known.write(file); err != nil {
			log.Warn("the former value of a sysctl could not be kept, so uninstalling will not restore it", "sysctl", path, "was", was, "error", err)
		}
	}
}

// readSysctls returns those of this boot; with an error, none.
func readSysctls(file string) (formerSysctls, error) {
	none := formerSysctls{Boot: strings.TrimSpace(string(bootID())), Settings: map[string]former{}}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	var known formerSysctls
	if err := json.Unmarshal(text, &known); err != nil {
		return none, fmt.Errorf("%s is damaged: %w", file, err)
	}
	if known.Boot != none.Boot || known.Settings == nil {
		return none, nil
	}
	return known, nil
}

func (f formerSysctls) write(file string) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return replace(file, 0o644, func(to *os.File) error { _, err := to.Write(append(text, '\n')); return err })
}

// restoreSysctls puts back what settings were that are still as Fairlead has set
// them; those that somebody else has set since are theirs. It says each.
func restoreSysctls(stateDir string, say func(string)) error {
	known, err := readSysctls(filepath.Join(stateDir, sysctlsFile))
	if err != nil {
		return fmt.Errorf("read the former values: %w; if they do not matter, or the node has rebooted since, delete that file", err)
	}
	// Forwarding first: its change sets others (net/ipv4/devinet.c, inet_forward_change).
	paths := slices.SortedFunc(maps.Keys(known.Settings), func(a, b string) int {
		rank := func(path string) int {
			if strings.HasSuffix(path, "forward") || strings.HasSuffix(path, "forwarding") {
				return 0
			}
			return 1
		}
		return cmp.Or(rank(a)-rank(b), cmp.Compare(a, b))
	})
	var failed []error
	for _, path := range paths {
		setting := known.Settings[path]
		file := filepath.Join("/proc/sys", path)
		now, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(now)) != setting.Set {
			continue
		}
		if err == nil {
			err = os.WriteFile(file, []byte(setting.Was), 0)
		}
		switch {
		case err == nil:
			say(fmt.Sprintf("restored %s=%s", path, setting.Was))
		case !errors.Is(err, fs.ErrNotExist): // else it went with its device
			failed = append(failed, fmt.Errorf("%w; it was %s", err, setting.Was))
		}
	}
	return errors.Join(failed...)
}
