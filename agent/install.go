package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/fairlead-net/fairlead/cni"
)

// install makes the container runtime use Fairlead: the plugin first, and once
// pods can be connected the configuration that names it and the file that says
// so. All stay when the agent ends, so that the node stays ready while it
// restarts; the file is gone after a reboot.
type install struct {
	plugin         string // what is installed
	binDir, conDir string
	socket         string
	checks         checks
	log            *slog.Logger
}

const (
	pluginName = "fairlead-cni"
	conflist   = "05-fairlead.conflist"
)

func (i *install) Run(ctx context.Context) error {
	if i.plugin != "" {
		if err := copyFile(filepath.Join(i.binDir, pluginName), i.plugin); err != nil {
			return fmt.Errorf("install the CNI plugin: %w", err)
		}
		// Runtimes want this one too. A node that has it keeps its own.
		err := os.Symlink(pluginName, filepath.Join(i.binDir, cni.LoopbackName))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("install the CNI plugin loopback: %w", err)
		}
	}
	for _, check := range i.checks {
		select {
		case <-ctx.Done():
			return nil
		case <-check.done:
		}
	}
	config, err := configuration(i.socket)
	if err != nil {
		return err
	}
	path := filepath.Join(i.conDir, conflist)
	if err := replace(path, 0o644, func(file *os.File) error { _, err := file.Write(config); return err }); err != nil {
		return fmt.Errorf("install the CNI configuration: %w", err)
	}
	if err := os.WriteFile(cni.ReadyFile(i.socket), nil, 0o644); err != nil {
		return fmt.Errorf("mark the node as ready: %w", err)
	}
	i.log.Info("pods can be connected", "configuration", path)
	return nil
}

// configuration offers the newest version of the specification to runtimes that
// know cniVersions, which came with 1.1, and 1.0.0 to others: they fail on one
// that they do not know.
func configuration(socket string) ([]byte, error) {
	text, err := json.MarshalIndent(map[string]any{
		"cniVersion":  "1.0.0",
		"cniVersions": []string{"1.0.0", "1.1.0"},
		"name":        "fairlead",
		"plugins":     []any{map[string]any{"type": pluginName, "socket": socket}},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the CNI configuration: %w", err)
	}
	return append(text, '\n'), nil
}

func copyFile(to, from string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	return replace(to, 0o755, func(file *os.File) error { _, err := io.Copy(file, source); return err })
}

// replace writes a file that others see whole or not at all. Its temporary name
// has a leading dot and no ending that a runtime would read.
func replace(path string, mode os.FileMode, write func(*os.File) error) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*.tmp")
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
