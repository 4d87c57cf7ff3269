package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/model"
)

// An agent that cannot put its plugin in place, on a full disk perhaps, goes on
// with the one that is there and says so; without any, no pod is connected. It
// tries again.
func TestPluginThatCannotBeInstalled(t *testing.T) {
	for _, there := range []bool{true, false} {
		dir := t.TempDir()
		feed, notices := &model.Feed{}, &notices{}
		feed.Edit(func(s *model.Snapshot) { s.Network = &model.Network{} })
		i := &install{
			node: "node1", plugin: filepath.Join(dir, "new"), binDir: filepath.Join(dir, "bin"), conDir: filepath.Join(dir, "conf"),
			socket: filepath.Join(dir, socketName), copy: filepath.Join(dir, conflist),
			feed: feed, notices: notices, log: slog.New(slog.DiscardHandler),
		}
		for _, made := range []string{i.binDir, i.conDir} {
			must(t, os.Mkdir(made, 0o755))
		}
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
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	}
}
