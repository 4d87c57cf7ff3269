// Package reference builds the reference plugins of CNI, to be compared with and
// to be run beside. They are no dependency of Fairlead: they are built in a module
// that is thrown away. It may be called concurrently.
package reference

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
)

// Version is that of the plugins.
const Version = "v1.9.1"

const module = "github.com/containernetworking/plugins"

// Build puts plugins into a directory, as an absolute path. They are named like
// main/bridge. What was built once is built without a network again.
func Build(ctx context.Context, dir string, plugins ...string) error {
	work, err := os.MkdirTemp("", "fairlead-reference-")
	if err != nil {
		return fmt.Errorf("build the reference plugins: %w", err)
	}
	defer os.RemoveAll(work)
	text := fmt.Sprintf("module reference\n\ngo 1.24.2\n\nrequire %s %s\n", module, Version)
	if err := os.WriteFile(filepath.Join(work, "go.mod"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("build the reference plugins: %w", err)
	}
	args := []string{"build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o", dir + "/"}
	for _, plugin := range plugins {
		args = append(args, path.Join(module, "plugins", plugin))
	}
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = work
	command.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build the reference plugins: %w\n%s", err, out)
	}
	return nil
}
