package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/model"
)

func newInstall(dir string) (*install, *notices) {
	feed, notices := &model.Feed{}, &notices{}
	feed.Edit(func(s *model.Snapshot) { s.Network = &model.Network{} })
	return &install{
		node: "node1", plugin: filepath.Join(dir, "new"), binDir: filepath.Join(dir, "bin"), conDir: filepath.Join(dir, "conf"),
		socket: filepath.Join(dir, socketName), copy: filepath.Join(dir, conflist),
		feed: feed, notices: notices, log: slog.New(slog.DiscardHandler),
	}, notices
}

// listenOn makes what an agent has at the path of its socket before pods can be connected.
func listenOn(t *testing.T, socket string) {
	t.Helper()
	must(t, os.WriteFile(socket, nil, 0o600))
	must(t, os.Mkdir(cni.SpoolDir(socket), 0o700))
}

// An agent that cannot put its plugin in place, on a full disk perhaps, goes on
// with the one that is there and says so; without any, no pod is connected. It
// tries again.
func TestPluginThatCannotBeInstalled(t *testing.T) {
	for _, there := range []bool{true, false} {
		dir := t.TempDir()
		i, notices := newInstall(dir)
		for _, made := range []string{i.binDir, i.conDir} {
			must(t, os.Mkdir(made, 0o755))
		}
		listenOn(t, i.socket)
		if there {
			must(t, os.WriteFile(i.target(), []byte("old"), 0o755))
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- i.Run(ctx) }()

		reason := map[bool]string{true: "PluginNotInstalled", false: "ConfigurationNotWritten"}[there]
		eventually(t, reason, func() bool {
			problems := notices.Problems()
			return len(problems) == 1 && problems[0].Reason == reason && strings.Contains(problems[0].Remedy, "make room")
		})
		if _, err := os.Stat(cni.ReadyFile(i.socket)); (err == nil) != there {
			t.Errorf("pods can be connected: %v, with a plugin there: %v", err == nil, there)
		}

		must(t, os.WriteFile(i.plugin, []byte("new"), 0o755))
		must(t, os.WriteFile(filepath.Join(i.binDir, "other"), nil, 0o755)) // something changes there
		eventually(t, "the plugin to be installed", func() bool { return len(notices.Problems()) == 0 && sameContent(i.target(), i.plugin) })
		if _, err := os.Stat(cni.ReadyFile(i.socket)); err != nil {
			t.Errorf("with it, no pod can be connected: %v", err)
		}
		must(t, os.Remove(i.target()))
		eventually(t, "the plugin to be put back", func() bool { return sameContent(i.target(), i.plugin) })
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	}
}

// TestDeletedMount: a mount of a directory that was removed is known, on file systems
// that do not tell by its links.
func TestDeletedMount(t *testing.T) {
	const mounts = `1 0 253:0 / / rw - ext4 /dev/vda rw
31 1 0:40 /opt/cni/bin//deleted /opt/cni/bin rw,relatime - overlay overlay rw
33 1 0:40 /etc/cni/net.d//deleted /etc/cni/net.d rw - overlay overlay rw
34 1 0:40 /etc/cni/net.d /etc/cni/net.d rw - overlay overlay rw
`
	for dir, want := range map[string]bool{"/opt/cni/bin": true, "/etc/cni/net.d": false, "/run/fairlead": false, "/": false} {
		if got := deletedMount(mounts, dir); got != want {
			t.Errorf("%s: %t, want %t", dir, got, want)
		}
	}
}

// An agent whose directory is removed from the node ends and says so: in what it has
// of it, as its container has of a mount, nothing can be made again. Only a process
// that begins sees the directory that is there now. The same if its socket is removed,
// or the directory beside it in which requests wait.
func TestDirectoryIsRemoved(t *testing.T) {
	for _, removed := range []string{"conf", "bin", "run", "run/" + socketName, "run/del"} {
		t.Run(removed, func(t *testing.T) {
			dir := t.TempDir()
			i, _ := newInstall(dir)
			must(t, os.WriteFile(i.plugin, []byte("new"), 0o755))
			mounted := map[string]string{}
			for _, name := range []string{"conf", "bin", "run"} {
				must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
				held, err := os.Open(filepath.Join(dir, name))
				must(t, err)
				defer held.Close()
				mounted[name] = fmt.Sprintf("/proc/self/fd/%d", held.Fd())
			}
			i.conDir, i.binDir, i.socket = mounted["conf"], mounted["bin"], filepath.Join(mounted["run"], socketName)
			listenOn(t, i.socket)
			ended := make(chan error, 1)
			go func() { ended <- i.Run(t.Context()) }()
			eventually(t, "pods to be connected", func() bool { _, err := os.Stat(cni.ReadyFile(i.socket)); return err == nil })

			path := filepath.Join(dir, removed)
			eventually(t, path+" to be removed", func() bool { return os.RemoveAll(path) == nil })
			if named, file, inside := strings.Cut(removed, "/"); inside {
				mounted[removed] = filepath.Join(mounted[named], file)
			} else {
				must(t, os.Mkdir(path, 0o755))
			}
			if removed != "run/"+socketName { // which it is told of
				snapshot, _ := i.feed.Latest()
				network := *snapshot.Network
				i.feed.Edit(func(s *model.Snapshot) { s.Network = &network }) // so that it looks
			}
			select {
			case err := <-ended:
				// What is in a directory goes before it, and may be missed first.
				name, said, _ := strings.Cut(fmt.Sprint(err), " ")
				if !strings.HasPrefix(name, mounted[removed]) || !strings.HasPrefix(said, "was removed from the node") {
					t.Errorf("it ends with %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("it does not end")
			}
		})
	}
}
