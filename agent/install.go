package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/model"
)

// install makes the container runtime use Fairlead: the plugin first, and once
// pods can be connected the configuration that names it and the file that says
// so. It keeps the configuration as the Network wants it. All stay when the
// agent ends, so that the node stays ready while it restarts; the file is gone
// after a reboot.
type install struct {
	node           string
	plugin         string // what is installed
	binDir, conDir string
	socket         string
	copy           string // file that has the configuration as it was written last
	feed           *model.Feed
	checks         checks
	notices        *notices
	log            *slog.Logger

	binaries  binaries
	written   []byte // nil: not known
	delivered bool   // the plugin is in its place
}

const (
	pluginName = "fairlead-cni"
	conflist   = "05-fairlead.conflist"
	// editedEnding is of what somebody made of it. Runtimes do not read it.
	editedEnding = ".edited"
)

// edits are the changes in the directories that matter.
const edits = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE

// lookTime is how often the files are looked at where nothing is told of them,
// and after a failure.
const lookTime = 30 * time.Second

func (i *install) Run(ctx context.Context) error {
	if err := i.deliver(); err != nil { // said with what else is wrong, below
		i.log.Warn("trying again", "error", err)
	}
	for _, check := range i.checks {
		select {
		case <-ctx.Done():
			return nil
		case <-check.done:
		}
	}
	i.written, _ = os.ReadFile(i.copy)
	i.binaries.dir = i.binDir
	return watch(edits, []string{i.conDir, i.binDir, filepath.Dir(i.socket)}, func(edited <-chan struct{}) error { return i.keep(ctx, edited) })
}

func (i *install) keep(ctx context.Context, edited <-chan struct{}) error {
	look := time.NewTicker(lookTime)
	defer look.Stop()
	ready := false
	for {
		snapshot, changed := i.feed.Latest()
		network := snapshot.Network
		chain := newChain(i.node, i.socket, network.Plugins, func(name string) ([]string, error) {
			return i.binaries.versions(ctx, name)
		})
		if ctx.Err() != nil {
			return nil
		}
		if err := i.standing(); err != nil {
			return err
		}
		undelivered := i.deliver()
		err := i.write(chain)
		if _, missing := os.Stat(i.target()); missing != nil {
			err = errors.Join(undelivered, err)
		}
		if _, missing := os.Stat(cni.ReadyFile(i.socket)); err == nil && missing != nil {
			err = os.WriteFile(cni.ReadyFile(i.socket), nil, 0o644)
		}
		if err == nil && !ready {
			ready = true
			i.log.Info("pods can be connected", "configuration", i.path())
		}
		i.tell(chain, undelivered, err)
		for unchanged := true; unchanged; {
			select {
			case <-ctx.Done():
				return nil
			case <-edited:
				unchanged = false
			case <-look.C:
				unchanged = false
			case <-changed:
				snapshot, changed = i.feed.Latest()
				unchanged = snapshot.Network == network
			}
		}
	}
}

// standing is an error if a directory was removed from the node while the agent
// runs, or the socket on which it hears of pods. Its container keeps what was mounted
// there, in which nothing can be made any more (ENOENT), whatever others make at the
// path on the node. A container that is started again has what is there then: runtimes
// make a source of a mount that is missing, and so does prepare where there is no
// container. A socket without a name is asked nothing, and a new one is made then.
func (i *install) standing() error {
	for _, dir := range []string{i.conDir, i.binDir, filepath.Dir(i.socket)} {
		var stat unix.Stat_t
		if err := unix.Stat(dir, &stat); errors.Is(err, fs.ErrNotExist) || err == nil && stat.Nlink == 0 || mountIsDeleted(dir) {
			return fmt.Errorf("%s was removed from the node, so that no pods can be connected: the agent ends, and has the directory that is there when it is started again", dir)
		}
	}
	for _, path := range []string{i.socket, cni.SpoolDir(i.socket)} {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s was removed from the node, so that no pods can be connected: the agent ends, and makes it anew when it is started again", path)
		}
	}
	return nil
}

// mountIsDeleted tells whether a directory of the container is a mount of one that is not
// there any more. On an overlay, as the nodes of kind are, it still seems to have a link.
func mountIsDeleted(dir string) bool {
	text, _ := os.ReadFile("/proc/self/mountinfo") // proc_pid_mountinfo(5)
	return deletedMount(string(text), dir)
}

func deletedMount(mounts, dir string) (deleted bool) {
	for line := range strings.Lines(mounts) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == dir {
			deleted = strings.HasSuffix(fields[3], "//deleted") // the last one is on top
		}
	}
	return deleted
}

// target is where the runtime looks for the plugin.
func (i *install) target() string { return filepath.Join(i.binDir, pluginName) }

// deliver puts the plugin there, if it is not. On a disk that is full or read-only, the one of
// an earlier agent does as well: they understand each other.
func (i *install) deliver() error {
	if _, err := os.Lstat(i.target()); err != nil {
		i.delivered = false // somebody has emptied the directory
	}
	if i.plugin == "" || i.delivered {
		return nil
	}
	if removeUnfinished(i.target()); !sameContent(i.target(), i.plugin) {
		if err := copyFile(i.target(), i.plugin); err != nil {
			return fmt.Errorf("install the CNI plugin: %w", err)
		}
	}
	// Runtimes want this one too. A node that has it keeps its own.
	err := os.Symlink(pluginName, filepath.Join(i.binDir, cni.LoopbackName))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("install the CNI plugin loopback: %w", err)
	}
	i.delivered = true
	return nil
}

func (i *install) path() string { return filepath.Join(i.conDir, conflist) }

// write makes the configuration that of the chain. What somebody else made of
// it is kept beside.
func (i *install) write(chain *chain) error {
	config, err := chain.config()
	if err != nil {
		return err
	}
	current, err := os.ReadFile(i.path())
	switch {
	case err == nil && bytes.Equal(current, config):
		return nil
	case err == nil && i.written != nil && !bytes.Equal(current, i.written):
		i.log.Warn("the CNI configuration was edited; it is put back", "edited", i.path()+editedEnding)
		err = i.putAside(current)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	for _, path := range []string{i.path(), i.copy} {
		if err == nil {
			err = replace(path, 0o644, func(file *os.File) error { _, err := file.Write(config); return err })
		}
	}
	if err != nil {
		return fmt.Errorf("install the CNI configuration: %w", err)
	}
	i.written = config
	return nil
}

// putAside keeps what somebody made of the configuration: the file itself, as whoever edits
// it may not be done. Where files cannot have two names, it is what was read of it.
func (i *install) putAside(read []byte) error {
	edited := i.path() + editedEnding
	name := filepath.Join(i.conDir, strings.Replace(unfinished(edited), "*", "kept", 1))
	_ = os.Remove(name) // of a process that ended in between
	if err := os.Link(i.path(), name); err != nil {
		return replace(edited, 0o644, func(file *os.File) error { _, err := file.Write(read); return err })
	}
	return os.Rename(name, edited)
}

// tell says what has become of the chain, and of the edits of others until they
// are taken away.
func (i *install) tell(chain *chain, undelivered, err error) {
	problems := chain.problems
	if undelivered != nil && err == nil {
		problems = append(problems, model.Problem{
			Kind: "Node", Name: i.node, Reason: "PluginNotInstalled",
			Message: "pods are connected by the CNI plugin of an earlier version: " + undelivered.Error(),
			Remedy:  "make room on the disk of the node, or make it writable",
		})
	}
	if err != nil {
		problems = append(problems, model.Problem{
			Kind: "Node", Name: i.node, Reason: "ConfigurationNotWritten",
			Message: "the container runtime is not told how to connect pods: " + err.Error(),
			Remedy:  "make room on the disk of the node, or make it writable",
		})
	}
	if _, err := os.Stat(i.path() + editedEnding); err == nil {
		problems = append(problems, model.Problem{
			Kind: "Node", Name: i.node, Field: i.path(), Reason: "ConfigurationEdited",
			Message: "the CNI configuration was edited by hand and has been put back",
			Remedy:  "configure plugins in spec.cni.plugins of Network/default, then delete the edited file " + i.path() + editedEnding,
		})
	}
	i.notices.set("cni", problems...)
	i.notices.remark(chain.cost())
}

// sameContent tells whether two files are alike; it is false if one cannot be
// read.
func sameContent(a, b string) bool {
	one, err := os.ReadFile(a)
	if err != nil {
		return false
	}
	other, err := os.ReadFile(b)
	return err == nil && bytes.Equal(one, other)
}

func copyFile(to, from string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	return replace(to, 0o755, func(file *os.File) error { _, err := io.Copy(file, source); return err })
}

// unfinished are the names of files that replace is writing.
func unfinished(path string) string { return "." + filepath.Base(path) + "-*.tmp" }

// removeUnfinished removes those of a process that was killed meanwhile: they are as
// large as the file, and nobody else would. Nobody may be writing it.
func removeUnfinished(path string) {
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), unfinished(path)))
	if err != nil {
		return // of a pattern that is none
	}
	for _, name := range names {
		_ = os.Remove(name)
	}
}

// replace writes a file that others see whole or not at all. Its temporary name
// has a leading dot and no ending that a runtime would read.
func replace(path string, mode os.FileMode, write func(*os.File) error) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), unfinished(path))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	err = write(file)
	if err == nil {
		err = file.Chmod(mode)
	}
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	return err
}
