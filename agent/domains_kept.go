package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// kept is a line of the file: a pattern that policies have, or an address of a name.
type kept struct {
	Pattern string     `json:"pattern,omitempty"`
	Name    string     `json:"name,omitempty"`
	Addr    netip.Addr `json:"address,omitzero"`
	Ends    time.Time  `json:"ends,omitzero"`
	Lapsed  bool       `json:"lapsed,omitempty"`
}

// recall lets the feed have what an earlier agent knew. A file that cannot be read
// costs what pods do not ask for again.
func (d *domains) recall() {
	text, err := os.ReadFile(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var addresses []netip.Addr
	var patterns []string
	for lines := json.NewDecoder(strings.NewReader(string(text))); err == nil && lines.More(); {
		var line kept
		if err = lines.Decode(&line); err == nil && line.Pattern != "" {
			patterns = append(patterns, line.Pattern)
		} else if err == nil && line.Name != "" && line.Addr.IsValid() {
			to := d.ends
			if line.Lapsed {
				to = d.lapsed
			}
			to[resolvedKey{line.Name, line.Addr}] = line.Ends
			addresses = append(addresses, line.Addr)
		}
	}
	if err != nil {
		d.log.Warn("some addresses of names in policies are not known any more", "error", err)
	}
	d.wanted = model.NewDomains(patterns)
	d.count()
	d.publish(addresses)
}

// save writes the file, if it has changed.
func (d *domains) save() {
	d.saving.Lock()
	defer d.saving.Unlock()
	d.mu.Lock()
	made := d.made
	var lines []kept
	if made != d.saved {
		for _, pattern := range d.wanted.All() {
			lines = append(lines, kept{Pattern: pattern})
		}
		for key, ends := range d.ends {
			lines = append(lines, kept{Name: key.name, Addr: key.addr, Ends: ends})
		}
		for key, ends := range d.lapsed {
			lines = append(lines, kept{Name: key.name, Addr: key.addr, Ends: ends, Lapsed: true})
		}
	}
	d.mu.Unlock()
	if made == d.saved {
		return
	}
	if err := writeKept(d.path, lines); err != nil {
		d.log.Warn("addresses of names in policies could not be kept", "error", err)
	}
	d.saved = made
}

func writeKept(path string, lines []kept) error {
	return replace(path, 0o600, func(file *os.File) error {
		to := json.NewEncoder(file)
		for i := range lines {
			if err := to.Encode(&lines[i]); err != nil {
				return err
			}
		}
		return nil
	})
}
