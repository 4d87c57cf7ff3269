// Package kernels runs tests on kernels that this machine does not run: Debian's
// packages, unpacked and never installed, booted in QEMU over this machine's own
// files, which the guest can read but not write. It is for tests, on amd64; it
// is no laboratory of several machines, and its guests have no network device.
// Everything in it may be called concurrently.
package kernels

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kernel is one that Debian offers.
type Kernel struct {
	Version string // major.minor
	Source  string // where it is newest, as a line of sources.list has it
}

// Kernels lists those that the suites run on, the oldest first.
func Kernels() []Kernel {
	return []Kernel{
		{"5.10", "http://deb.debian.org/debian-security bullseye-security main"},
		{"6.1", "http://deb.debian.org/debian-security bookworm-security main"},
		{"6.12", "http://deb.debian.org/debian bookworm-backports main"},
	}
}

// Image is a kernel's package, unpacked.
type Image struct {
	Dir     string // has boot/ and lib/modules/
	Release string // as uname -r says
}

// Fetch downloads the newest package of a kernel and unpacks it below cache, or
// takes the one that is there. It uses apt with lists and sources of its own.
func (k Kernel) Fetch(ctx context.Context, cache string) (Image, error) {
	dir := filepath.Join(cache, "linux-"+k.Version)
	if image, err := open(dir); err == nil {
		return image, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Image{}, fmt.Errorf("fetch kernel %s: %w", k.Version, err)
	}
	fresh, err := os.MkdirTemp(cache, "fresh-")
	if err != nil {
		return Image{}, fmt.Errorf("fetch kernel %s: %w", k.Version, err)
	}
	defer os.RemoveAll(fresh)
	unpacked := filepath.Join(fresh, "root")
	if err := k.download(ctx, fresh, unpacked); err != nil {
		return Image{}, fmt.Errorf("fetch kernel %s: %w", k.Version, err)
	}
	// Whoever is second to fetch the same finds it there and takes it.
	if err := os.Rename(unpacked, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return Image{}, fmt.Errorf("fetch kernel %s: %w", k.Version, err)
	}
	return open(dir)
}

func open(dir string) (Image, error) {
	found, err := filepath.Glob(filepath.Join(dir, "boot/vmlinuz-*"))
	if err != nil {
		return Image{}, err
	}
	if len(found) != 1 {
		return Image{}, fmt.Errorf("%s has %d kernels, want one", dir, len(found))
	}
	return Image{Dir: dir, Release: strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-")}, nil
}

// download unpacks a kernel's newest package with the help of a directory.
func (k Kernel) download(ctx context.Context, dir, unpacked string) error {
	for _, sub := range []string{"lists/partial", "archives/partial", "parts"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"apt.conf": aptConf(dir), "sources.list": k.sources(), "status": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	conf := filepath.Join(dir, "apt.conf")
	if _, err := command(ctx, dir, "apt-get", "-c", conf, "-qq", "update"); err != nil {
		return err
	}
	depends, err := command(ctx, dir, "apt-cache", "-c", conf, "depends", "linux-image-amd64")
	if err != nil {
		return err
	}
	name, err := image(depends)
	if err != nil {
		return err
	}
	if _, err := command(ctx, dir, "apt-get", "-c", conf, "-qq", "download", name); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(packages) != 1 {
		return errors.Join(fmt.Errorf("downloaded %s, found %d packages", name, len(packages)), err)
	}
	if _, err := command(ctx, dir, "dpkg-deb", "-x", packages[0], unpacked); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(unpacked, "lib")); errors.Is(err, fs.ErrNotExist) {
		if err := os.Symlink("usr/lib", filepath.Join(unpacked, "lib")); err != nil {
			return err
		}
	}
	// A package is without the lists of its modules: its installation makes them.
	_, err = command(ctx, dir, "depmod", "-b", unpacked, strings.TrimPrefix(name, imagePrefix))
	return err
}

// aptConf keeps the machine's settings, such as a proxy, but none of its
// sources, lists, packages, pins and hooks. The release files of old suites
// have expired.
func aptConf(dir string) string {
	return strings.ReplaceAll(`APT::Architecture "amd64";
Acquire::Check-Valid-Until "false";
Dir::Cache "DIR";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "DIR/parts";
Dir::Etc::sourcelist "DIR/sources.list";
Dir::Etc::sourceparts "DIR/parts";
Dir::State::lists "DIR/lists";
Dir::State::status "DIR/status";
#clear APT::Update;
#clear Acquire::IndexTargets::deb::DEP-11;
`, "DIR", dir)
}

func (k Kernel) sources() string {
	return "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " + k.Source + "\n"
}

const imagePrefix = "linux-image-"

// image reads what package the one of all kernels depends on.
func image(depends string) (string, error) {
	for line := range strings.Lines(depends) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(name, imagePrefix) {
			return name, nil
		}
	}
	return "", fmt.Errorf("linux-image-amd64 depends on no kernel: %q", depends)
}

func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stderr = dir, &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
