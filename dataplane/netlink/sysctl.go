package netlink

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

const sysctlRoot = "/proc/sys"

func sysctlItem() item[string, string] {
	return item[string, string]{
		named: func(key string) string { return "sysctl " + key },
		asked: func(key, value string) string { return "sysctl " + key + "=" + value },
	}
}

// putSysctls writes accept_ra before the rest: a router (forwarding=1) with
// another value than 2 drops the default route that it lives by.
func (b *batch) putSysctls() error {
	settings := maps.Collect(b.sysctls.Puts())
	keys := slices.SortedFunc(maps.Keys(settings), func(a, b string) int {
		if first := strings.HasSuffix(a, "/accept_ra"); first != strings.HasSuffix(b, "/accept_ra") {
			if first {
				return -1
			}
			return 1
		}
		return cmp.Compare(a, b)
	})
	item := sysctlItem()
	for _, key := range keys {
		if strings.HasSuffix(key, "/route_localnet") && b.Guarded != nil && !b.Guarded() {
			continue // it stays pending
		}
		if was, err := readSysctl(key); err == nil && was != settings[key] && b.Former != nil {
			b.Former(key, was, settings[key])
		}
		if err := writeSysctl(key, settings[key]); err != nil {
			if err := b.refused(item.named(key), item.asked(key, settings[key]), err); err != nil {
				return err
			}
			continue
		}
		b.sysctls.Did(key, settings[key])
	}
	// What is no longer asked for stays as it is: nobody knows better.
	for key := range b.sysctls.Removals() {
		b.sysctls.Removed(key)
	}
	return nil
}

func writeSysctl(key, value string) error {
	if seen, err := readSysctl(key); err == nil && seen == value {
		return nil
	}
	// Not os.WriteFile, which would create what is not there.
	file, err := os.OpenFile(path.Join(sysctlRoot, key), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := file.WriteString(value); err != nil {
		_ = file.Close()
		return err
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("write sysctl %s: %w", key, err)
	}
	return nil
}

func readSysctl(key string) (string, error) {
	value, err := os.ReadFile(path.Join(sysctlRoot, key))
	return strings.TrimSpace(string(value)), err
}

// observeSysctls forgets what was written: the next write looks first.
func (b *batch) observeSysctls() { b.sysctls.Observe(nil) }
